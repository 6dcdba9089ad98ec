"""Loaders that go on within an epoch, at the batch where a training was broken off."""

from collections.abc import Iterator
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.trainer.states import TrainerFn
from torch.utils.data import DataLoader, Sampler

from kdlit.errors import ConfigError

# What decides, beside the epoch, which samples a sampler gives in which order.
_DECISIVE = ("seed", "blocks_at_once", "num_replicas")


class ResumableLoader(DataLoader[Any]):
    """A loader that goes on within an epoch.

    Its sampler has an `epoch`, upon which its order depends, and a `start`: how many samples it
    passes over. Lightning keeps the state of a loader in its checkpoints.
    """

    _batches = 0
    _resumed: dict[str, Any] | None = None

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Begin at the first batch that is asked for, when the epoch is known.

        Raises:
            ConfigError: within an epoch, if the rest of it would not be what is left.
        """
        sampler: Any = self.sampler
        resumed, self._resumed = self._resumed, None
        goes_on = resumed is not None and resumed["epoch"] == sampler.epoch
        if resumed and goes_on:
            self._check(resumed)
        self._batches = resumed["batches"] if resumed and goes_on else 0
        sampler.start = self._batches * (self.batch_size or 1)
        for batch in super().__iter__():
            self._batches += 1
            yield batch

    def _order(self) -> dict[str, int]:
        """Return what decides, beside the epoch, which samples a batch has."""
        decisive = {n: getattr(self.sampler, n) for n in _DECISIVE if hasattr(self.sampler, n)}
        return {"batch_size": self.batch_size or 1, "samples": len(self.sampler), **decisive}  # type: ignore[arg-type]

    def _check(self, state: dict[str, Any]) -> None:
        differ = [
            f"{name} {value} where it was {state.get(name)}"
            for name, value in self._order().items()
            if state.get(name) != value
        ]
        if differ:
            raise ConfigError(
                "the checkpoint is from within an epoch, which cannot go on with other batches: "
                f"the loader has {', '.join(differ)}"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch, how many of its batches were given, and what decides their order."""
        epoch: int = self.sampler.epoch  # type: ignore[attr-defined]
        return {"epoch": epoch, "batches": self._batches, **self._order()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on behind these batches, if the epoch is the same."""
        self._resumed = dict(state)


class InOrder(Sampler[int]):
    """The numbers from 0, in every epoch.

    >>> list(InOrder(3))
    [0, 1, 2]
    """

    def __init__(self, count: int) -> None:
        self.count, self.epoch, self.start = count, 0, 0

    def set_epoch(self, epoch: int) -> None:
        """Note the epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start, self.count))


class ResumableDataModule(pl.LightningDataModule):
    """A datamodule whose training goes on within an epoch.

    Lightning restores a loader's state only where no schedule has asked for the loader's length
    before (a OneCycleLR does): the datamodule's is restored in time. A subclass hands the loader
    that it trains on to :meth:`resumed`.
    """

    _state: dict[str, Any] | None = None

    def setup(self, stage: str | None = None) -> None:
        """Begin at the beginning unless a state is restored."""
        self._state = None

    def resumed(self, loader: ResumableLoader) -> ResumableLoader:
        """Return a loader that begins where the training goes on."""
        if self._state:
            loader.load_state_dict(self._state)
        return loader

    def state_dict(self) -> dict[str, Any]:
        """Return where the loader is that is trained on, of all that were made."""
        loader = self.trainer.train_dataloader if self.trainer is not None else None
        return dict(loader.state_dict()) if isinstance(loader, ResumableLoader) else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on there, if it is a training that goes on."""
        if self.trainer is not None and self.trainer.state.fn == TrainerFn.FITTING:
            self._state = dict(state_dict)
