"""A search's study: where Optuna keeps it, and which of its trials count."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.exceptions import ExperimentalWarning
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState

from kdlit.errors import ConfigError
from kdlit.files import is_writable
from kdlit.randomness import derive_seed

ERROR = "error"
"""The attribute of a trial that failed by itself, and is not tried again."""
_MOST_RETRIES = 3


def open_study(
    folder: Path,
    storage: str | None,
    overrides: Sequence[str],
    *,
    mode: str,
    startup: int,
    pruning: bool,
    heartbeat: int,
) -> optuna.Study:
    """Make the study of a folder, or go on with it.

    Trials whose process was killed are marked as failed and will be tried again.

    Args:
        folder: the search's directory; its name is the study's.
        storage: the URL of a database; None is a SQLite file in the folder.
        overrides: what is searched, and where; a study has only one such.
        mode: of the monitored metric, `max` or `min`.
        startup: trials that are not pruned.
        pruning: whether others are.
        heartbeat: seconds between two signs of life of a trial.

    Raises:
        ConfigError: if folder or storage cannot be used, or hold another search of this name.
    """
    if not is_writable(folder):
        raise ConfigError(
            f"{folder.absolute()} cannot be written, and a search keeps its trials there: start it "
            "where that folder can be made"
        )
    folder.mkdir(parents=True, exist_ok=True)
    url = storage or f"sqlite:///{(folder / 'study.db').resolve()}"
    options: dict[str, Any] = {"connect_args": {"timeout": 60}} if url.startswith("sqlite:") else {}
    pruner = (
        optuna.pruners.MedianPruner(n_startup_trials=startup)
        if pruning
        else optuna.pruners.NopPruner()
    )
    with _quiet(), FileLock(folder / ".lock"):  # two processes would both make the tables
        try:
            kept = RDBStorage(
                url,
                engine_kwargs=options,
                heartbeat_interval=heartbeat,
                heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(
                    max_retry=_MOST_RETRIES, inherit_intermediate_values=True
                ),
            )
            study = optuna.create_study(
                study_name=folder.name,
                storage=kept,
                direction="maximize" if mode == "max" else "minimize",
                pruner=pruner,
                load_if_exists=True,
            )
        except Exception as error:  # of SQLAlchemy's and of every database's driver
            raise ConfigError(f"--storage {url}: {error}") from error
        before = study.user_attrs.get("overrides")
        if before is None:
            study.set_user_attr("overrides", list(overrides))
        elif before != list(overrides):
            raise ConfigError(
                f"{folder} holds another search, {' '.join(before)}: choose another --name"
            )
        optuna.storages.fail_stale_trials(study)
    return study


def sampler(seed: int, number: int, startup: int) -> optuna.samplers.BaseSampler:
    """Return what draws the values of one trial.

    Seeded by the trial's number, so that a search that goes on draws as one that was not
    interrupted, and several processes do not draw the same.
    """
    return optuna.samplers.TPESampler(
        n_startup_trials=startup, seed=derive_seed(seed, number) % 2**32
    )


def suggest(trial: optuna.Trial, key: str, among: optuna.distributions.BaseDistribution) -> Any:
    """Draw a value for a key."""
    if isinstance(among, optuna.distributions.CategoricalDistribution):
        return trial.suggest_categorical(key, among.choices)
    if isinstance(among, optuna.distributions.IntDistribution):
        return trial.suggest_int(key, among.low, among.high, step=among.step, log=among.log)
    if isinstance(among, optuna.distributions.FloatDistribution):
        return trial.suggest_float(key, among.low, among.high, step=among.step, log=among.log)
    raise TypeError(f"{key}: {among}")


def try_again(study: optuna.Study, number: int) -> None:
    """Put a trial that was interrupted back into the queue; one that is over stays as it is."""
    trial = study.trials[number]
    if trial.state is TrialState.FAIL and ERROR not in trial.user_attrs:
        with _quiet():
            again = RetryHeartbeatStaleTrialCallback(inherit_intermediate_values=True)
            again(study, trial)


def first_number(trial: FrozenTrial) -> int:
    """Return the number of the trial that this one tries again, or its own."""
    with _quiet():
        first = RetryHeartbeatStaleTrialCallback.retried_trial_number(trial)
    return trial.number if first is None else first


def counted(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that are done, or being done: not those that were killed or wait."""
    done = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
    return [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.state in done or ERROR in trial.user_attrs
    ]


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out Optuna's notices that its heartbeats may change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield
