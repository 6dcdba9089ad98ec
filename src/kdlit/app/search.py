"""Search for good settings with Optuna: `scripts/search.py`, `kdlit-search`."""

import argparse
import logging
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, ListConfig, OmegaConf

from kdlit.app.cli import (
    CONFIG_MODULE,
    debugging,
    explain,
    register_resolvers,
    run_reporting_errors,
    typed,
)
from kdlit.app.directory import LOCK_FILE
from kdlit.app.spaces import read_space
from kdlit.checks import integer
from kdlit.errors import ConfigError, KdlitError
from kdlit.files import fingerprint, remove_unfinished

if TYPE_CHECKING:
    import optuna

log = logging.getLogger("kdlit")

_DESCRIPTION = """\
Search for the settings with the best validation metric. Overrides are those of train.py;
one that has an interval, a range or several options is searched:
  'label.temperature=tag(log,interval(1,20))'  a number on a logarithmic scale
  'student.widths=[16],[32],[64]'              one of several options
  'label.alpha=range(0.1,1,0.1)'               a grid of numbers
The same command goes on with its search; several such processes share the trials."""
_EXAMPLES = """\
examples:
  python scripts/search.py 'label.temperature=tag(log,interval(1,20))' 'label.alpha=interval(0.1,1)'
  python scripts/search.py label=dkd 'optimizer.lr=tag(log,interval(1e-4,1e-1))' --trials 50
  python scripts/search.py 'label=soft,dkd,mse' --storage postgresql://host/db --name labels"""


def main() -> None:
    """Do the search that the command line asks for, and tell its best trials."""
    # As Hydra does for the other commands: instead of what this process had before.
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stdout, force=True)
    register_resolvers()
    asked = _parser().parse_intermixed_args()
    way_on = typed("search")
    run_reporting_errors(lambda: _search(asked), "train", way_on=lambda: way_on)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("overrides", nargs="+", help="settings, and what to search")
    add("--trials", type=int, default=30, help="of all processes together (default: %(default)s)")
    add("--name", help="of the search's directory below searches/ (default: made of what it is)")
    add("--storage", metavar="URL", help="of a database (default: study.db in the directory)")
    add("--seed", type=int, default=0, help="of what is drawn (default: %(default)s)")
    startup = "trials drawn at random and not pruned (default: %(default)s)"
    add("--startup", type=int, default=8, help=startup)
    add("--no-pruning", action="store_true", help="let bad trials run to their end")
    heartbeat = "seconds; a trial with no sign of life for twice as long is tried again"
    add("--heartbeat", type=int, default=15, help=f"{heartbeat} (default: %(default)s)")
    return parser


def _search(asked: argparse.Namespace) -> None:
    integer("--trials", asked.trials)
    integer("--startup", asked.startup, least=0)
    integer("--heartbeat", asked.heartbeat)
    integer("--seed", asked.seed, least=0)
    try:
        import optuna
    except ImportError as error:
        raise ConfigError(
            f'a search needs Optuna ({error}): it comes with pip install "kdlit[optuna]"'
        ) from error
    from kdlit.app.study import counted, open_study, try_again
    from kdlit.app.trials import tell

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with initialize_config_module(CONFIG_MODULE, version_base="1.3"):
        fixed, space = read_space(asked.overrides, GlobalHydra.instance().config_loader())
        monitor, mode = _monitored(compose("train", fixed))
    folder = Path("searches", asked.name or _name([*space], [*asked.overrides, asked.seed]))
    study = open_study(
        folder, asked.storage, asked.overrides, mode=mode, startup=asked.startup,
        pruning=not asked.no_pruning, heartbeat=asked.heartbeat,
    )  # fmt: skip
    log.info("Search in %s/: %d of %d trials are there", folder, len(counted(study)), asked.trials)
    trial = _Trial(folder, fixed, space, monitor, asked.seed, asked.startup)
    while len(counted(study)) < asked.trials:
        trial.number = None
        try:
            study.optimize(trial, n_trials=1, catch=(Exception,))
        except KeyboardInterrupt:
            if trial.number is not None:
                try_again(study, trial.number)
            raise
        if trial.failed is not None and not _any_went_well(study):
            raise KdlitError(f"trial {trial.number}: {trial.failed}")
    tell(study, folder, fixed, monitor)


def _any_went_well(study: "optuna.Study") -> bool:
    from optuna.trial import TrialState

    return bool(study.get_trials(False, (TrialState.COMPLETE, TrialState.PRUNED)))


def _name(keys: Sequence[str], parts: Sequence[object]) -> str:
    """Return a name for a search: what it varies, and some digits for all the rest."""
    words = "-".join(re.sub(r"[^\w.]+", ".", key).strip(".") for key in keys)
    return f"{words[:60]}-{fingerprint([str(part) for part in parts])[:6]}"


def _monitored(config: DictConfig) -> tuple[str, str]:
    """Return the metric by which a run selects its student, and whether `max` or `min` is best."""
    monitor = OmegaConf.select(config, "callbacks.checkpoint.monitor")
    if not str(monitor).startswith("val/"):
        raise ConfigError(
            f"callbacks.checkpoint.monitor={monitor}: a search needs a metric of the validation "
            "set, such as val/accuracy"
        )
    if config.task != "distil":
        raise ConfigError(f"task={config.task}: a search trains students, with task=distil")
    devices = config.trainer.devices
    alone = len(devices) == 1 if isinstance(devices, ListConfig) else devices in (1, "1")
    if not alone or config.trainer.num_nodes != 1:
        raise ConfigError(
            f"trainer.devices={devices}: a trial runs on one device; start the same search once "
            "for each device instead"
        )
    return str(monitor), str(config.callbacks.checkpoint.mode)


class _Trial:
    """One trial: a run of its own directory.

    Attributes:
        number: of the present or last trial.
        failed: its error, if it failed.
    """

    def __init__(
        self,
        folder: Path,
        fixed: list[str],
        space: dict[str, "optuna.distributions.BaseDistribution"],
        monitor: str,
        seed: int,
        startup: int,
    ) -> None:
        self.folder, self.fixed, self.space, self.monitor = folder, fixed, space, monitor
        self.seed, self.startup = seed, startup
        self.number: int | None = None
        self.failed: str | None = None

    def __call__(self, trial: "optuna.Trial") -> float:
        """Run it, and return the best value of the monitored metric."""
        from optuna import TrialPruned

        from kdlit.app.study import ERROR, first_number, sampler, suggest

        self.number, self.failed = trial.number, None
        trial.study.sampler = sampler(self.seed, trial.number, self.startup)
        drawn = [f"{key}={suggest(trial, key, among)}" for key, among in self.space.items()]
        run_dir = self.folder / str(first_number(trial.study.trials[trial.number]))
        log.info("Trial %d: %s", trial.number, " ".join(drawn))
        overrides = [*self.fixed, *drawn]
        try:
            score = self._run(trial, overrides, run_dir)
        except TrialPruned as pruned:
            log.info("Trial %d: pruned %s", trial.number, pruned)
            raise
        except SystemExit as stopped:
            # Lightning turns an interruption into an exit, which Optuna would not mark.
            if isinstance(stopped.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from stopped
            raise
        except Exception as error:
            self.failed = explain(error, "train", overrides)
            trial.set_user_attr(ERROR, self.failed)
            log.error("Trial %d: failed: %s", trial.number, self.failed, exc_info=debugging())
            raise
        log.info("Trial %d: %s %.4f", trial.number, self.monitor, score)
        return score

    def _run(self, trial: "optuna.Trial", overrides: list[str], run_dir: Path) -> float:
        from kdlit.app.pruning import ReportAndPrune
        from kdlit.app.resume import take_up
        from kdlit.app.run import run

        with initialize_config_module(CONFIG_MODULE, version_base="1.3"):
            config = compose("train", overrides)
        config.run_dir = str(run_dir.resolve())
        run_dir.mkdir(parents=True, exist_ok=True)
        # One that was taken for dead may be at it still, and then has the answer.
        with FileLock(run_dir / LOCK_FILE):
            remove_unfinished(run_dir)
            summary = take_up(config)
            if summary is None:
                summary = run(config, [ReportAndPrune(trial, self.monitor)], show=False)
        return float(summary["selected"]["score"])
