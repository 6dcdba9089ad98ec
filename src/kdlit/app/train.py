"""The command that does the whole job: `scripts/train.py`, `kdlit-train`."""

import logging
import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from kdlit.app.cli import CONFIG_MODULE, explain, register_resolvers, run_reporting_errors
from kdlit.errors import ConfigError, KdlitError

if TYPE_CHECKING:
    from kdlit.app.processes import StartedProcess

log = logging.getLogger("kdlit")

CONFIG_NAME = "train"
# The run that a process was started to help with; see `_helped_by_others`.
_CONFIG_OF_RUN = "KDLIT_CONFIG_OF_RUN"
# torchrun and SLURM set one of them; without them Lightning need not be imported to ask it.
_STARTED_FROM_OUTSIDE = {"TORCHELASTIC_RUN_ID", "SLURM_NTASKS"}


def main() -> None:
    """Compose the configuration from the command line and run it, or a sweep of it."""
    register_resolvers()
    joined = os.environ.get(_CONFIG_OF_RUN)
    if joined and os.environ.get("LOCAL_RANK", "0") != "0":
        run_reporting_errors(lambda: _join(joined), CONFIG_NAME)
    elif _STARTED_FROM_OUTSIDE & os.environ.keys():
        run_reporting_errors(_run_with_others, CONFIG_NAME)
    else:
        run_reporting_errors(_compose_and_run, CONFIG_NAME)


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


def _compose_and_run(process: "StartedProcess | None" = None) -> None:
    """Run once, or every run of a sweep, also when some of them fail."""
    runs: list[set[str]] = []
    failures: list[tuple[int, Exception]] = []
    sweeps: list[Path] = []

    @hydra.main(version_base="1.3", config_path=f"pkg://{CONFIG_MODULE}", config_name=CONFIG_NAME)
    def command(config: DictConfig) -> float | None:
        from kdlit.app.run import run

        config.run_dir = str(Path(config.run_dir))
        if process is not None:
            process.tell(OmegaConf.to_yaml(config, resolve=True))
        in_sweep = HydraConfig.get().mode is RunMode.MULTIRUN
        if in_sweep and not sweeps:
            sweeps.append(Path(HydraConfig.get().sweep.dir))
        runs.append(set(HydraConfig.get().overrides.task))
        try:
            with _nothing_left_of_a_run_that_never_began(config), _helped_by_others(config):
                score: float | None = run(config, in_sweep=in_sweep)["selected"]["score"]
                return score
        except Exception as error:
            # Hydra would print its own account of it and end the sweep.
            failures.append((len(runs) - 1, error))
            if in_sweep:
                log.error("This run failed: %s", explain(error, CONFIG_NAME, []))
            return None

    command()
    if sweeps and len(failures) < len(runs):
        print(f"Compare these runs: {_command_of_report(sweeps[0])}")
    if failures and len(runs) == 1:
        raise failures[0][1]
    if failures:
        alike = set.intersection(*runs)
        told = "; ".join(
            f"{', '.join(sorted(runs[number] - alike))}: {explain(error, CONFIG_NAME, [])}"
            for number, error in failures
        )
        count = f"{len(failures)} run{'s' if len(failures) > 1 else ''} of the sweep failed"
        raise KdlitError(f"{count}. {told}") from failures[0][1]


def _command_of_report(sweep: Path) -> str:
    """Return the command that compares the runs of a sweep, as this one was called."""
    script = Path(sys.argv[0]).with_name("report.py")
    words = ["python", str(script)] if script.is_file() else ["kdlit-report"]
    # A folder beside this one is named from the root.
    folder = os.path.relpath(sweep)
    return shlex.join([*words, str(sweep.resolve()) if folder.startswith("..") else folder])


@contextmanager
def _nothing_left_of_a_run_that_never_began(config: DictConfig) -> Iterator[None]:
    """Remove the directory that Hydra made if the run fails its first checks."""
    try:
        yield
    except Exception:
        run_dir = Path(config.run_dir)
        left = {path.name for path in run_dir.iterdir()} if run_dir.is_dir() else set()
        if left <= {".hydra", "kdlit.log"}:
            shutil.rmtree(run_dir, ignore_errors=True)
            with suppress(OSError):  # the folder of this label and student, unless there are more
                run_dir.parent.rmdir()
        raise


def _join(path: str) -> None:
    # What the first process may begin anew, so may this one.
    _run_as_told(OmegaConf.load(path), in_sweep=True)


def _run_as_told(config: object, *, in_sweep: bool = False) -> None:
    from kdlit.app.run import run

    assert isinstance(config, DictConfig)  # noqa: S101 - we wrote it
    run(config, in_sweep=in_sweep)


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
