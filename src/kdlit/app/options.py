"""What every option of the `teacher` group is."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from torch import nn


@dataclass(frozen=True)
class PreparedTeacher:
    """A teacher that is ready to teach.

    Attributes:
        network: what teaches: a network with trained weights, a
            :class:`kdlit.teachers.TeacherSource` where it is not one such network, or None.
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
        gives_layers: whether objectives may ask for the teacher's layers.
        trains: whether the option can train a teacher.
        outlives_run: whether the teacher is there when the run is over.
    """

    gives_network = True
    gives_layers = True
    trains = False
    outlives_run = True

    def check(self, config: DictConfig) -> None:  # noqa: B027 - most options have nothing more
        """Check what can be known before anything is trained."""

    def is_cached(self, config: DictConfig) -> bool:
        """Return whether :meth:`prepare` finds the teacher and need not train it."""
        return True

    def blank(self) -> nn.Module | None:
        """Return a teacher with any weights, to see what fits it, or None without one."""
        return None

    @abstractmethod
    def prepare(self, config: DictConfig, *, anew: bool = False) -> PreparedTeacher:
        """Return the teacher for a run with this configuration; `anew` trains it in any case."""


class NetworkTeacher(TeacherOption):
    """A teacher that is one network and known by a recipe, so that others may learn from it.

    Attributes:
        key: where its configuration stands, for errors.
        called: what progress lines call it.
    """

    key = "teacher"
    called = "a teacher"

    @property
    def members(self) -> "list[NetworkTeacher]":
        """The chain of teachers that ends with this one."""
        return [self]

    @abstractmethod
    def recipe(self, config: DictConfig) -> dict[str, Any]:
        """Return everything that the teacher depends on, JSON-like."""
