"""Teachers that were students: assistants between a teacher and a student, and generations."""

import logging
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
from hydra.utils import get_class
from omegaconf import DictConfig
from torch import nn

from kdlit import checks
from kdlit.app.build import build_part, plain, step_size_of
from kdlit.app.options import NetworkTeacher, PreparedTeacher
from kdlit.app.summary import describe_network, split_metrics
from kdlit.app.teachers import AutoTeacher
from kdlit.app.trained import TrainedTeacher
from kdlit.classifier import ClassifierModule
from kdlit.distillation import DistillationModule
from kdlit.errors import ConfigError
from kdlit.objectives import Objective

log = logging.getLogger("kdlit")


class DistilledTeacher(TrainedTeacher):
    """`teacher=assistant`: a teacher that is itself distilled from another one.

    An assistant of middle size, taught by a large teacher, teaches a small student; the teacher of
    an assistant may be an assistant again. Its recipe holds the recipe of its own teacher, so that
    the cache knows the whole chain. Where the teacher is cached, its own teacher is not asked for.
    `anew` trains this member of the chain anew and takes the others from the cache.

    Source: Mirzadeh et al., "Improved Knowledge Distillation via Teacher Assistant", 2020
    (arXiv:1902.03393).

    Args:
        network: the configuration of the network.
        data: the keys in which the teacher's data differ from the run's.
        label: the configuration of the label strategy by which it learns.
        optimizer: its configuration.
        scheduler: its configuration.
        trainer: `max_epochs` and `precision`.
        seed: of its weights and its data; not the run's, so that all seeds of a sweep share it.
        teacher: its own teacher: the configuration of an option, or an option.
        key: where this configuration stands, for errors.
    """

    kind = "distilled"

    def __init__(
        self,
        network: DictConfig,
        data: DictConfig,
        label: DictConfig,
        optimizer: DictConfig,
        scheduler: DictConfig,
        trainer: DictConfig,
        seed: int,
        teacher: DictConfig | NetworkTeacher,
        key: str = "teacher",
    ) -> None:
        super().__init__(network, data, optimizer, scheduler, trainer, seed, key)
        self.label = label
        self._label()
        self.teacher = (
            teacher
            if isinstance(teacher, NetworkTeacher)
            else _option_below(teacher, f"{key}.teacher")
        )
        # The last member of a chain is made last, and so its count holds.
        for place, member in enumerate(self.members, start=1):
            member.called = f"teacher {place} of {len(self.members)}"

    @property
    def members(self) -> list[NetworkTeacher]:
        """The chain of teachers that ends with this one."""
        return [*self.teacher.members, self]

    def check(self, config: DictConfig) -> None:
        """Check this member of the chain and, unless this one is cached, those before it."""
        super().check(config)
        if not self.is_cached(config):
            self.teacher.check(config)

    def settings(self, config: DictConfig) -> dict[str, Any]:
        """Return the label strategy, and the recipe of the teacher's own teacher."""
        return {"label": plain(self.label), "teacher": self.teacher.recipe(config)}

    def _label(self) -> Objective:
        label = build_part(self.label, f"{self.key}.label")
        if not isinstance(label, Objective):
            raise ConfigError(f"{self.key}.label: {type(label).__name__} is no label strategy")
        if not label.weights:
            raise ConfigError(
                f"{self.key}.label: {type(label).__name__} has no loss, and a teacher learns from "
                "its label strategy alone: choose another, such as soft"
            )
        return label

    def lesson(
        self, network: nn.Module, data: Any, config: DictConfig
    ) -> tuple[ClassifierModule, dict[str, Any]]:
        """Return the module that distils this teacher's own teacher into it."""
        own = self.teacher.prepare(config)
        log.info(
            "%s: %s (%s)", self.teacher.called.capitalize(), type(own.network).__name__, own.source
        )
        # The other members were seeded in between, or not.
        pl.seed_everything(self.seed, workers=True, verbose=False)
        label = self._label()
        if label.needs_index and hasattr(data, "index"):
            data.index = True
        module = DistillationModule(
            network,
            own.network,
            label,
            self.optimizer,
            self.scheduler,
            step_size=step_size_of(data),
        )
        # The recipe of this teacher has the other's already.
        card = {key: value for key, value in own.card.items() if key != "recipe"}
        # By its file: whether it was trained just then says nothing to those who read the card.
        source = own.weights.name if own.weights else own.source
        return module, {"teacher": {**(describe_network(own.network) or {}), "source": source,
                                    "card": card}}  # fmt: skip

    def _train(self, network: nn.Module, config: DictConfig) -> dict[str, Any]:
        told = super()._train(network, config)
        told["teacher"]["test"] = split_metrics(told["metrics"])["teacher"]
        return told


class BornAgainTeacher(NetworkTeacher):
    """`teacher=born_again`: generations of one network, each taught by the one before it.

    Generation 0 is trained on the ground truth, each later one is distilled from its predecessor
    and begins from other weights: generation g is seeded with `seed` + g. The run's student is the
    last generation, so that the run's teacher is generation `generations` - 1.

    Source: Furlanello et al., "Born-Again Neural Networks", 2018 (arXiv:1805.04770), section 3.
    There students of other architectures, permuted teachers and the ensemble of all generations
    are studied, too; they are not made here.

    Args:
        generations: how often the network is born again, at least 1; the last time is the run.
        network: the configuration of the network: the student's.
        data: the keys in which the generations' data differ from the run's.
        label: the configuration of the label strategy by which a generation learns.
        optimizer: its configuration.
        scheduler: its configuration.
        trainer: `max_epochs` and `precision`.
        seed: of generation 0.
        label_smoothing: epsilon in [0, 1), of generation 0.
        key: where this configuration stands, for errors.
    """

    trains = True

    def __init__(
        self,
        generations: int,
        network: DictConfig,
        data: DictConfig,
        label: DictConfig,
        optimizer: DictConfig,
        scheduler: DictConfig,
        trainer: DictConfig,
        seed: int,
        label_smoothing: float,
        key: str = "teacher",
    ) -> None:
        self.key = key
        checks.integer(f"{key}.generations", generations)
        checks.integer(f"{key}.seed", seed, least=0)
        alike: dict[str, Any] = {
            "network": network,
            "data": data,
            "optimizer": optimizer,
            "scheduler": scheduler,
            "trainer": trainer,
            "key": key,
        }
        self.last: TrainedTeacher = AutoTeacher(**alike, seed=seed, label_smoothing=label_smoothing)
        for generation in range(1, generations):
            self.last = DistilledTeacher(
                **alike, seed=seed + generation, label=label, teacher=self.last
            )
        for generation, member in enumerate(self.members):
            member.called = f"generation {generation} of {generations}"

    @property
    def members(self) -> list[NetworkTeacher]:
        """The generations before the student."""
        return self.last.members

    def check(self, config: DictConfig) -> None:
        """Check the generations."""
        self.last.check(config)

    def is_cached(self, config: DictConfig) -> bool:
        """Return whether the last generation before the student is there."""
        return self.last.is_cached(config)

    def prepare(self, config: DictConfig, *, anew: bool = False) -> PreparedTeacher:
        """Return the last generation before the student."""
        return self.last.prepare(config, anew=anew)

    def blank(self) -> nn.Module:
        """Return the last generation's network untrained."""
        return self.last.blank()

    def recipe(self, config: DictConfig) -> dict[str, Any]:
        """Return the recipe of the last generation before the student."""
        return self.last.recipe(config)


def _option_below(node: DictConfig, key: str) -> NetworkTeacher:
    """Make the option of a teacher's own teacher, which stands at `key`."""
    kind: Callable[..., Any] | None
    try:
        kind = get_class(node._target_)
    except Exception:  # what is wrong with it is said where it is made
        kind = None
    if isinstance(kind, type) and not issubclass(kind, NetworkTeacher):
        raise ConfigError(
            f"{key}: {kind.__name__} cannot teach another teacher: choose auto, article, large, "
            "checkpoint, assistant or born_again"
        )
    option: NetworkTeacher = build_part(node, key, key=key)
    return option
