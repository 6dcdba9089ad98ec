"""Transforms of logits on every label strategy that reads a teacher."""

import inspect

import pytest
import torch

import kdlit.objectives
from kdlit import HardLabels, SoftLabels
from kdlit.batch import Batch, Outputs
from kdlit.errors import ConfigError
from kdlit.objectives import (
    BlendedLabels,
    DKDLabels,
    JensenShannonLabels,
    LogitMSELabels,
    MLKDLabels,
    ReverseKLLabels,
    Soften,
    Standardize,
    TopK,
)
from kdlit.objectives.teacher_labels import TeacherLabels
from kdlit.schedules import LinearWarmup, weight_at
from kdlit.tasks import Multiclass

STRATEGIES = {
    name: value
    for name, value in vars(kdlit.objectives).items()
    if inspect.isclass(value) and "transform" in inspect.signature(value).parameters
}
# In these a probability of 0 has no meaning.
WHOLE = {"ReverseKLLabels", "LogitMSELabels"}

generator = torch.Generator().manual_seed(0)
Z, T = (4 * torch.randn(6, 7, generator=generator) for _ in range(2))
BATCH = Batch(None, torch.randint(7, (6,), generator=generator))

EACH = pytest.mark.parametrize("make", STRATEGIES.values(), ids=STRATEGIES)
EACH_TRUNCATABLE = pytest.mark.parametrize(
    "make", [STRATEGIES[name] for name in sorted(set(STRATEGIES) - WHOLE)]
)


def terms(objective, z=Z, t=T):
    return objective(Outputs(z), Outputs(t), BATCH)


def same(one, two, **tolerance):
    return one.keys() == two.keys() and all(
        torch.allclose(one[name], two[name], **tolerance) for name in one
    )


def test_every_strategy_that_reads_a_teacher_takes_a_transform():
    reading = {
        name
        for name, value in vars(kdlit.objectives).items()
        if inspect.isclass(value)
        and issubclass(value, TeacherLabels)
        # The transforms are of logits of classes.
        and isinstance(value.task, Multiclass)
    }
    assert reading - {"TruthLabels"} == set(STRATEGIES)
    assert len(STRATEGIES) >= 11


@EACH
def test_standardizing_acts_on_what_is_compared_and_never_on_the_truth(make):
    plain, standardized = terms(make()), terms(make(transform=Standardize()))
    assert torch.equal(plain["truth"], standardized["truth"])
    assert not same(plain, standardized)
    if make.__name__ != "WSLDLabels":  # whose weights compare the logits with the truth
        moved = terms(make(transform=Standardize()), 3 * Z - 5, 0.2 * T + 1)
        compared = set(moved) - {"truth"}
        assert all(torch.allclose(moved[n], standardized[n], atol=1e-4) for n in compared)


@EACH_TRUNCATABLE
def test_top_k_of_all_classes_is_no_transform(make):
    assert same(terms(make(transform=TopK(7))), terms(make()), rtol=1e-6)


@EACH_TRUNCATABLE
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("k", [2, 3])
def test_top_k_stays_finite(make, dtype, k):
    for scale in (1.0, 1e4 / 16):
        student = (scale * Z).to(dtype).requires_grad_()
        found = terms(make(transform=TopK(k)), student, (scale * T).to(dtype))
        value = torch.stack(list(found.values())).sum()
        value.backward()
        assert value.dtype == torch.float32
        assert torch.isfinite(value)
        assert torch.isfinite(student.grad).all()
        # Nowhere does the distance of those left out show.
        assert value.abs() < 1e3 * scale


@EACH_TRUNCATABLE
def test_top_k_does_not_see_what_it_cuts_off(make):
    order = T.argsort(dim=1, descending=True)
    other = T.scatter(1, order[:, 3:], T.gather(1, order[:, 3:]).flip(1) - 1.0)
    one, two = terms(make(transform=TopK(3))), terms(make(transform=TopK(3)), t=other)
    # The weights of this one compare the whole teacher with the truth.
    assert same(one, two) == (make.__name__ != "WSLDLabels")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: ReverseKLLabels(transform=TopK(3)),
            r"TopK\(k=3\) does not fit here: KL.*infinite",
        ),
        (lambda: JensenShannonLabels(1.0, transform=TopK(3)), "with beta=1, KL.*infinite"),
        (lambda: LogitMSELabels(transform=TopK(3)), "logits are compared"),
        (lambda: Soften(0.0), "`temperature` must be finite and > 0, got 0.0"),
        (lambda: TopK(1), "`k` must be an integer >= 2, got 1"),
        (lambda: TopK(2.0), "`k` must be an integer >= 2, got 2.0"),
        (
            lambda: SoftLabels(transform="standardize"),
            "`transform` must be None or .*'standardize'",
        ),
        (lambda: SoftLabels(transform={}), "`transform` must be None or"),
        (lambda: JensenShannonLabels(beta=1.5), r"`beta` must lie in \[0, 1\], got 1\.5"),
        (lambda: MLKDLabels(temperatures=4.0), "`temperatures` must be a list .* got 4.0"),
        (lambda: MLKDLabels(temperatures=[]), "`temperatures` must be a list"),
        (lambda: MLKDLabels(temperatures=[2, -1]), "`temperatures` must be finite and > 0, got -1"),
        (lambda: DKDLabels(warmup_steps=-1), "`warmup_steps` must be an integer >= 0, got -1"),
        (lambda: DKDLabels(nckd=LinearWarmup(8.0, 5), warmup_steps=5), "a schedule of its own"),
        (lambda: DKDLabels(0, 0, 0), "at least one of `tckd`, `nckd`, `truth` must be > 0"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_standardized_soft_labels_are_torchdistills(alpha, temperature):
    from torchdistill.losses.mid_level import LogitStdKDLoss

    ours = SoftLabels(temperature, 1 - alpha, Standardize())
    total = sum(ours.weights[name] * term for name, term in terms(ours).items())
    theirs = LogitStdKDLoss("", "output", "", "output", temperature, alpha=alpha)
    expected = theirs({"": {"output": Z}}, {"": {"output": T}}, BATCH.target)
    if alpha == 1.0:
        assert not ours.needs_teacher
    if alpha == 0.0:  # where it leaves out the factor T²
        expected = temperature**2 * expected
    assert torch.allclose(total, expected)


def test_softening_leaves_the_student_at_temperature_one():
    found = terms(SoftLabels(1.0, 1.0, Soften(3.0)))["soft"]
    wanted = (T / 3).softmax(dim=1)
    expected = (wanted * (wanted.log() - Z.log_softmax(dim=1))).sum(dim=1).mean()
    assert torch.allclose(found, expected)
    assert same(terms(HardLabels(transform=Soften(3.0))), terms(HardLabels()))


def test_a_transform_of_ones_own():
    def swapped(student, teacher):
        return teacher, student

    found = terms(SoftLabels(alpha=1.0, transform=swapped))["soft"]
    assert torch.equal(found, terms(SoftLabels(alpha=1.0), T, Z)["soft"])


def test_transforms_are_shown():
    assert repr(SoftLabels(transform=TopK(5))).endswith("temperature=4, transform=TopK(k=5))")
    assert repr(HardLabels(transform=Standardize())).endswith("transform=Standardize())")
    assert "LinearWarmup" in repr(DKDLabels(warmup_steps=3))


def test_weights_may_be_schedules_and_a_weight_of_zero_leaves_its_term_out():
    label = BlendedLabels(soft=LinearWarmup(2.0, 4), hard=0.0)
    assert set(terms(label)) == {"soft", "truth"}
    assert weight_at(label.weights["soft"], 0) == 0.5
    for make in (DKDLabels, MLKDLabels):
        alone = make(0.0, 0.0, *([0.0] if make is MLKDLabels else []), truth=1.0)
        assert not alone.needs_teacher
        assert set(alone(Outputs(Z), None, BATCH)) == {"truth"}
