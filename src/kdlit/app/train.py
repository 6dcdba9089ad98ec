"""The command that does the whole job: `scripts/train.py`, `kdlit-train`."""

import logging
import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from kdlit.app.cli import (
    CONFIG_MODULE,
    STOPPED,
    called_as,
    register_resolvers,
    run_reporting_errors,
)
from kdlit.app.directory import LOCK_FILE, alone_in
from kdlit.app.resume import checkpoint_in, summary_of
from kdlit.app.sweeps import run_of_sweep
from kdlit.errors import ConfigError

if TYPE_CHECKING:
    from kdlit.app.processes import StartedProcess

log = logging.getLogger("kdlit")

CONFIG_NAME = "train"
# The run that a process was started to help with; see `_helped_by_others`.
_CONFIG_OF_RUN = "KDLIT_CONFIG_OF_RUN"
# torchrun and SLURM set one of them; without them Lightning need not be imported to ask it.
_STARTED_FROM_OUTSIDE = {"TORCHELASTIC_RUN_ID", "SLURM_NTASKS"}


def main(caller: str | None = None) -> None:
    """Compose the configuration from the command line and run it, or a sweep of it.

    Args:
        caller: the command that goes on after an interruption, where it is another one's.
    """
    joined = os.environ.get(_CONFIG_OF_RUN)
    if joined and os.environ.get("LOCAL_RANK", "0") != "0":
        run_reporting_errors(lambda: _join(joined), CONFIG_NAME)
    elif _STARTED_FROM_OUTSIDE & os.environ.keys():
        told = "the same command with ckpt_path=last"
        run_reporting_errors(_run_with_others, CONFIG_NAME, way_on=lambda: told)
    else:
        begun: list[Path] = []
        run_reporting_errors(
            lambda: _compose_and_run(begun=begun),
            CONFIG_NAME,
            way_on=lambda: caller or _way_on(begun),
        )


def _way_on(begun: list[Path]) -> str:
    """Return the command that goes on with a sweep, or with the run that was begun."""
    words = sys.argv[1:]
    others = [word for word in words if not word.startswith("ckpt_path=")]
    if {"-m", "--multirun"} & set(words):
        words = [*others, "ckpt_path=last"]
    elif begun and (last := checkpoint_in(begun[0])).is_file():
        by_name = set(words) <= {*others, "ckpt_path=last"}
        words = [*others, f"ckpt_path={'last' if by_name else os.path.relpath(last)}"]
    # Without a checkpoint of its own `last` would be that of an earlier run.
    return shlex.join([*called_as("train"), *words])


def call(arguments: Sequence[str], caller: str) -> bool:
    """Do this command in this process; return whether all of it went well.

    Args:
        arguments: as on the command line.
        caller: the command line of which it is a part, which goes on after an interruption.
    """
    before = sys.argv
    sys.argv = [str(Path(before[0]).with_name("train.py")), *arguments]
    GlobalHydra.instance().clear()
    try:
        main(caller)
    except SystemExit as stopped:
        if stopped.code in STOPPED:
            raise
        return not stopped.code
    finally:
        sys.argv = before
    return True


def _run_with_others() -> None:
    """Run in one of several processes that were started from outside, or in the only one."""
    from kdlit.app.processes import started

    process = started()
    if process is None:
        _compose_and_run()
    elif process.rank:
        told = process.hear()
        if told:  # else there is no run: the first process has failed, or was asked for help
            _run_as_told(OmegaConf.create(told))
    else:
        try:
            if {"-m", "--multirun"} & set(sys.argv):
                raise ConfigError(
                    f"a sweep in {process.count} processes that were started from outside: start "
                    "each of its runs by itself, or leave it to a launcher of Hydra's "
                    "(hydra/launcher=...)"
                )
            _compose_and_run(process)
        finally:
            process.tell("")


def _compose_and_run(
    process: "StartedProcess | None" = None, begun: list[Path] | None = None
) -> None:
    """Run once, or every run of a sweep, also when some of them fail.

    Args:
        process: this one, if it has others to tell of the run.
        begun: is given the directory of the run, if it is one.
    """
    failures: list[Exception] = []

    @hydra.main(version_base="1.3", config_path=f"pkg://{CONFIG_MODULE}", config_name=CONFIG_NAME)
    def command(config: DictConfig) -> float | None:
        config.run_dir = str(Path(config.run_dir))
        if HydraConfig.get().mode is RunMode.MULTIRUN:
            return run_of_sweep(config, _run)
        if begun is not None:
            begun.append(Path(config.run_dir))
        if config.ckpt_path == "last" and summary_of(config) is not None:
            log.info("%s/ is finished: left as it is", os.path.relpath(config.run_dir))
            return None
        if process is not None:
            process.tell(OmegaConf.to_yaml(config, resolve=True))
        try:
            with _nothing_left_of_a_run_that_never_began(config), alone_in(Path(config.run_dir)):
                return _run(config)
        except Exception as error:
            # Hydra would print its own account of it.
            failures.append(error)
            return None

    command()
    if failures:
        raise failures[0]


def _run(config: DictConfig) -> float | None:
    from kdlit.app.run import run

    with _helped_by_others(config):
        score: float | None = run(config)["selected"]["score"]
        return score


@contextmanager
def _nothing_left_of_a_run_that_never_began(config: DictConfig) -> Iterator[None]:
    """Remove the directory that Hydra made if the run fails its first checks."""
    try:
        yield
    except Exception:
        run_dir = Path(config.run_dir)
        left = {path.name for path in run_dir.iterdir()} if run_dir.is_dir() else set()
        if left <= {".hydra", "kdlit.log", LOCK_FILE}:
            shutil.rmtree(run_dir, ignore_errors=True)
            with suppress(OSError):  # the folder of this label and student, unless there are more
                run_dir.parent.rmdir()
        raise


def _join(path: str) -> None:
    _run_as_told(OmegaConf.load(path))


def _run_as_told(config: object) -> None:
    from kdlit.app.run import run

    assert isinstance(config, DictConfig)  # noqa: S101 - we wrote it
    run(config)


@contextmanager
def _helped_by_others(config: DictConfig) -> Iterator[None]:
    """Let processes that Lightning starts for DDP join this run.

    Lightning starts this command again with the same arguments. Under a sweep each of those
    processes would run the whole sweep; they are told instead which configuration to load. When
    the run is over, its process group and the variables that describe it are taken away, so that
    the next run of a sweep can start its own.
    """
    before = dict(os.environ)
    os.environ[_CONFIG_OF_RUN] = str(Path(config.run_dir, "config.yaml").resolve())
    try:
        yield
    finally:
        from torch import distributed

        if distributed.is_available() and distributed.is_initialized():
            distributed.destroy_process_group()
        for name in (_CONFIG_OF_RUN, "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR",
                     "MASTER_PORT"):  # fmt: skip
            os.environ.pop(name, None)
            if name in before:
                os.environ[name] = before[name]


# A launcher's processes import this module to run a part of a sweep, and never call `main`.
register_resolvers()
