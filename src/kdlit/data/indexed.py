"""Somebody else's data set, with each sample's number, and views that can be drawn again."""

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from kdlit import checks
from kdlit.errors import ConfigError
from kdlit.randomness import derive_seed

_PROBED = 16


class Indexed(Dataset[Any]):
    """Wraps a data set so that samples carry their number, by which a teacher's outputs are kept.

    `(x, y)` becomes `(x, y, index)`, and a mapping gets an entry `index`.

    A data set that draws random numbers for a sample (torchvision's transforms do) gives another
    view of it each time, of which no output can be kept. With `views` there are that many of each
    sample, repeated from epoch to epoch: before a sample is drawn, the generators of torch, numpy
    and Python are seeded from (seed, view, index), and afterwards they are as they were.

    Args:
        dataset: has `__len__` and `__getitem__` by position.
        views: how many views of each sample there are; None where it always gives the same.
        seed: of the views.
        version: change it when what the data set gives has changed in a way that 16 samples of it
            do not show.

    Raises:
        ConfigError: if an argument cannot work; when a sample is drawn, if it is neither a pair nor
            a mapping.

    >>> data = Indexed([(torch.zeros(2), 7), (torch.ones(2), 8)])
    >>> data[1]
    (tensor([1., 1.]), 8, 1)
    """

    def __init__(
        self, dataset: Any, views: int | None = None, seed: int = 0, version: str = ""
    ) -> None:
        if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
            raise ConfigError(
                f"`dataset` must have a length and positions, got {type(dataset).__name__}"
            )
        self.dataset = dataset
        self.views = None if views is None else checks.integer("views", views)
        self.seed, self.version = checks.integer("seed", seed, least=0), str(version)
        # In shared memory, where workers that live on from epoch to epoch see it change.
        self._view = torch.zeros(1, dtype=torch.int64)
        self._view.share_memory_()  # type: ignore[no-untyped-call]

    @property
    def view_count(self) -> int:
        """How many views of each sample there are."""
        return self.views or 1

    def set_view(self, view: int) -> None:
        """Choose the view that is drawn from now on."""
        self._view.fill_(view % self.view_count)

    def at_view(self, view: int) -> "Indexed":
        """Return the same data in a view that :meth:`set_view` does not change."""
        other = Indexed(self.dataset, self.views, self.seed, self.version)
        other.set_view(view)
        return other

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, position: int) -> Any:
        if self.views is None:
            return self._numbered(self.dataset[position], position)
        with _seeded(derive_seed(self.seed, int(self._view), position)):
            return self._numbered(self.dataset[position], position)

    @staticmethod
    def _numbered(sample: Any, position: int) -> Any:
        if isinstance(sample, Mapping):
            return {**sample, "index": position}
        if isinstance(sample, Sequence) and not isinstance(sample, str) and len(sample) == 2:
            return (*sample, position)
        raise ConfigError(
            "Indexed numbers samples that are pairs (x, y) or mappings, got "
            f"{type(sample).__name__}"
        )

    def fingerprint(self) -> str:
        """Return what stands for the data: their kind and number, and what 16 of them are."""
        told = f"{type(self.dataset).__qualname__};{len(self)};{self.views};{self.seed};"
        digest = hashlib.sha256(f"{told}{self.version};".encode())
        first = self.at_view(0)
        for position in np.linspace(0, len(self) - 1, num=min(_PROBED, len(self)), dtype=int):
            _digest(digest, first[int(position)])
        return digest.hexdigest()[:12]


def _digest(digest: Any, value: Any) -> None:
    """Add tensors by their bits, containers by their entries, anything else by its text."""
    if isinstance(value, Mapping):
        for key in sorted(value):
            digest.update(f"{key}:".encode())
            _digest(digest, value[key])
    elif isinstance(value, (list, tuple)):
        for entry in value:
            _digest(digest, entry)
    elif isinstance(value, (Tensor, np.ndarray)):
        array = np.ascontiguousarray(value.detach().cpu() if isinstance(value, Tensor) else value)
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
    else:
        digest.update(f"{value!r};".encode())


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the three generators, and give them back as they were."""
    python, state = random.getstate(), torch.get_rng_state()
    numpy = np.random.get_state()  # noqa: NPY002 - other people's transforms use it
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(state)
