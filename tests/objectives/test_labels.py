import pytest
import torch

from kdlit import BlendedLabels, HardLabels, Objective, SmoothLabels, SoftLabels, TruthLabels
from kdlit.batch import Batch, Outputs
from kdlit.errors import ConfigError
from kdlit.functional import hard_label_loss, soft_label_loss, truth_loss

Z, T = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 3, 0])
SOFT, HARD = soft_label_loss(Z, T, 3.0), hard_label_loss(Z, T)
TRUTH, SMOOTH = truth_loss(Z, Y), truth_loss(Z, Y, 0.2)


def total(objective: Objective) -> torch.Tensor:
    terms = objective(Outputs(Z), Outputs(T), Batch(None, Y))
    return sum(objective.weights[name] * term for name, term in terms.items())


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        (SoftLabels(3.0, 0.7), 0.7 * SOFT + 0.3 * TRUTH),
        (HardLabels(0.6), 0.6 * HARD + 0.4 * TRUTH),
        (TruthLabels(), TRUTH),
        (BlendedLabels(2.0, 1.0, 0.5, 3.0), 2 * SOFT + HARD + 0.5 * TRUTH),
        (SmoothLabels(0.2), SMOOTH),
    ],
    ids=repr,
)
def test_total_is_the_weighted_sum(objective, expected):
    assert torch.allclose(total(objective), expected)


def test_defaults_are_those_of_the_sources():
    assert (SoftLabels().temperature, SoftLabels().weights["soft"]) == (4.0, 0.9)
    assert HardLabels().weights["hard"] == 0.5
    assert SmoothLabels().smoothing == 0.1


@pytest.mark.parametrize("objective", [SoftLabels(alpha=0.0), HardLabels(alpha=0.0)])
def test_alpha_zero_is_the_ground_truth_to_the_bit(objective):
    assert torch.equal(total(objective), total(TruthLabels()))
    assert not objective.needs_teacher


def test_alpha_one_needs_no_ground_truth():
    terms = SoftLabels(alpha=1.0)(Outputs(Z), Outputs(T), Batch(None))
    assert set(terms) == {"soft"}
    with pytest.raises(ConfigError, match="alpha=1"):
        SoftLabels(alpha=0.5)(Outputs(Z), Outputs(T), Batch(None))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SoftLabels(temperature=0), "`temperature` must be finite and > 0, got 0"),
        (lambda: SoftLabels(temperature=-3.0), r"`temperature` .* got -3\.0"),
        (lambda: SoftLabels(temperature=float("nan")), "`temperature` .* got nan"),
        (lambda: SoftLabels(temperature=float("inf")), "`temperature` .* got inf"),
        (lambda: SoftLabels(temperature="4"), "`temperature` must be a number, got '4'"),
        (lambda: SoftLabels(temperature=True), "`temperature` must be a number, got True"),
        (lambda: SoftLabels(alpha=1.5), r"`alpha` must lie in \[0, 1\], got 1\.5"),
        (lambda: SoftLabels(alpha=-0.1), "`alpha`"),
        (lambda: HardLabels(alpha=float("nan")), "`alpha` .* got nan"),
        (lambda: BlendedLabels(hard=-1), "`hard` must be finite and >= 0, got -1"),
        (lambda: BlendedLabels(0, 0, 0), "at least one of"),
        (lambda: SmoothLabels(1.0), r"`smoothing` must lie in \[0, 1\), got 1\.0"),
    ],
)
def test_refuses_bad_arguments_with_their_value(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
