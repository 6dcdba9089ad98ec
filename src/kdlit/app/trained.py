"""Teachers that are trained when there is none of their recipe yet."""

import logging
import time
from abc import abstractmethod
from importlib.metadata import version
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import nn

from kdlit import checks
from kdlit.app.build import build_part, check_network, check_optimizer, plain, real_data
from kdlit.app.options import NetworkTeacher, PreparedTeacher
from kdlit.app.summary import training_samples
from kdlit.classifier import ClassifierModule
from kdlit.errors import ConfigError
from kdlit.progress import ProgressBar
from kdlit.reproducibility import ReseedEachEpoch
from kdlit.teachers import TeacherStore

log = logging.getLogger("kdlit")

# What decides where and how fast a teacher is trained, but not which one it becomes.
_NOT_THE_RECIPE = (
    "root",
    "num_workers",
    "persistent_workers",
    "on_device",
    "eval_batch_size",
    "index",
    "test_on_train",
    "batches_at_once",
)
# Settings of data and networks that came when teachers had been cached already. At these values
# they are left out: a recipe is what it was, and its teacher is found.
_AS_BEFORE = {"label_noise": 0.0, "input_dropout": 0.0}


class TrainedTeacher(NetworkTeacher):
    """A teacher that is trained once for each recipe, and cached.

    A subclass says how its network is trained, and which of its settings belong to the recipe.

    Args:
        network: the configuration of the network.
        data: the keys in which the teacher's data differ from the run's.
        optimizer: its configuration.
        scheduler: its configuration.
        trainer: `max_epochs` and `precision`.
        seed: of its weights and its data; not the run's, so that all seeds of a sweep share it.
        key: where this configuration stands, for errors.
    """

    trains = True
    kind = ""
    """A part of the file's name, for people."""

    def __init__(
        self,
        network: DictConfig,
        data: DictConfig,
        optimizer: DictConfig,
        scheduler: DictConfig,
        trainer: DictConfig,
        seed: int,
        key: str = "teacher",
    ) -> None:
        self.network, self.data, self.trainer, self.key = network, data, trainer, key
        self.seed = checks.integer(f"{key}.seed", seed, least=0)
        checks.integer(f"{key}.trainer.max_epochs", trainer.max_epochs)
        self.parts = OmegaConf.create({"optimizer": optimizer, "scheduler": scheduler})
        self.optimizer = build_part(optimizer, f"{key}.optimizer")
        self.scheduler = build_part(scheduler, f"{key}.scheduler")
        check_optimizer(self.optimizer, self.scheduler, f"{key}.")

    # For subclasses ------------------------------------------------------------------------

    @abstractmethod
    def settings(self, config: DictConfig) -> dict[str, Any]:
        """Return what the recipe has beside network, data, optimizer, trainer and seed."""

    @abstractmethod
    def lesson(
        self, network: nn.Module, data: Any, config: DictConfig
    ) -> tuple[ClassifierModule, dict[str, Any]]:
        """Return the module that trains the network, and what the card shall say of it."""

    # The same for all ----------------------------------------------------------------------

    def check(self, config: DictConfig) -> None:
        """Check that the network fits the data, and that the teacher can be trained and kept."""
        data = self._data(config)
        check_network(self._network(), data, f"{self.key}.network")
        if self.is_cached(config):
            return
        TeacherStore(config.cache_dir).check()
        try:
            self._trainer(config)
        except (ValueError, TypeError, MisconfigurationException) as error:
            raise ConfigError(f"{self.key}.trainer: {error}") from error
        data.prepare_data()
        try:
            data.setup("fit")
        except ConfigError as error:
            raise ConfigError(f"{self.key}.data: {error}") from error

    def is_cached(self, config: DictConfig) -> bool:
        """Return whether there are files of this teacher."""
        return TeacherStore(config.cache_dir).has(self._name(config), self.recipe(config))

    def prepare(self, config: DictConfig, *, anew: bool = False) -> PreparedTeacher:
        """Load the teacher from the cache, or train it and put it there."""
        network = self._network()
        stored = TeacherStore(config.cache_dir).get_or_train(
            self._name(config),
            self.recipe(config),
            network,
            lambda network: self._train(network, config),
            anew=anew,
        )
        source = "trained now" if stored.trained_now else f"cached, {stored.weights.name}"
        return PreparedTeacher(network, source, stored.card, stored.weights)

    def blank(self) -> nn.Module:
        """Return the network untrained."""
        return self._network()

    def recipe(self, config: DictConfig) -> dict[str, Any]:
        """Return everything that the teacher depends on."""
        data = _as_before(plain(self._data_config(config)))
        return {
            "network": _as_before(plain(self.network)),
            "data": {key: value for key, value in data.items() if key not in _NOT_THE_RECIPE},
            **plain(self.parts),
            "trainer": plain(self.trainer),
            **self.settings(config),
            "seed": self.seed,
        }

    def _name(self, config: DictConfig) -> str:
        """Return the start of the file names, for people."""
        targets = (self._data_config(config)._target_, self.network._target_)
        data, network = (target.rsplit(".", 1)[-1] for target in targets)
        words = (data.removesuffix("DataModule"), network, self.kind, f"seed{self.seed}")
        return "-".join(filter(None, words)).lower()

    def _network(self) -> nn.Module:
        pl.seed_everything(self.seed, workers=True, verbose=False)
        network: nn.Module = build_part(self.network, f"{self.key}.network")
        return network

    def _data_config(self, config: DictConfig) -> DictConfig:
        return OmegaConf.create({**real_data(config), **self.data})

    def _data(self, config: DictConfig) -> Any:
        return build_part(self._data_config(config), f"{self.key}.data")

    def _trainer(self, config: DictConfig, **options: Any) -> pl.Trainer:
        """Make a trainer on one of the run's devices that leaves no files."""
        devices = config.trainer.devices
        return pl.Trainer(
            accelerator=config.trainer.accelerator,
            devices=[devices[0]] if isinstance(devices, ListConfig) else 1,
            max_epochs=self.trainer.max_epochs,
            precision=self.trainer.precision,
            limit_val_batches=0,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            **_alone(config),
            **options,
        )

    def _train(self, network: nn.Module, config: DictConfig) -> dict[str, Any]:
        data = self._data(config)
        # A chain prepares its earlier members here, each with its own clock.
        module, told = self.lesson(network, data, config)
        log.info(
            "Training %s: %s, %d epochs, seed %d. It will be kept in %s/",
            self.called, type(network).__name__, self.trainer.max_epochs, self.seed,
            config.cache_dir,
        )  # fmt: skip
        start = time.perf_counter()
        trainer = self._trainer(config, callbacks=[ReseedEachEpoch(self.seed), ProgressBar()])
        trainer.fit(module, data)
        seconds = time.perf_counter() - start
        # A teacher is kept, and measured, in float32, whatever it was trained in.
        module.float()
        judge = pl.Trainer(
            accelerator="cpu" if trainer.strategy.root_device.type == "cpu" else "auto",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            **_alone(config),
        )
        found = {
            **judge.validate(module, data, verbose=False)[0],
            **judge.test(module, data, verbose=False)[0],
        }
        network.cpu()
        return {
            "weights_of": "the last epoch",
            "metrics": found,
            "training_samples": training_samples(trainer),
            "device": trainer.strategy.root_device.type,
            "seconds": round(seconds, 1),
            "versions": {"torch": torch.__version__, "lightning": version("lightning")},
            **told,
        }


def _as_before(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings without those that are as they were before there was a choice."""
    return {key: value for key, value in settings.items() if (key, value) not in _AS_BEFORE.items()}


def _alone(config: DictConfig) -> dict[str, Any]:
    """Return the options of a trainer in one process, whatever has started it.

    Under SLURM Lightning would save and requeue the job in a teacher's training, and load what it
    finds saved in the working directory, which may be another training's.
    """
    return {"plugins": [LightningEnvironment()], "default_root_dir": config.cache_dir}
