"""Intervals over seeds, and comparisons by seed: what a handful of runs can support."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LEVEL = 0.95
# Differences of accuracies, which are float32, are the same below this.
_SAME = 1e-6


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds.

    Attributes:
        mean: the mean.
        n: how many seeds.
        half: half the width of the 95 % interval; None for one seed.
    """

    mean: float
    n: int
    half: float | None

    @property
    def low(self) -> float | None:
        """The lower end of the interval."""
        return None if self.half is None else self.mean - self.half

    @property
    def high(self) -> float | None:
        """The upper end of the interval."""
        return None if self.half is None else self.mean + self.half

    @property
    def excludes_zero(self) -> bool:
        """Whether there is an interval, and 0 lies outside it."""
        return self.half is not None and abs(self.mean) > self.half


@dataclass(frozen=True)
class Paired:
    """A setting less a baseline, seed by seed.

    Attributes:
        difference: mean and 95 % interval over the seeds that both have.
        p: of the paired t-test; None where the differences have no spread, or for fewer than two
            seeds.
    """

    difference: Estimate
    p: float | None


def estimate(values: Sequence[float]) -> Estimate:
    r"""Return the mean and its 95 % interval after Student.

    .. math:: \bar x \pm t_{0.975,\, n-1} \, \frac{s}{\sqrt n}

    Args:
        values: one for each seed, at least one.

    >>> found = estimate([1.0, 2.0, 3.0])
    >>> found.mean, round(found.half, 3)  # 4.303 / sqrt(3)
    (2.0, 2.484)
    >>> estimate([1.0]).half is None
    True
    """
    n = len(values)
    mean = statistics.fmean(values)
    if n < 2:
        return Estimate(mean, n, None)
    from scipy.stats import t

    quantile = float(t.ppf((1 + LEVEL) / 2, n - 1))
    return Estimate(mean, n, quantile * statistics.stdev(values) / n**0.5)


def paired(ours: Mapping[int, float], baseline: Mapping[int, float]) -> Paired | None:
    """Compare two settings by the seeds that both have; None if there are none.

    Args:
        ours: values by seed.
        baseline: likewise.

    >>> found = paired({0: 3.0, 1: 5.0, 2: 7.0, 9: 0.0}, {0: 1.0, 1: 2.0, 2: 3.0})
    >>> found.difference.mean, found.difference.n, round(found.p, 4)  # t = 3 sqrt(3), 2 d.f.
    (3.0, 3, 0.0351)
    """
    seeds = sorted(ours.keys() & baseline.keys())
    if not seeds:
        return None
    differences = [ours[seed] - baseline[seed] for seed in seeds]
    if len(seeds) < 2 or max(differences) - min(differences) < _SAME:
        # From differences without a spread no noise can be estimated.
        return Paired(Estimate(statistics.fmean(differences), len(seeds), None), None)
    from scipy.stats import ttest_rel

    test = ttest_rel([ours[seed] for seed in seeds], [baseline[seed] for seed in seeds])
    return Paired(estimate(differences), float(test.pvalue))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust p-values for their number; None stays None and does not count.

    Source: Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal
    of Statistics 6, 1979.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    known = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, place) in enumerate(known):
        highest = min(1.0, max(highest, (len(known) - rank) * p))
        adjusted[place] = highest
    return adjusted
