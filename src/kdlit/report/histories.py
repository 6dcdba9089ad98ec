"""Learning curves: what `metrics.csv` says of each epoch, over the seeds of a setting."""

import csv
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

CURVES = {
    "train/loss_epoch": "training loss",
    "val/nll": "validation loss (NLL)",
    "val/accuracy": "validation accuracy, %",
}
"""Columns of `metrics.csv` by what they are called."""

_MOST_POINTS = 200


@dataclass(frozen=True)
class Curve:
    """A mean over seeds by epoch.

    Attributes:
        epochs: counted from 1.
        means: at each epoch, over the seeds that have it.
        spreads: sample standard deviations; 0 where there is one seed.
    """

    epochs: list[int]
    means: list[float]
    spreads: list[float]


def read_history(path: Path) -> dict[str, dict[int, float]]:
    """Return each curve's value by epoch; empty for a file that is not there or damaged."""
    found: dict[str, dict[int, float]] = {name: {} for name in CURVES}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                for name in CURVES:
                    if row.get(name) and row.get("epoch"):
                        value = float(row[name])
                        if math.isfinite(value):
                            found[name][int(float(row["epoch"])) + 1] = value
    except (OSError, ValueError, csv.Error):
        return {}
    return found


def curve(histories: Iterable[dict[int, float]]) -> Curve | None:
    """Return mean and spread by epoch, at 200 epochs at most; None without values.

    >>> curve([{1: 1.0, 2: 3.0}, {1: 3.0}])
    Curve(epochs=[1, 2], means=[2.0, 3.0], spreads=[1.4142135623730951, 0.0])
    """
    by_epoch: dict[int, list[float]] = defaultdict(list)
    for history in histories:
        for epoch, value in history.items():
            by_epoch[epoch].append(value)
    if not by_epoch:
        return None
    epochs = _thinned(sorted(by_epoch))
    return Curve(
        epochs,
        [statistics.fmean(by_epoch[epoch]) for epoch in epochs],
        [statistics.stdev(by_epoch[e]) if len(by_epoch[e]) > 1 else 0.0 for e in epochs],
    )


def _thinned(epochs: Sequence[int]) -> list[int]:
    """Return so many epochs as can be seen, the last among them."""
    every = math.ceil(len(epochs) / _MOST_POINTS)
    return list(epochs[::-every])[::-1]
