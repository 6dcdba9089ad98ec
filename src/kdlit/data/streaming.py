"""Data larger than memory as a LightningDataModule."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from kdlit import checks
from kdlit.data.loading import EvaluationSampler, as_it_is, told
from kdlit.data.resuming import ResumableDataModule, ResumableLoader
from kdlit.data.shards import INDEX, BlockShuffle, ShardedDataset
from kdlit.errors import ConfigError, DataError
from kdlit.randomness import derive_seed

Batch = tuple[Tensor, ...]


class StreamingDataModule(ResumableDataModule):
    """Folders of shards, `train`, `val` and `test`, of which a few blocks are in memory.

    Batches are `(x, y, index)`. Training samples are shuffled by (seed, epoch), see
    :class:`kdlit.data.BlockShuffle`; a training that was broken off goes on at the batch where it
    was. Samples have numbers, their position in the folder: a :class:`kdlit.CachedTeacher` keeps
    its outputs beside them. A folder is needed when its split is; without `val`, train with
    `limit_val_batches=0`.

    Args:
        root: holds the folders that :func:`kdlit.data.write_shards` wrote.
        batch_size: training samples per step of the optimizer and process.
        batches_at_once: how many such batches the training loader gives at a time, for a module
            with this `step_size`, which takes them apart again; the result is the same.
        eval_batch_size: samples per batch in validation, test and prediction.
        blocks_at_once: how many blocks are in memory, in each process and each worker.
        transform: a function of a batch's x, called where the networks are, for training and
            evaluation alike; it must not be random.
        seed: of the order of training samples.
        num_workers: loader processes.

    Raises:
        ConfigError: if an argument cannot work, or without the extra `streaming`.
        DataError: in `setup`, if a folder is missing or damaged.

    >>> import tempfile
    >>> from kdlit.data import write_shards
    >>> with tempfile.TemporaryDirectory() as root:
    ...     count = write_shards(f"{root}/train", [(torch.zeros(50, 4), torch.arange(50) % 3)])
    ...     data = StreamingDataModule(root, batch_size=20)
    ...     data.setup("fit")
    ...     [len(index) for x, y, index in data.train_dataloader()]
    [20, 20, 10]
    """

    view_count = 1

    def __init__(
        self,
        root: str | Path,
        batch_size: int = 128,
        batches_at_once: int = 1,
        eval_batch_size: int = 1000,
        blocks_at_once: int = 64,
        transform: Callable[[Tensor], Tensor] | None = None,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.root = Path(root)
        self.batch_size = checks.integer("batch_size", batch_size)
        self.batches_at_once = checks.integer("batches_at_once", batches_at_once)
        self.eval_batch_size = checks.integer("eval_batch_size", eval_batch_size)
        self.blocks_at_once = checks.integer("blocks_at_once", blocks_at_once)
        if transform is not None and not callable(transform):
            raise ConfigError(f"`transform` must be a function, got {transform!r}")
        self.transform = transform
        self.seed = checks.integer("seed", seed, least=0)
        self.num_workers = checks.integer("num_workers", num_workers, least=0)
        self.splits: dict[str, ShardedDataset] = {}
        self._resumed: dict[str, int] = {}

    @property
    def step_size(self) -> int | None:
        """The `step_size` of a module that trains on these batches."""
        return self.batch_size if self.batches_at_once > 1 else None

    @property
    def preparation(self) -> dict[str, Any]:
        """What decides, beside the data, which inputs the networks see; JSON-like."""
        return {"transform": told(self.transform)}

    def setup(self, stage: str | None = None) -> None:
        """Open the folders that are there; begin at the beginning unless a state is restored."""
        super().setup(stage)
        for name in ("train", "val", "test"):
            if name not in self.splits and (self.root / name / INDEX).is_file():
                self.splits[name] = ShardedDataset(self.root / name, self.blocks_at_once)
        needed = {"fit": "train", "validate": "val", "test": "test", "predict": "test"}
        if stage in needed:
            self._split(needed[stage])

    def _split(self, name: str) -> ShardedDataset:
        if name not in self.splits:
            raise DataError(
                f"{self.root / name} is no folder of shards: it has no {INDEX}. "
                "kdlit.data.write_shards writes one"
                + ("; or train with limit_val_batches=0" if name == "val" else "")
            )
        return self.splits[name]

    # Loaders -------------------------------------------------------------------------------

    def _options(self) -> dict[str, Any]:
        return {
            "collate_fn": as_it_is,
            "num_workers": self.num_workers,
            "pin_memory": torch.cuda.is_available(),
            # Not from the global generator, whose state belongs to the networks.
            "generator": torch.Generator().manual_seed(self.seed),
        }

    def _place(self) -> tuple[int, int]:
        """Return this process's rank, and how many there are."""
        trainer = self.trainer
        return (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)

    def train_dataloader(self) -> ResumableLoader:
        """Shuffle by (seed, epoch)."""
        data = self._split("train")
        sampler = BlockShuffle(data, self.blocks_at_once, derive_seed(self.seed), *self._place())
        size = self.batch_size * self.batches_at_once
        return self.resumed(
            ResumableLoader(data, batch_size=size, sampler=sampler, **self._options())
        )

    def _evaluation_loader(self, data: ShardedDataset) -> DataLoader[Batch]:
        sampler, size = EvaluationSampler(data, *self._place()), self.eval_batch_size
        if sampler.num_replicas > 1:
            size = sampler.batch_size(size)
        return DataLoader(data, batch_size=size, sampler=sampler, **self._options())

    def val_dataloader(self) -> DataLoader[Batch]:
        """Give the validation split, in order."""
        return self._evaluation_loader(self._split("val"))

    def test_dataloader(self) -> DataLoader[Batch]:
        """Give the test set, in order."""
        return self._evaluation_loader(self._split("test"))

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Give the test set, in order."""
        return self.test_dataloader()

    # Batches -------------------------------------------------------------------------------

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Transform x, on the device where it lies."""
        return self.prepare(batch, None)

    def prepare(self, batch: Any, epoch: int | None) -> Any:
        """Transform x; every epoch is the same."""
        inputs, targets, index = batch
        if self.transform is not None:
            inputs = self.transform(inputs)
        if self.trainer is not None:  # which has seen to bytes only
            inputs = self.trainer.precision_plugin.convert_input(inputs)
        return inputs, targets, index
