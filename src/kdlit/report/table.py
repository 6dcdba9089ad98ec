"""The table for the terminal: mean and spread over seeds."""

import statistics
from collections.abc import Sequence
from typing import Any

from kdlit.report.groups import group_summaries

COLUMNS = {
    "accuracy, %": ("accuracy", 100.0, 2),
    "agreement, %": ("agreement", 100.0, 2),
    "ECE, %": ("ece", 100.0, 2),
    "NLL": ("nll", 1.0, 4),
}
"""Test metrics by their heading: the name, the factor and the digits to show."""


def compare(summaries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Group runs that differ in their seed alone, best mean accuracy first.

    Returns:
        One entry per group: `settings` (what differs between groups), its `name` in short words,
        `seeds`, and under `values` each metric's list over the seeds, in order of seed.
    """
    return [
        {
            "settings": setting.values,
            "name": setting.name,
            "seeds": setting.seeds,
            "values": {
                name: values
                for name, _, _ in COLUMNS.values()
                if (values := setting.test(name)) is not None
            },
        }
        for setting in group_summaries(summaries)
    ]


def mean_and_spread(values: Sequence[float], scale: float, digits: int) -> str:
    """Return `mean ± sample standard deviation`, or the value where there is one.

    >>> mean_and_spread([0.97, 0.98, 0.99], 100, 2)
    '98.00 ± 1.00'
    """
    mean = f"{scale * statistics.fmean(values):.{digits}f}"
    return mean + (f" ± {scale * statistics.stdev(values):.{digits}f}" if len(values) > 1 else "")


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Return the table of :func:`compare` in Markdown."""
    columns = [
        name for name, (key, _, _) in COLUMNS.items() if any(key in r["values"] for r in rows)
    ]
    lines = [
        f"| setting | seeds | {' | '.join(columns)} |",
        f"|---|---|{'---|' * len(columns)}",
    ]
    for row in rows:
        cells = []
        for name in columns:
            key, scale, digits = COLUMNS[name]
            values = row["values"].get(key)
            cells.append(mean_and_spread(values, scale, digits) if values else "")
        lines.append(f"| {row['name']} | {len(row['seeds'])} | {' | '.join(cells)} |")
    return "\n".join(lines)
