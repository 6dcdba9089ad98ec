"""Where a run's teacher comes from: the options of the `teacher` group."""

import copy
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from torch import nn

from kdlit import checks
from kdlit.app.build import build, build_part, check_network, plain, step_size_of
from kdlit.app.options import NetworkTeacher, PreparedTeacher, TeacherOption
from kdlit.app.trained import TrainedTeacher
from kdlit.classifier import ClassifierModule
from kdlit.errors import ConfigError, TeacherError
from kdlit.files import state_fingerprint
from kdlit.supervised import SupervisedModule
from kdlit.weights import load_weights

__all__ = [
    "AutoTeacher",
    "CheckpointTeacher",
    "NoTeacher",
    "PreparedTeacher",
    "TeacherOption",
]


class NoTeacher(TeacherOption):
    """`teacher=none`: a run without a teacher."""

    gives_network = False

    def prepare(self, config: DictConfig, *, anew: bool = False) -> PreparedTeacher:
        """Return no network."""
        return PreparedTeacher(None, "none", {})


class CheckpointTeacher(NetworkTeacher):
    """`teacher=checkpoint`: weights from a file.

    Args:
        network: the configuration of the network.
        path: a Lightning .ckpt, a .safetensors file, or a saved state dict.
        prefix: under which the file holds the network; see :func:`kdlit.load_weights`.
        key: where this configuration stands, for errors.
    """

    def __init__(
        self, network: DictConfig, path: str, prefix: str | None = None, key: str = "teacher"
    ) -> None:
        self.network, self.key = network, key
        self.path = Path(path)
        self.loaded = build_part(network, f"{key}.network")
        try:
            load_weights(self.loaded, self.path, prefix)
        except ConfigError as error:
            raise TeacherError(f"{key}.path: {error}") from error

    def check(self, config: DictConfig) -> None:
        """Check that the network fits the data."""
        check_network(self.loaded, build(config, "data"), f"{self.key}.network")

    def prepare(self, config: DictConfig, *, anew: bool = False) -> PreparedTeacher:
        """Return the network with the file's weights."""
        return PreparedTeacher(self.loaded, str(self.path), self.recipe(config))

    def blank(self) -> nn.Module:
        """Return a copy of the network."""
        network: nn.Module = copy.deepcopy(self.loaded)
        return network

    def recipe(self, config: DictConfig) -> dict[str, Any]:
        """Return the network and its weights, wherever the file lies."""
        weights = state_fingerprint(self.loaded.state_dict())
        return {"network": plain(self.network), "weights": weights}


class AutoTeacher(TrainedTeacher):
    """`teacher=auto`: the cached teacher of exactly this recipe, or a new one.

    It is trained on the ground truth.

    Args:
        network: the configuration of the network.
        data: the keys in which the teacher's data differ from the run's.
        optimizer: its configuration.
        scheduler: its configuration.
        trainer: `max_epochs` and `precision`.
        seed: of its weights and its data; not the run's, so that all seeds of a sweep share it.
        label_smoothing: epsilon in [0, 1).
        key: where this configuration stands, for errors.
    """

    def __init__(
        self,
        network: DictConfig,
        data: DictConfig,
        optimizer: DictConfig,
        scheduler: DictConfig,
        trainer: DictConfig,
        seed: int,
        label_smoothing: float,
        key: str = "teacher",
    ) -> None:
        super().__init__(network, data, optimizer, scheduler, trainer, seed, key)
        self.label_smoothing = checks.fraction(
            f"{key}.label_smoothing", label_smoothing, below_one=True
        )

    def settings(self, config: DictConfig) -> dict[str, Any]:
        """Return the smoothing of the labels."""
        return {"label_smoothing": self.label_smoothing}

    def lesson(
        self, network: nn.Module, data: Any, config: DictConfig
    ) -> tuple[ClassifierModule, dict[str, Any]]:
        """Return the plain classifier."""
        module = SupervisedModule(
            network,
            self.optimizer,
            self.scheduler,
            self.label_smoothing,
            step_size=step_size_of(data),
        )
        return module, {}
