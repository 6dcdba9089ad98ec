"""Many runs in one place: what differs between them, what it does, and what can be said of it."""

from kdlit.report.groups import Setting, group
from kdlit.report.runs import Found, Run, find_summaries, read_runs
from kdlit.report.table import compare, markdown, mean_and_spread

__all__ = [
    "Found",
    "Run",
    "Setting",
    "compare",
    "find_summaries",
    "group",
    "markdown",
    "mean_and_spread",
    "read_runs",
]
