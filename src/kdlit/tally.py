"""Means over an epoch without a synchronisation per step."""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kdlit.errors import NonFiniteError

if TYPE_CHECKING:
    from lightning.pytorch.strategies import Strategy

_ROWS_KEPT = 256


class Tally:
    """Collects named scalars of every step on their device; reads them when asked.

    A step costs one small stack; nothing is copied from the device until :meth:`check` or
    :meth:`means`.

    >>> tally = Tally()
    >>> tally.add({"loss": torch.tensor(1.0)}, samples=3, step=0)
    >>> tally.add({"loss": torch.tensor(5.0)}, samples=1, step=1)
    >>> tally.means()
    {'loss': 2.0}
    """

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._rows: list[Tensor] = []
        self._samples: list[int] = []
        self._steps: list[int] = []
        self._sums: dict[str, float] = {}
        self._count = 0

    def add(self, values: dict[str, Tensor], samples: int, step: int) -> None:
        """Add a step's values, each the mean over `samples` samples."""
        names = tuple(values)
        if names != self._names or len(self._rows) == _ROWS_KEPT:
            self.check()
            self._names = names
        self._rows.append(torch.stack([value.detach().float() for value in values.values()]))
        self._samples.append(samples)
        self._steps.append(step)

    def check(self) -> None:
        """Read what has been collected since the last call.

        Raises:
            NonFiniteError: if one of the values is NaN or infinite, with the step and the values.
        """
        if not self._rows:
            return
        rows = torch.stack(self._rows).cpu().double()
        bad = torch.nonzero(~torch.isfinite(rows).all(dim=1)).flatten()
        if len(bad):
            row = int(bad[0])
            told = ", ".join(
                f"{name}={value:g}"
                for name, value in zip(self._names, rows[row].tolist(), strict=True)
            )
            raise NonFiniteError(
                f"the training loss is not finite at step {self._steps[row]}: {told}. Try a "
                "smaller learning rate, or trainer.gradient_clip_val=1. The checkpoints written "
                "before this step are untouched"
            )
        weighted = (rows * torch.tensor(self._samples, dtype=torch.float64)[:, None]).sum(dim=0)
        for name, value in zip(self._names, weighted.tolist(), strict=True):
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += sum(self._samples)
        self._rows, self._samples, self._steps = [], [], []

    def means(self, strategy: "Strategy | None" = None) -> dict[str, float]:
        """Return each value's mean over all samples, on all processes of a strategy."""
        self.check()
        totals = torch.tensor([*self._sums.values(), self._count], dtype=torch.float64)
        if strategy is not None and getattr(strategy, "world_size", 1) > 1:
            moved = totals.to(strategy.root_device, torch.float64)
            totals = torch.as_tensor(strategy.reduce(moved, reduce_op="sum")).cpu()
        *sums, count = totals.tolist()
        return {
            name: total / count if count else math.nan
            for name, total in zip(self._sums, sums, strict=True)
        }
