"""A sweep: it goes on in its directory where it was left, whichever of Hydra's launchers runs it.

Runs may be in other processes, or on other machines: what the sweep has to know of them stands in
their directories.
"""

import json
import logging
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from kdlit.app.cli import called_as, debugging, explain
from kdlit.app.directory import LOCK_FILE
from kdlit.app.resume import SUMMARY_FILE, take_up
from kdlit.files import is_writable, remove_unfinished, write_json

log = logging.getLogger("kdlit")

FAILED_FILE = "failed.json"
"""What a run of a sweep leaves when it fails: its overrides, and the error."""
_ONE_BY_ONE = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"


class SweepCallback(Callback):
    """Hydra's callback in the process that starts a sweep: checks it first, tells how it went."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Refuse to put another sweep over one that is there, before anything is written."""
        folder = Path(config.hydra.sweep.dir)
        if not is_writable(folder):
            _stop(
                f"hydra.sweep.dir={folder} cannot be written: name another with "
                "hydra.sweep.dir=<directory>"
            )
        before, now = overrides_of(folder), _own(config.hydra.overrides.task)
        if before is not None and before != now:
            _stop(
                f"hydra.sweep.dir={folder}: there is another sweep in it, {shlex.join(before)}. "
                "The same command goes on with a sweep; another one needs another directory"
            )
        if before is None and config.ckpt_path == "last":
            _stop(
                f"ckpt_path=last: there is no sweep of this command in {folder.parent}. Leave it "
                "out to begin one, or name one with hydra.sweep.dir=<its directory>"
            )

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Name the command of the report, and the runs that failed."""
        folder = Path(config.hydra.sweep.dir)
        if any(folder.rglob(SUMMARY_FILE)):
            print(f"Compare these runs: {command_of_report(folder)}")
        failed = [
            json.loads(path.read_text(encoding="utf-8"))
            for path in sorted(folder.rglob(FAILED_FILE))
        ]
        if failed:
            # Of a key that is given twice the last counts.
            given = {line.partition("=")[0]: line for line in config.hydra.overrides.task}.values()
            told = "; ".join(
                f"{', '.join(line for line in run['overrides'] if line not in given)}: "
                f"{run['error']}"
                for run in failed
            )
            _stop(f"{len(failed)} run{'s' if len(failed) > 1 else ''} of the sweep failed. {told}")


def run_of_sweep(config: DictConfig, work: Callable[[DictConfig], float | None]) -> float | None:
    """Do one run of a sweep; an error is written down, and ends no other run.

    A run that is finished is left as it is, and so is one that another process is at: a job of the
    same sweep, whose command was stopped. One that was begun goes on from its `last.ckpt`.
    """
    lock = FileLock(Path(config.run_dir, LOCK_FILE))
    try:
        # Freed by the operating system when its holder dies.
        lock.acquire(blocking=False)
    except Timeout:
        log.info("%s/ is being run by another process: left to it", os.path.relpath(config.run_dir))
        return None
    try:
        remove_unfinished(Path(config.run_dir))
        return _run_alone(config, work)
    finally:
        lock.release()


def _run_alone(config: DictConfig, work: Callable[[DictConfig], float | None]) -> float | None:
    run_dir = Path(config.run_dir)
    if HydraConfig.get().launcher._target_ != _ONE_BY_ONE:
        # Bars that move would overwrite those of the other runs.
        os.environ["TERM"] = "dumb"
    (run_dir / FAILED_FILE).unlink(missing_ok=True)
    try:
        finished = take_up(config)
        if finished is None:
            return work(config)
        log.info("%s/ is finished: skipped", os.path.relpath(run_dir))
        score: float | None = finished["selected"]["score"]
        return score
    except Exception as error:
        told = explain(error, "train", [])
        log.error("This run failed: %s", told, exc_info=debugging())
        overrides = [str(line) for line in HydraConfig.get().overrides.task]
        write_json(run_dir / FAILED_FILE, {"overrides": overrides, "error": told})
        return None


def overrides_of(folder: Path) -> list[str] | None:
    """Return the overrides of the sweep in a directory; None if there is none, or none readable."""
    try:
        written = OmegaConf.load(folder / "multirun.yaml")
    except (OSError, ValueError, YAMLError):
        return None
    task = OmegaConf.select(written, "hydra.overrides.task")
    return None if task is None else _own(task)


def newest_of(overrides: list[str], root: Path) -> Path | None:
    """Return the newest sweep below `root` with these overrides, in this order."""
    wanted = _own(overrides)
    found = [path for path in root.glob("*/") if overrides_of(path) == wanted]
    return max(found, key=lambda path: path.name, default=None)


def command_of_report(folder: Path) -> str:
    """Return the command that compares the runs of a folder, as this one was called."""
    # A folder beside this one is named from the root.
    relative = os.path.relpath(folder)
    name = str(folder.resolve()) if relative.startswith("..") else relative
    return shlex.join([*called_as("report"), name])


def _own(overrides: Any) -> list[str]:
    """Return the overrides without the one that says whether to go on."""
    return [str(line) for line in overrides if not str(line).startswith("ckpt_path=")]


def _stop(message: str) -> None:
    """End the command: Hydra makes warnings of the exceptions of a callback."""
    print(f"kdlit: {message}", file=sys.stderr)
    sys.exit(1)
