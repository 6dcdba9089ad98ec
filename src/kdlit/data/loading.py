"""In-memory data behind a standard `DataLoader`: a batch is one indexing operation."""

import math
from collections.abc import Callable, Iterator, Sequence, Sized
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, DistributedSampler

from kdlit.files import state_fingerprint
from kdlit.randomness import derive_seed


class InMemoryDataset(Dataset[tuple[Tensor, ...]]):
    """Images and labels as tensors, fetched a batch at a time with `__getitems__`.

    Use it with `collate_fn=as_it_is`, since what `__getitems__` returns is already a batch.

    Args:
        images: shape (N, ...).
        labels: shape (N,).
        index: each sample's position in the full data set, shape (N,).
        transform: called on each image alone, in the loader's worker.

    >>> data = InMemoryDataset(torch.zeros(4, 1, 2, 2), torch.arange(4), torch.arange(4) + 10)
    >>> [part.shape[0] for part in data.__getitems__([1, 3])]
    [2, 2, 2]
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        index: Tensor,
        transform: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.images, self.labels, self.index = images, labels, index
        self.transform = transform

    def fingerprint(self) -> str:
        """Return 12 hexadecimal digits that stand for the data."""
        return state_fingerprint(
            {"images": self.images, "labels": self.labels, "index": self.index}
        )

    def to(self, device: torch.device) -> None:
        """Move everything to a device."""
        self.images = self.images.to(device)
        self.labels = self.labels.to(device)
        self.index = self.index.to(device)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, position: int) -> tuple[Tensor, ...]:
        images, labels, index = self.__getitems__([position])
        return images[0], labels[0], index[0]

    def __getitems__(self, positions: Sequence[int]) -> tuple[Tensor, ...]:
        where = torch.as_tensor(positions, device=self.images.device)
        images = self.images[where]
        if self.transform is not None:
            images = torch.stack([self.transform(image) for image in images])
        return images, self.labels[where], self.index[where]


def as_it_is(batch: Any) -> Any:
    """Collate function for data sets that return whole batches."""
    return batch


def told(transform: Any) -> Any:
    """Describe a function by its name and arguments, which are the same in another process."""
    if isinstance(transform, partial):
        return [told(transform.func), repr(transform.args), repr(transform.keywords)]
    return getattr(transform, "__qualname__", type(transform).__qualname__)


class EpochSampler(DistributedSampler[Any]):
    """A shuffle that depends on (seed, epoch) alone, so that a resumed run sees the same order.

    Several processes take the samples of that order in turns: P processes with batches of B / P
    samples do each step on the B samples that one process would take. Where P does not divide the
    number of samples, the first few are taken again at the end, so that all have equally many.
    Lightning calls `set_epoch`.

    >>> sampler = EpochSampler(range(6), seed=0)
    >>> sampler.set_epoch(3)
    >>> parts = [EpochSampler(range(6), seed=0, rank=rank, num_replicas=2) for rank in (0, 1)]
    >>> for part in parts:
    ...     part.set_epoch(3)
    >>> [number for pair in zip(*parts) for number in pair] == list(sampler)
    True
    """

    def __init__(self, dataset: Sized, seed: int = 0, rank: int = 0, num_replicas: int = 1) -> None:
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, seed=seed)  # type: ignore[arg-type]
        self.start = 0
        """How many of this process's samples are passed over."""

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, self.epoch))
        order = torch.randperm(len(self.dataset), generator=generator)  # type: ignore[arg-type]
        places = torch.arange(self.rank, self.total_size, self.num_replicas) % len(order)
        yield from order[places][self.start :].tolist()


class EvaluationSampler(DistributedSampler[Any]):
    """Shares samples among processes without repeating any, so that metrics stay exact.

    torch's own pads with repeated samples until all processes have equally many.
    """

    def __init__(self, dataset: Dataset[tuple[Tensor, ...]], rank: int, num_replicas: int) -> None:
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, shuffle=False)

    def batch_size(self, most: int) -> int:
        """Return a size with which processes, whose samples differ by one, have as many batches.

        DDP demands that of networks with buffers.
        """
        longest = math.ceil(len(self.dataset) / self.num_replicas)  # type: ignore[arg-type]
        return math.ceil(longest / math.ceil(longest / most))

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.rank, len(self.dataset), self.num_replicas))  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(range(self.rank, len(self.dataset), self.num_replicas))  # type: ignore[arg-type]
