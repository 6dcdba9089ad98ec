"""Runs of the real command that die by SIGKILL at a chosen event, and that go on.

A run is cut into events: a step of the teacher's or the student's training, a batch of the outputs'
cache, of validation, of the test, and every file, half of which is written when the run dies. A
process that has imported everything forks for each run, since most of a short run is imports.
"""

import multiprocessing
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

import kdlit.files
import kdlit.weights
from kdlit.app.cli import register_resolvers
from kdlit.app.train import main
from kdlit.classifier import ClassifierModule
from kdlit.distillation import DistillationModule
from kdlit.teachers.table import TableWriter

PHASES = ("teacher", "cache", "step", "validation", "test", "checkpoint", "file")


class _Events:
    """Counts the events of each phase, and kills the process at one of them."""

    def __init__(self, at: tuple[str, int] | None) -> None:
        self.at, self.counts = at, Counter()

    def is_due(self, phase: str) -> bool:
        self.counts[phase] += 1
        return (phase, self.counts[phase]) == self.at

    def happens(self, phase: str) -> None:
        if self.is_due(phase):
            die()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _watch(events: _Events) -> None:
    """Put the events into the functions that are their places."""

    def before(owner: Any, name: str, phase_of: Callable[..., str]) -> None:
        original = getattr(owner, name)

        def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
            events.happens(phase_of(self, *args))
            return original(self, *args, **kwargs)

        setattr(owner, name, watched)

    def trains(module: Any, *args: Any) -> str:
        return "step" if isinstance(module, DistillationModule) else "teacher"

    def measures(module: Any, stage: str, *args: Any) -> str:
        # A teacher is measured, too, when it has been trained.
        told = {"val": "validation", "test": "test"}[stage]
        return told if isinstance(module, DistillationModule) else "teacher"

    before(ClassifierModule, "loss_of", trains)
    before(ClassifierModule, "_measure", measures)
    before(TableWriter, "write", lambda *args: "cache")
    whole = kdlit.files.write_atomically

    def halfway(path: Path, write: Callable[[Path], object]) -> None:
        phase = "checkpoint" if path.suffix == ".ckpt" else "file"
        dies = events.is_due(phase)

        def write_half(temporary: Path) -> None:
            write(temporary)
            if dies:
                os.truncate(temporary, temporary.stat().st_size // 2)
                die()

        whole(path, write_half)

    for module in list(sys.modules.values()):
        if getattr(module, "write_atomically", None) is whole:
            module.write_atomically = halfway  # type: ignore[attr-defined]


def _run(arguments: Sequence[str], at: tuple[str, int] | None, place: Path, told: Any) -> None:
    log = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    events = _Events(at)
    _watch(events)
    sys.argv = ["kdlit-train", *arguments]
    register_resolvers()
    main()
    told.put(dict(events.counts))


def run(arguments: Sequence[str], log: Path, at: tuple[str, int] | None = None) -> dict[str, int]:
    """Do a run in a process of its own; return how many events there were of each phase.

    Args:
        arguments: of `kdlit-train`.
        log: gets what it prints.
        at: phase and number of the event at which it dies.

    Raises:
        RuntimeError: if it ends otherwise than it should.
    """
    context = multiprocessing.get_context("fork")
    told = context.SimpleQueue()
    process = context.Process(target=_run, args=(arguments, at, log, told))
    process.start()
    process.join()
    expected = 0 if at is None else -signal.SIGKILL
    if process.exitcode != expected:
        raise RuntimeError(
            f"exit status {process.exitcode}, not {expected}: {log.read_text()[-2000:]}"
        )
    return told.get() if at is None else {}


def ready() -> None:
    """Import what a run imports, so that no fork has to."""
    import kdlit.app.run
    import kdlit.app.teachers
    import kdlit.data
    import kdlit.loggers
    import kdlit.models
    import kdlit.objectives
    import kdlit.progress
    import kdlit.reproducibility
    import kdlit.schedules  # noqa: F401

    pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
