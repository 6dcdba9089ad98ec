"""Seeded, stratified choices of samples."""

import torch
from torch import Tensor

from kdlit.errors import ConfigError


def stratified_choice(labels: Tensor, size: int, seed: int) -> Tensor:
    """Choose `size` samples whose classes are as frequent as in `labels`.

    Each class gets its share, rounded so that the sum is exact (largest remainder, ties to the
    lower class). Which of its samples are taken depends on the seed alone.

    Args:
        labels: class indices, shape (N,).
        size: how many to take, 0 <= size <= N.
        seed: any integer; 0 is a seed as good as any.

    Returns:
        Positions in `labels`, ascending, shape (size,).

    Raises:
        ConfigError: if `size` exceeds the number of labels.

    >>> labels = torch.tensor([0] * 60 + [1] * 40)
    >>> torch.bincount(labels[stratified_choice(labels, 10, seed=0)]).tolist()
    [6, 4]
    """
    if not 0 <= size <= len(labels):
        raise ConfigError(f"cannot choose {size} of {len(labels)} samples")
    classes, counts = torch.unique(labels, return_counts=True)
    share = counts.double() * size / max(len(labels), 1)
    take = share.floor().long()
    remainder_first = torch.argsort(share - take, descending=True, stable=True)
    take[remainder_first[: size - int(take.sum())]] += 1
    generator = torch.Generator().manual_seed(seed)
    chosen = []
    for label, number in zip(classes, take, strict=True):
        members = torch.nonzero(labels == label).flatten()
        chosen.append(members[torch.randperm(len(members), generator=generator)[:number]])
    return torch.cat(chosen).sort().values if chosen else torch.empty(0, dtype=torch.long)
