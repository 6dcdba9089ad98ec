"""Which positions of a sequence are what is learned from: one row for each that counts."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from kdlit import checks
from kdlit.batch import Batch, Outputs
from kdlit.errors import ConfigError


class Positions(Protocol):
    """Chooses positions of a batch, and makes them what its target and a network's answer are."""

    def __call__(self, batch: Batch) -> Batch:
        """Return the batch with `target` of shape (M,) and `rows` that give logits (M, C)."""
        ...


@dataclass(frozen=True)
class Tokens:
    r"""Every token that has a label is a row, for sequence labelling and language models.

    Networks answer logits (N, L, C), the classes last; targets are class indices (N, L). With the
    positions that count

    .. math:: P = \{(n, i) : y_{n,i} \ne \text{ignore\_index}\}, \quad M = |P|

    objectives, metrics and the means over an epoch see logits (M, C) and targets (M,) as if each
    position were a sample. *A mean is thus over positions*, not over sequences first: in each
    batch over its M positions, in an epoch, validation and test over all of them. Of several
    processes each takes the mean over its own.

    What layers give as (N, L, D) becomes (M, D); anything else, such as a pooled (N, D), stays
    as it is. More dimensions work alike: (N, H, W, C) with targets (N, H, W).

    With `shift`, position i answers for the target of position i + 1, as causal language models
    do: P then holds the (n, i) whose successor's label counts, the last position never.

    Where a batch has no target, positions count whose entry in the mask is not 0 (with `shift`
    together with their successor). A mask beside a target chooses nothing: label what is padded
    with `ignore_index`, as the collators of `transformers` do.

    A training batch in which no position counts has loss 0 and gradients of 0, and enters no mean;
    one in validation or test is left out. To find the positions that count, a step waits for an
    accelerator once.

    Args:
        ignore_index: the label of positions that do not count. Default -100, torch's own.
        shift: whether a position answers for its successor.
        mask: the entry of a mapping batch, also given to the networks, that tells padding where
            there is no target.

    Raises:
        ConfigError: if an argument cannot work; for a batch, if its target is not class indices
            of shape (N, L, ...), if there is neither target nor mask, or if what a network answers
            is of another shape.

    >>> logits = torch.randn(2, 3, 5)
    >>> batch = Tokens()(Batch(None, torch.tensor([[4, 1, -100], [2, -100, -100]])))
    >>> batch.target
    tensor([4, 1, 2])
    >>> torch.equal(batch.rows.of(Outputs(logits)).logits, logits[[0, 0, 1], [0, 1, 0]])
    True
    >>> Tokens(shift=True)(Batch(None, torch.tensor([[4, 1, -100], [2, -100, -100]]))).target
    tensor([1])
    """

    ignore_index: int = -100
    shift: bool = False
    mask: str = "attention_mask"

    def __post_init__(self) -> None:
        checks.integer("ignore_index", self.ignore_index, least=-(2**63))
        if not isinstance(self.shift, bool):
            raise ConfigError(f"`shift` must be true or false, got {self.shift!r}")

    def __call__(self, batch: Batch) -> Batch:
        """Return the batch with one target for each position that counts."""
        if batch.target is None:
            counts, target = self._unmasked(batch), None
        else:
            target = self._checked(batch.target)
            if self.shift:
                target = _successors(target, self.ignore_index)
            counts = target != self.ignore_index
        index = counts.flatten().nonzero().flatten()
        rows = ChosenRows(tuple(counts.shape), index)
        return replace(batch, target=None if target is None else rows.chosen(target), rows=rows)

    @staticmethod
    def _checked(target: Tensor) -> Tensor:
        if target.ndim < 2 or target.is_floating_point():
            raise ConfigError(
                "positions are chosen by targets that are class indices of shape (N, L), got "
                f"{target.dtype} of shape {tuple(target.shape)}: with one label a sample leave "
                "`positions` out"
            )
        return target

    def _unmasked(self, batch: Batch) -> Tensor:
        found = batch.inputs.get(self.mask) if isinstance(batch.inputs, Mapping) else None
        if not isinstance(found, Tensor):
            raise ConfigError(
                f"the batch has neither a target nor {self.mask!r}, so nothing says which "
                "positions count: give one of them"
            )
        counts = found != 0
        return counts & _successors(counts, False) if self.shift else counts


@dataclass(frozen=True)
class ChosenRows:
    """Some positions of a network's answer.

    Attributes:
        shape: of the positions there are, (N, L, ...).
        index: of those chosen, counted along that shape, (M,).
    """

    shape: tuple[int, ...]
    index: Tensor

    def of(self, outputs: Outputs) -> Outputs:
        """Return logits (M, C), and (M, ...) of each layer that has these positions."""
        logits, depth = outputs.logits, len(self.shape)
        if tuple(logits.shape[:-1]) != self.shape:
            raise ConfigError(
                f"positions of shape {self.shape} do not fit logits of shape "
                f"{tuple(logits.shape)}: a network must answer (N, L, C) for targets or a mask "
                "(N, L), with the classes in the last dimension"
            )
        features = {
            name: self.chosen(value)
            if value.ndim > depth and tuple(value.shape[:depth]) == self.shape
            else value
            for name, value in outputs.features.items()
        }
        return Outputs(self.chosen(logits), features)

    def chosen(self, values: Tensor) -> Tensor:
        """Return the chosen positions (M, ...) of values (N, L, ...)."""
        flat = values.flatten(0, len(self.shape) - 1)
        # With every position there is nothing to copy.
        return flat if len(flat) == len(self.index) else flat.index_select(0, self.index)


def _successors(values: Tensor, last: int | bool) -> Tensor:
    """Return at each position what stands at the next one, and `last` at the end."""
    return torch.cat([values[..., 1:], torch.full_like(values[..., :1], last)], dim=-1)


def check_positions(positions: Positions | None) -> Positions | None:
    """Return what chooses positions, or None, or raise `ConfigError`.

    >>> check_positions("tokens")
    Traceback (most recent call last):
    kdlit.errors.ConfigError: `positions` must choose positions, as Tokens() does, got 'tokens'
    """
    if positions is not None and not callable(positions):
        raise ConfigError(f"`positions` must choose positions, as Tokens() does, got {positions!r}")
    return positions
