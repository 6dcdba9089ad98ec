"""Options of the `teacher` group that are not one trained network: ensembles and averages."""

from collections.abc import Sequence
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf
from torch import nn

from kdlit import checks
from kdlit.app.options import PreparedTeacher, TeacherOption
from kdlit.app.teachers import AutoTeacher
from kdlit.errors import ConfigError
from kdlit.teachers import EMATeacher, EnsembleTeacher
from kdlit.teachers.ensemble import check_average, normalized_weights


class Ensemble(TeacherOption):
    """`teacher=ensemble`: several cached teachers of one recipe and different seeds.

    Each is the teacher that `teacher=auto` with its seed would be, and shares its place in the
    cache.

    Args:
        seeds: of the members, all different.
        weights: one number >= 0 for each member; None weights all alike.
        average: `probabilities` or `logits`; see :class:`kdlit.teachers.EnsembleTeacher`.
        data: the keys in which the members' data differ from the run's; with a `seed` of None
            each member's own.
        seed: None; the members have `seeds`.
        recipe: what else :class:`kdlit.app.teachers.AutoTeacher` takes.
    """

    gives_layers = False

    def __init__(
        self,
        seeds: Sequence[int],
        weights: Sequence[float] | None,
        average: Literal["probabilities", "logits"],
        data: DictConfig,
        seed: None = None,
        **recipe: Any,
    ) -> None:
        if seed is not None:
            raise ConfigError(
                f"teacher.seed={seed}: the members of an ensemble have seeds of their own; set "
                f"teacher.seeds=[{seed},...]"
            )
        if isinstance(seeds, (str, int)) or not seeds:
            raise ConfigError(f"`teacher.seeds` must be a list of one seed or more, got {seeds}")
        self.seeds = [checks.integer("teacher.seeds", number, least=0) for number in seeds]
        if len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(f"`teacher.seeds` must all be different, got {self.seeds}")
        self.weights = normalized_weights("teacher.weights", weights, len(self.seeds))
        check_average("teacher.average", average)
        self.average = average
        self.members = [
            AutoTeacher(data=_with_seed(data, number), seed=number, **recipe)
            for number in self.seeds
        ]

    def check(self, config: DictConfig) -> None:
        """Check every member."""
        for member in self.members:
            member.check(config)

    def is_cached(self, config: DictConfig) -> bool:
        """Return whether every member is there."""
        return all(member.is_cached(config) for member in self.members)

    def blank(self) -> nn.Module:
        """Return a member untrained."""
        return self.members[0].blank()

    def prepare(self, config: DictConfig, *, anew: bool = False) -> PreparedTeacher:
        """Load the members from the cache; train those that are not there."""
        members = [member.prepare(config, anew=anew) for member in self.members]
        networks = [member.network for member in members if member.network is not None]
        cards = [member.card for member in members]
        cached = all(member.source.startswith("cached") for member in members)
        files = ", ".join(member.weights.name for member in members if member.weights)
        return PreparedTeacher(
            EnsembleTeacher(networks, self.weights, self.average),
            f"cached, {files}" if cached else "trained now",
            {
                "members": cards,
                "training_samples": cards[0]["training_samples"],
                "seconds": round(sum(card["seconds"] for card in cards), 1),
            },
        )


class StudentAverage(TeacherOption):
    """`teacher=ema`: the moving average of the student's own weights; nothing is cached.

    Args:
        decay: see :class:`kdlit.teachers.EMATeacher`.
    """

    outlives_run = False

    def __init__(self, decay: float) -> None:
        self.source = EMATeacher(decay)

    def blank(self) -> nn.Module:
        """Return another such average."""
        return EMATeacher(self.source.decay)

    def prepare(self, config: DictConfig, *, anew: bool = False) -> PreparedTeacher:
        """Return the source, which begins with the training."""
        return PreparedTeacher(
            self.source, "the student's own average", {"training": "with the student"}
        )


def _with_seed(data: DictConfig, seed: int) -> DictConfig:
    return data if data.get("seed") is not None else OmegaConf.create({**data, "seed": seed})
