"""What a source of teaching may learn of the training that it is asked in."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from kdlit.batch import Batch

_T = TypeVar("_T")


@dataclass(frozen=True)
class Split:
    """A part of the data whose samples can be drawn again, in order.

    Attributes:
        name: `train` or `val`.
        index: the samples' numbers, ascending, shape (N,); or `range(N)` where each sample's number
            is its position, which takes no memory.
        views: how many views of each sample there are.
        key: everything that the inputs depend on, JSON-like.
        batches: gives the batches of the samples from one position to another, of one view and of
            a size, as both networks would see them.
    """

    name: str
    index: Tensor | range
    views: int
    key: Mapping[str, Any]
    batches: Callable[[range, int, int], Iterator[Batch]]

    def numbers(self, start: int, stop: int) -> Tensor:
        """Return the numbers of the samples from one position to before another."""
        part = self.index[start:stop]
        return torch.arange(part.start, part.stop) if isinstance(part, range) else part


class Processes(Protocol):
    """The processes of a training, as Lightning's strategies know them."""

    def barrier(self, name: str | None = None) -> None:
        """Wait for all."""

    def broadcast(self, obj: _T, src: int = 0) -> _T:
        """Return what the process `src` has."""


@dataclass(frozen=True)
class Surroundings:
    """What a source may learn before training begins.

    Attributes:
        splits: makes the splits whose teacher's outputs will be asked for, by name.
        precision: what the networks run in, in words.
        device: where they run.
        context: makes the context in which they run.
        rank: of this process, among `world_size`.
        world_size: how many processes there are.
        processes: how they wait for each other.
        track: wraps an iteration of so many steps, to show how far it is.
    """

    splits: Callable[[], Sequence[Split]]
    precision: str
    device: torch.device
    processes: Processes
    rank: int = 0
    world_size: int = 1
    context: Callable[[], AbstractContextManager[Any]] = nullcontext
    track: Callable[[Iterable[Any], int], Iterable[Any]] = lambda steps, count: steps
