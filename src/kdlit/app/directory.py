"""A run's directory: one run at a time, and no run over another."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, open_dict, read_write

from kdlit.app.resume import (
    BEST_FILE,
    CONFIG_FILE,
    LAST_FILE,
    SUMMARY_FILE,
    checkpoint_in,
    checkpoint_to_resume,
)
from kdlit.errors import ConfigError
from kdlit.files import is_storage, is_writable, remove_unfinished, room_in, writing

LOCK_FILE = ".lock"
"""What the process that does a run holds meanwhile."""
_REQUEUED = "hpc_ckpt_*.ckpt"  # from which Lightning goes on by itself, in a job of SLURM's
_LEAST_ROOM = 1 << 20  # of a run's directory before there is anything in it
_FILES = (CONFIG_FILE, SUMMARY_FILE, LAST_FILE, BEST_FILE, "metrics.csv", "student.safetensors")


class DirectoryCallback(Callback):
    """Hydra's callback before a single run: refuses its directory while it is untouched."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Check the directory; end the command if the run must not be put there."""
        # As for the run itself, which has it only later.
        hydras, before = HydraConfig.instance(), HydraConfig.instance().cfg
        hydras.set_config(config)
        try:
            run_dir = Path(config.hydra.run.dir)
            config = deepcopy(config)
            with read_write(config), open_dict(config):
                del config["hydra"]
                config.run_dir = str(run_dir)
            _check(run_dir, config)
        except ConfigError as error:
            # Hydra makes warnings of the exceptions of a callback.
            print(f"kdlit: {' '.join(str(error).split())}", file=sys.stderr)
            sys.exit(1)
        finally:
            hydras.cfg = before


def _check(run_dir: Path, config: DictConfig) -> None:
    """Raise `ConfigError` if a run must not be put into a directory."""
    another = "name another with hydra.run.dir=<directory>"
    if not is_writable(run_dir):
        raise ConfigError(f"hydra.run.dir={run_dir} cannot be written: {another}")
    if room_in(run_dir) < _LEAST_ROOM:
        raise ConfigError(f"hydra.run.dir={run_dir}: there is no room; make some, or {another}")
    folders = [name for name in _FILES if (run_dir / name).is_dir()]
    if folders:
        raise ConfigError(f"hydra.run.dir={run_dir}: {folders[0]} in it is a folder; {another}")
    if (run_dir / LOCK_FILE).is_file():
        with alone_in(run_dir):
            pass
    goes_on = checkpoint_to_resume(config)
    finished, begun = (run_dir / SUMMARY_FILE).is_file(), checkpoint_in(run_dir).is_file()
    if any(run_dir.glob(_REQUEUED)) or not (finished or begun):
        return
    if goes_on is None or goes_on.parent.resolve() != run_dir.resolve():
        state = "is finished" if finished else "was begun"
        way_on = "ckpt_path=last goes on with it, or " if begun else ""
        raise ConfigError(
            f"hydra.run.dir={run_dir} holds a run that {state}, and is left as it is: {way_on}"
            f"{another}"
        )


@contextmanager
def alone_in(run_dir: Path) -> Iterator[None]:
    """Hold the lock of a run's directory, and remove what a killed process has left there.

    The operating system frees it when its holder dies.

    Raises:
        ConfigError: if another process holds it.
    """
    lock = FileLock(run_dir / LOCK_FILE)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise ConfigError(
            f"hydra.run.dir={run_dir} is being run by another process, and is left to it: name "
            "another directory with hydra.run.dir=<directory>"
        ) from error
    try:
        remove_unfinished(run_dir)
        yield
    finally:
        lock.release()


@contextmanager
def writing_run(run_dir: Path) -> Iterator[None]:
    """Name a run's directory where others cannot write to it, such as a logger for TensorBoard.

    Raises:
        StorageError: where there is no room, or nothing but reading.
    """
    before = threading.excepthook

    def unless_storage(told: threading.ExceptHookArgs) -> None:
        # Of a thread that writes events the logger hands the error on.
        if not is_storage(told.exc_value):
            before(told)

    threading.excepthook = unless_storage
    try:
        with writing(run_dir, only_storage=True):
            yield
    finally:
        threading.excepthook = before
