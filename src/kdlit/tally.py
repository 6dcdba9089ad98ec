"""Means over an epoch without a synchronisation per step."""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kdlit.errors import NonFiniteError

if TYPE_CHECKING:
    from lightning.pytorch.strategies import Strategy

_ROWS_KEPT = 256
_COUNT = "samples"


class Tally:
    """Collects named scalars of every step on their device; reads them when asked.

    A step costs next to nothing: its scalars are kept as they are, and nothing is copied from the
    device until :meth:`read` or :meth:`means`. :attr:`is_full` says when it is time.

    >>> tally = Tally()
    >>> tally.add({"loss": torch.tensor(1.0)}, samples=3, step=0)
    >>> tally.add({"loss": torch.tensor(5.0)}, samples=1, step=1)
    >>> tally.read()
    [(0, {'loss': 1.0}), (1, {'loss': 5.0})]
    >>> tally.means()
    {'loss': 2.0}
    """

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._rows: list[list[Tensor]] = []
        self._samples: list[int] = []
        self._steps: list[int] = []
        self._hits: list[Tensor] = []
        self._sums: dict[str, float] = {}
        self._count = 0

    @property
    def is_full(self) -> bool:
        """Whether it has kept as many steps as it should."""
        return len(self._rows) >= _ROWS_KEPT

    def add(
        self, values: dict[str, Tensor], samples: int, step: int, hits: Tensor | None = None
    ) -> None:
        """Add a step's values, each the mean over `samples` samples, and which of them were right.

        The names are the same at each step. `hits` is boolean, shape (samples,).
        """
        self._names = tuple(values)
        self._rows.append([value.detach() for value in values.values()])
        self._samples.append(samples)
        self._steps.append(step)
        if hits is not None:
            self._hits.append(hits)

    def read(self) -> list[tuple[int, dict[str, float]]]:
        """Return the values of each step since the last call, with the step.

        Raises:
            NonFiniteError: if one of the values is NaN or infinite, with the step and the values.
        """
        if not self._rows:
            return []
        flat = torch.stack([value.float() for row in self._rows for value in row])
        rows = flat.reshape(len(self._rows), -1).cpu().double()
        found = [
            (step, dict(zip(self._names, row, strict=True)))
            for step, row in zip(self._steps, rows.tolist(), strict=True)
        ]
        samples, hits = self._samples, self._hits
        self._rows, self._samples, self._steps, self._hits = [], [], [], []
        bad = torch.nonzero(~torch.isfinite(rows).all(dim=1)).flatten()
        if len(bad):
            step, values = found[int(bad[0])]
            told = ", ".join(f"{name}={value:g}" for name, value in values.items())
            raise NonFiniteError(
                f"the training loss is not finite at step {step}: {told}. Try a "
                "smaller learning rate, or trainer.gradient_clip_val=1. The checkpoints written "
                "before this step are untouched"
            )
        weighted = (rows * torch.tensor(samples, dtype=torch.float64)[:, None]).sum(dim=0)
        totals = dict(zip(self._names, weighted.tolist(), strict=True))
        if hits:
            totals["accuracy"] = float(torch.cat(hits).sum())
        for name, total in totals.items():
            self._sums[name] = self._sums.get(name, 0.0) + total
        self._count += sum(samples)
        return found

    def state(self, strategy: "Strategy | None" = None) -> dict[str, float]:
        """Return the sums and the count of samples, over all processes of a strategy."""
        self.read()
        totals = torch.tensor([*self._sums.values(), self._count], dtype=torch.float64)
        if strategy is not None and getattr(strategy, "world_size", 1) > 1:
            moved = totals.to(strategy.root_device, torch.float64)
            totals = torch.as_tensor(strategy.reduce(moved, reduce_op="sum")).cpu()
        return dict(zip([*self._sums, _COUNT], totals.tolist(), strict=True))

    def restore(self, state: dict[str, float]) -> None:
        """Go on from what :meth:`state` returned."""
        sums = dict(state)
        self._count = int(sums.pop(_COUNT))
        self._sums = sums

    def means(self, strategy: "Strategy | None" = None) -> dict[str, float]:
        """Return each value's mean over all samples, on all processes of a strategy.

        With them the `accuracy`, where there were hits.
        """
        sums = self.state(strategy)
        count = sums.pop(_COUNT)
        return {name: total / count if count else math.nan for name, total in sums.items()}
