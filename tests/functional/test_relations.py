"""What the relations of a batch depend on and what not, and that they are finite without any."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdlit.errors import ConfigError
from kdlit.functional import (
    attention_loss,
    correlation_loss,
    nst_loss,
    pkt_loss,
    rkd_angle_loss,
    rkd_distance_loss,
    similarity_loss,
)
from kdlit.functional.vectors import unit

RELATIONS = [similarity_loss, rkd_distance_loss, rkd_angle_loss, pkt_loss, correlation_loss]
MAPS = [attention_loss, nst_loss]
relations = pytest.mark.parametrize("loss", RELATIONS)
maps = pytest.mark.parametrize("loss", MAPS)
every = pytest.mark.parametrize("loss", RELATIONS + MAPS)
seeds = st.integers(0, 10_000)


def drawn(seed: int, *shapes: tuple[int, ...]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]


def features_of(loss, count: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    size = (4, 4) if loss in MAPS else ()
    one, two = drawn(0, (count, 3, *size), (count, 5, *size))
    return one.float(), two.float()


def rotation(seed: int, size: int) -> torch.Tensor:
    return torch.linalg.qr(drawn(seed, (size, size))[0])[0]


@relations
@given(seed=seeds, scale=st.floats(0.01, 100))
def test_relations_do_not_change_with_scale_and_rotation(loss, seed, scale):
    student, teacher = drawn(seed, (6, 4), (6, 5))
    turned = scale * student @ rotation(seed, 4)
    assert loss(turned, teacher).item() == pytest.approx(loss(student, teacher).item(), rel=1e-6)
    assert loss(turned, student).item() == pytest.approx(0, abs=1e-9)
    assert loss(student, teacher) > 0


@pytest.mark.parametrize("loss", [rkd_distance_loss, rkd_angle_loss])
@given(seed=seeds, shift=st.floats(-100, 100))
def test_rkd_does_not_change_with_translation(loss, seed, shift):
    student, teacher = drawn(seed, (6, 4), (6, 5))
    assert loss(student + shift, teacher - 2 * shift).item() == pytest.approx(
        loss(student, teacher).item(), rel=1e-6
    )


@pytest.mark.parametrize("loss", [similarity_loss, pkt_loss, correlation_loss])
def test_those_of_inner_products_do_change_with_translation(loss):
    student, _ = drawn(0, (6, 4), (6, 5))
    assert loss(student + 1, student) > 1e-4


@pytest.mark.parametrize("loss", [rkd_angle_loss, pkt_loss, correlation_loss])
def test_angles_do_not_change_with_each_sample_s_scale_where_they_are_at_the_origin(loss):
    student, teacher = drawn(0, (6, 4), (6, 5))
    scales = torch.linspace(0.5, 3, 6)[:, None]
    same = loss(scales * student, teacher).item() == pytest.approx(loss(student, teacher).item())
    assert same == (loss is not rkd_angle_loss)


def test_rkd_keeps_a_shape_of_known_distances_and_angles():
    triangle = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    line = torch.tensor([[0.0], [1.0], [2.0]])
    # Distances 3, 4, 5 with mean 4; distances 1, 2, 1 with mean 4/3.
    pairs = [(3 / 4, 3 / 4), (1, 6 / 4), (5 / 4, 3 / 4)]
    expected = 2 * sum((a - b) ** 2 / 2 for a, b in pairs) / 9
    assert rkd_distance_loss(triangle, line).item() == pytest.approx(expected)
    # Cosines at the three corners 0, 3/5, 4/5; on the line 1, -1, 1.
    corners = [(0, 1), (3 / 5, -1), (4 / 5, 1)]
    huber = [abs(a - b) - 0.5 if abs(a - b) > 1 else (a - b) ** 2 / 2 for a, b in corners]
    assert rkd_angle_loss(triangle, line).item() == pytest.approx(2 * sum(huber) / 27)


def test_the_kernel_s_series_approaches_the_gaussian():
    student, teacher = drawn(0, (6, 4), (6, 5))

    def gaussian(features):
        features = features / features.norm(dim=1, keepdim=True)
        return torch.exp(-0.4 * torch.cdist(features, features) ** 2)

    exact = (gaussian(student) - gaussian(teacher)).square().mean().item()
    errors = [
        abs(correlation_loss(student, teacher, 0.4, order).item() - exact) for order in (1, 2, 4, 9)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-9


def test_pkt_is_finite_for_opposite_features():
    student = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]], requires_grad=True)
    loss = pkt_loss(student, torch.ones(3, 2))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(student.grad).all()


# Maps ------------------------------------------------------------------------------------------


@maps
@given(seed=seeds, scale=st.floats(0.01, 100))
def test_maps_count_by_where_and_not_by_how_much(loss, seed, scale):
    student, teacher = drawn(seed, (2, 3, 4, 4), (2, 5, 4, 4))
    assert loss(scale * student, teacher).item() == pytest.approx(
        loss(student, teacher).item(), rel=1e-6
    )
    order = torch.randperm(3)
    assert loss(student[:, order], student).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_attention_of_any_power_and_of_maps_of_different_sizes(p):
    student, teacher = drawn(0, (2, 3, 4, 4), (2, 5, 2, 2))
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        ours = [
            sum(abs(s[c, 2 * y + a, 2 * x + b].item()) ** p for c in range(3) for a, b in QUARTER)
            for y in range(2)
            for x in range(2)
        ]
        theirs = [sum(abs(v) ** p for v in t[:, y, x].tolist()) for y in range(2) for x in range(2)]
        total += sum(
            (a / math.hypot(*ours) - b / math.hypot(*theirs)) ** 2
            for a, b in zip(ours, theirs, strict=True)
        )
    assert attention_loss(student, teacher, p).item() == pytest.approx(total / 8)
    assert attention_loss(teacher, student, p).item() == pytest.approx(total / 8)


QUARTER = [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_nst_averages_the_larger_maps():
    student, teacher = drawn(0, (2, 3, 4, 6), (2, 5, 2, 3))
    small = student.unfold(2, 2, 2).unfold(3, 2, 2).mean(dim=(4, 5))
    assert nst_loss(student, teacher).item() == pytest.approx(nst_loss(small, teacher).item())


def test_nst_counts_a_dead_channel_as_one_that_is_nowhere():
    alive = torch.tensor([[[[1.0, 0.0]]]])
    dead = torch.cat([alive, torch.zeros_like(alive)], dim=1)
    # k = 1 for the one pair of alive; (1/4 of the pairs for dead with itself) and 1/2 across.
    assert nst_loss(dead, alive).item() == pytest.approx(1 + 1 / 4 - 2 * 1 / 2)


# Where there is nothing to relate --------------------------------------------------------------


def spoil(features: torch.Tensor, how: str) -> torch.Tensor:
    features = features.clone()
    if how == "a zero sample":
        features[2] = 0
    elif how == "all zero":
        features[:] = 0
    elif how == "two identical samples":
        features[1] = features[0]
    elif how == "all identical":
        features[:] = features[0].clone()
    elif how == "opposite samples":
        features[1] = -features[0]
    elif how == "a dead channel":
        features[:, 0] = 0
    elif how == "huge":
        features *= 1e4
    elif how == "tiny":
        features *= 1e-15
    elif how == "one sample":
        features = features[:1]
    return features


@pytest.mark.parametrize("which", ["student", "teacher", "both"])
@pytest.mark.parametrize(
    "how",
    [
        "a zero sample",
        "all zero",
        "two identical samples",
        "all identical",
        "opposite samples",
        "a dead channel",
        "huge",
        "tiny",
    ],
)
@every
def test_value_and_gradient_are_finite(loss, how, which):
    student, teacher = features_of(loss)
    student = spoil(student, how) if which != "teacher" else student
    teacher = spoil(teacher, how) if which != "student" else teacher
    student.requires_grad_()
    value = loss(student, teacher)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(student.grad).all()
    if how != "tiny" or which == "teacher":
        # No constant in a denominator that would make the gradient at 0 millions of times larger.
        assert student.grad.abs().max() < 100


@every
def test_a_batch_of_one_sample(loss):
    student, teacher = (spoil(features, "one sample") for features in features_of(loss))
    student.requires_grad_()
    value = loss(student, teacher)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(student.grad).all()
    if loss in RELATIONS:
        assert value.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@every
def test_half_precision_is_computed_in_float32(loss, dtype):
    student, teacher = (100 * features.to(dtype) for features in features_of(loss))
    value = loss(student.requires_grad_(), teacher)
    value.backward()
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(loss(student.double(), teacher.double()).item(), rel=1e-4)
    assert torch.isfinite(student.grad).all()


@every
def test_layers_of_other_shapes_than_vectors(loss):
    if loss in MAPS:
        for student, teacher, whose in (
            (torch.zeros(2, 3), torch.zeros(2, 3, 4, 4), "student"),
            (torch.zeros(2, 3, 4, 4), torch.zeros(2, 3), "teacher"),
        ):
            with pytest.raises(ConfigError, match=f"the {whose}'s layer must give feature maps"):
                loss(student, teacher)
    else:
        student, teacher = drawn(0, (4, 3, 2, 2), (4, 7, 5))
        assert loss(student, teacher) == loss(student.flatten(1), teacher.flatten(1))


@every
def test_refuses_other_numbers_of_samples(loss):
    student, teacher = features_of(loss)
    with pytest.raises(ConfigError, match=r"same N, got \(6, 3.* for the student and \(5, 5"):
        loss(student, teacher[:5])


def test_unit_has_no_gradient_at_zero_and_takes_any_size():
    vectors = torch.tensor([[0.0, 0.0], [3e30, 4e30], [3e-30, 4e-30]], requires_grad=True)
    found = unit(vectors)
    assert torch.allclose(found, torch.tensor([[0.0, 0.0], [0.6, 0.8], [0.6, 0.8]]))
    found[:, 0].sum().backward()
    assert vectors.grad[0].tolist() == [0, 0]
    assert torch.isfinite(vectors.grad).all()
    # The derivative of x / |x| is across x, and 1 / |x| in size.
    assert vectors.grad[1].tolist() == pytest.approx([0.128e-30, -0.096e-30])
