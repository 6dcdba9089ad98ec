import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from kdlit.errors import ConfigError
from kdlit.functional import hard_label_loss, keep_top_k, soft_label_loss, standardize

seeds = st.integers(0, 10_000)


def logits(seed: int) -> torch.Tensor:
    return 4 * torch.randn(7, 5, generator=torch.Generator().manual_seed(seed)).double()


@given(seeds, st.floats(0.01, 100), st.floats(-100, 100))
def test_standardizing_forgets_scale_and_shift(seed, scale, shift):
    assert torch.allclose(
        standardize(scale * logits(seed) + shift), standardize(logits(seed)), atol=1e-4
    )


@given(seeds)
def test_standardized_logits_have_mean_zero_and_unbiased_deviation_one(seed):
    found = standardize(logits(seed))
    assert torch.allclose(found.mean(dim=1), torch.zeros(7).double(), atol=1e-9)
    assert torch.allclose(found.var(dim=1, unbiased=True), torch.ones(7).double(), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_standardizing_is_finite_for_equal_and_extreme_logits(dtype):
    values = torch.tensor([[3.0, 3.0, 3.0], [1e4, -1e4, 0.0]], dtype=dtype, requires_grad=True)
    found = standardize(values)
    found.square().sum().backward()
    assert found.dtype == torch.float32
    assert torch.isfinite(found).all()
    assert torch.isfinite(values.grad).all()


@given(seeds, st.integers(1, 5), st.floats(0.1, 1000), st.sampled_from([1.0, 1e4]))
def test_top_k_leaves_k_classes_in_their_proportions_and_the_others_nothing(
    seed, k, temperature, scale
):
    values = scale * logits(seed)
    found = torch.softmax(keep_top_k(values, k) / temperature, dim=1)
    for row, kept in zip(values, found, strict=True):
        order = row.argsort(descending=True)
        assert (kept[order[k:]] == 0).all()
        assert torch.allclose(kept[order[:k]], torch.softmax(row[order[:k]] / temperature, dim=0))


@given(seeds)
def test_top_k_of_all_classes_changes_nothing(seed):
    assert torch.equal(keep_top_k(logits(seed), 5), logits(seed))


def test_top_one_is_the_teachers_decision():
    student, teacher = logits(0), logits(1)
    assert torch.allclose(
        soft_label_loss(student, keep_top_k(teacher, 1), 1.0), hard_label_loss(student, teacher)
    )


@given(seeds, st.integers(2, 4), st.floats(0.5, 20))
def test_classes_left_out_contribute_nothing(seed, k, temperature):
    student, teacher = logits(seed), logits(seed + 1)
    assume(not torch.equal(student, teacher))
    value, total = soft_label_loss(student, keep_top_k(teacher, k), temperature), 0.0
    for z, t in zip(student, teacher, strict=True):
        log_q = torch.log_softmax(z / temperature, dim=0)
        top = t.argsort(descending=True)[:k]
        p = torch.softmax(t[top] / temperature, dim=0)
        total += (p * (p.log() - log_q[top])).sum() * temperature * temperature / len(student)
    assert torch.allclose(value, total)


def test_more_classes_than_there_are_is_refused():
    with pytest.raises(ConfigError, match="at most the number of classes, 5, got 6"):
        keep_top_k(logits(0), 6)
