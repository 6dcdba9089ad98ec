"""What came of a search: its trials, best first, and the commands that go on from there."""

import shlex
import sys
from collections import Counter
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.table import Table

from kdlit.app.cli import called_as
from kdlit.app.study import ERROR, counted
from kdlit.app.sweeps import command_of_report

_WORDS = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
}
_SHOWN = 15
# With fewer trials the ranking of the keys is noise.
_ENOUGH = 10


def tell(study: optuna.Study, folder: Path, fixed: list[str], monitor: str) -> None:
    """Print a table of the best trials, what mattered, and the commands that follow.

    Args:
        study: after its trials.
        folder: the search's directory.
        fixed: the overrides that all trials have.
        monitor: the metric that was searched by.
    """
    console = Console(file=sys.stdout)
    trials = _ranked(study)
    console.print(_table(trials, monitor))
    counts = Counter(_WORDS[trial.state] for trial in trials)
    print(f"{len(trials)} trials: {', '.join(f'{n} {word}' for word, n in counts.items())}")
    for trial in trials:
        if ERROR in trial.user_attrs:
            print(f"Trial {trial.number} failed: {trial.user_attrs[ERROR]}")
    finished = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    if not finished:
        return
    if len(finished) >= _ENOUGH and len(finished[0].params) > 1:
        shares = optuna.importance.get_param_importances(study)
        told = ", ".join(f"{key} {100 * share:.0f} %" for key, share in shares.items())
        print(f"Importance (PED-ANOVA): {told}")
    best = [f"{key}={value}" for key, value in finished[0].params.items()]
    print(f"The best again: {shlex.join([*called_as('train'), *fixed, *best])}")
    print(f"Compare these runs: {command_of_report(folder)}")


def _ranked(study: optuna.Study) -> list[FrozenTrial]:
    """Return finished trials, the best first, then those that were pruned, then others."""
    order = [*_WORDS]
    sign = -1 if study.direction is optuna.study.StudyDirection.MAXIMIZE else 1

    def key(trial: FrozenTrial) -> tuple[int, float, int]:
        value = trial.value
        return order.index(trial.state), sign * value if value is not None else 0.0, trial.number

    return sorted(counted(study), key=key)


def _table(trials: list[FrozenTrial], monitor: str) -> Table:
    table = Table()
    table.add_column("trial", justify="right")
    # A name that is cut off could be another one's, too.
    table.add_column(monitor, justify="right", overflow="fold")
    names = [*dict.fromkeys(name for trial in trials for name in trial.params)]
    for name in names:
        table.add_column(name, justify="right", overflow="fold")
    table.add_column("epochs", justify="right")
    table.add_column("")
    for trial in trials[:_SHOWN]:
        values = trial.intermediate_values
        table.add_row(
            str(trial.number),
            "" if trial.value is None else f"{trial.value:.4f}",
            *(_cell(trial.params.get(name)) for name in names),
            str(max(values) + 1) if values else "",
            _WORDS[trial.state],
        )
    if len(trials) > _SHOWN:
        table.caption = f"and {len(trials) - _SHOWN} more"
    return table


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)
