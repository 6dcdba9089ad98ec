"""Where a run's teacher comes from: the options of the `teacher` group."""

import logging
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import nn

from kdlit import checks
from kdlit.app.build import build, check_network, check_optimizer
from kdlit.app.summary import training_samples
from kdlit.errors import ConfigError, TeacherError
from kdlit.progress import ProgressBar
from kdlit.reproducibility import ReseedEachEpoch
from kdlit.supervised import SupervisedModule
from kdlit.teachers import TeacherStore
from kdlit.weights import load_weights

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
)


@dataclass(frozen=True)
class PreparedTeacher:
    """A teacher that is ready to teach.

    Attributes:
        network: its network with trained weights, or None.
        source: in words, where it comes from.
        card: what is known of it: recipe, metrics, seconds of training.
        weights: the file that holds its weights, or None.
    """

    network: nn.Module | None
    source: str
    card: dict[str, Any]
    weights: Path | None = None


class TeacherOption(ABC):
    """One option of the `teacher` group. Its constructor checks everything that needs no data.

    Attributes:
        gives_network: whether there will be a teacher at all.
        trains: whether the option can train a teacher.
    """

    gives_network = True
    trains = False

    def check(self, config: DictConfig) -> None:  # noqa: B027 - most options have nothing more
        """Check what can be known before anything is trained."""

    @abstractmethod
    def prepare(self, config: DictConfig, *, anew: bool = False) -> PreparedTeacher:
        """Return the teacher for a run with this configuration; `anew` trains it in any case."""


class NoTeacher(TeacherOption):
    """`teacher=none`: a run without a teacher."""

    gives_network = False

    def prepare(self, config: DictConfig, *, anew: bool = False) -> PreparedTeacher:
        """Return no network."""
        return PreparedTeacher(None, "none", {})


class CheckpointTeacher(TeacherOption):
    """`teacher=checkpoint`: weights from a file.

    Args:
        network: the configuration of the network.
        path: a Lightning .ckpt, a .safetensors file, or a saved state dict.
    """

    def __init__(self, network: DictConfig, path: str) -> None:
        self.network = network
        self.path = Path(path)
        self.loaded = build(OmegaConf.create({"teacher": network}), "teacher")
        try:
            load_weights(self.loaded, self.path)
        except ConfigError as error:
            raise TeacherError(f"teacher.path: {error}") from error

    def check(self, config: DictConfig) -> None:
        """Check that the network fits the data."""
        check_network(self.loaded, build(config, "data"), "teacher.network")

    def prepare(self, config: DictConfig, *, anew: bool = False) -> PreparedTeacher:
        """Return the network with the file's weights."""
        return PreparedTeacher(self.loaded, str(self.path), {"network": _plain(self.network)})


class AutoTeacher(TeacherOption):
    """`teacher=auto`: the cached teacher of exactly this recipe, or a new one.

    Args:
        network: the configuration of the network.
        data: the keys in which the teacher's data differ from the run's.
        optimizer: its configuration.
        scheduler: its configuration.
        trainer: `max_epochs` and `precision`.
        seed: of its weights and its data; not the run's, so that all seeds of a sweep share it.
        label_smoothing: epsilon in [0, 1).
    """

    trains = True

    def __init__(
        self,
        network: DictConfig,
        data: DictConfig,
        optimizer: DictConfig,
        scheduler: DictConfig,
        trainer: DictConfig,
        seed: int,
        label_smoothing: float,
    ) -> None:
        self.network, self.data, self.trainer = network, data, trainer
        self.seed = checks.integer("teacher.seed", seed, least=0)
        checks.integer("teacher.trainer.max_epochs", trainer.max_epochs)
        self.label_smoothing = checks.fraction(
            "teacher.label_smoothing", label_smoothing, below_one=True
        )
        parts = OmegaConf.create({"optimizer": optimizer, "scheduler": scheduler})
        self.parts = parts
        self.optimizer, self.scheduler = build(parts, "optimizer"), build(parts, "scheduler")
        check_optimizer(self.optimizer, self.scheduler, "teacher.")

    def check(self, config: DictConfig) -> None:
        """Check that the network fits the data, and that the teacher can be trained and kept."""
        data = build(self._data(config), "data")
        check_network(self._network(), data, "teacher.network")
        store = TeacherStore(config.cache_dir)
        if store.has(*self._recipe(config)):
            return
        store.check()
        try:
            self._trainer(config)
        except (ValueError, TypeError, MisconfigurationException) as error:
            raise ConfigError(f"teacher.trainer: {error}") from error
        data.prepare_data()
        try:
            data.setup("fit")
        except ConfigError as error:
            raise ConfigError(f"teacher.data: {error}") from error

    def _network(self) -> nn.Module:
        pl.seed_everything(self.seed, workers=True, verbose=False)
        network: nn.Module = build(OmegaConf.create({"network": self.network}), "network")
        return network

    def _data(self, config: DictConfig) -> DictConfig:
        return OmegaConf.create({"data": {**config.data, **self.data}})

    def prepare(self, config: DictConfig, *, anew: bool = False) -> PreparedTeacher:
        """Load the teacher from the cache, or train it and put it there."""
        name, recipe = self._recipe(config)
        network = self._network()
        stored = TeacherStore(config.cache_dir).get_or_train(
            name, recipe, network, lambda network: self._train(network, config), anew=anew
        )
        source = "trained now" if stored.trained_now else f"cached, {stored.weights.name}"
        return PreparedTeacher(network, source, stored.card, stored.weights)

    def _recipe(self, config: DictConfig) -> tuple[str, dict[str, Any]]:
        """Return a name for people, and everything that the teacher depends on."""
        data = _plain(self._data(config).data)
        recipe = {
            "network": _plain(self.network),
            "data": {key: value for key, value in data.items() if key not in _NOT_THE_RECIPE},
            **_plain(self.parts),
            "trainer": _plain(self.trainer),
            "label_smoothing": self.label_smoothing,
            "seed": self.seed,
        }
        kinds = [target.rsplit(".", 1)[-1] for target in (data["_target_"], self.network._target_)]
        name = f"{kinds[0].removesuffix('DataModule')}-{kinds[1]}-seed{self.seed}".lower()
        return name, recipe

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
            **options,
        )

    def _train(self, network: nn.Module, config: DictConfig) -> dict[str, Any]:
        log.info(
            "Training a teacher: %s, %d epochs, seed %d. It will be kept in %s/",
            type(network).__name__, self.trainer.max_epochs, self.seed, config.cache_dir,
        )  # fmt: skip
        start = time.perf_counter()
        module = SupervisedModule(network, self.optimizer, self.scheduler, self.label_smoothing)
        data = build(self._data(config), "data")
        trainer = self._trainer(config, callbacks=[ReseedEachEpoch(self.seed), ProgressBar()])
        trainer.fit(module, data)
        seconds = time.perf_counter() - start
        # A teacher is kept, and measured, in float32, whatever it was trained in.
        network.float()
        judge = pl.Trainer(
            accelerator="cpu" if trainer.strategy.root_device.type == "cpu" else "auto",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
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
        }


def _plain(node: Any) -> Any:
    return OmegaConf.to_container(node, resolve=True)
