"""Samples in shards on the disk, in litdata's format: written once, found by their number."""

import hashlib
import json
import os
import tempfile
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, DistributedSampler

from kdlit import checks
from kdlit.errors import ConfigError, DataError
from kdlit.randomness import derive_seed

INDEX = "index.json"
# litdata has others, which run code from the file (pickle) or are no arrays.
_READ = {"numpy", "no_header_numpy", "tensor", "no_header_tensor", "bool", "int", "float"}
_PROBED = 16
_YIELDED = 4096


def _litdata() -> Any:
    try:
        import litdata.streaming
    except ImportError as error:
        raise ConfigError(
            'shards are read and written with litdata: it comes with pip install "kdlit[streaming]"'
        ) from error
    return litdata.streaming


def write_shards(
    folder: str | Path,
    batches: Iterable[tuple[Any, Any]],
    block_size: int = 1000,
    shard_bytes: str = "64MB",
) -> int:
    """Write samples to a folder for :class:`ShardedDataset`; return how many there are.

    The batches are taken one after the other, and may be of any size: what is held in memory is a
    batch and a shard. A sample's number is its position in them. The folder appears when all is
    written.

    Args:
        folder: must not exist yet.
        batches: pairs (x, y) of arrays or tensors, whose first dimension is the samples'.
        block_size: samples that are read from the disk together.
        shard_bytes: size of a file.

    Raises:
        ConfigError: if the folder exists, there are no samples, x and y differ in number, or they
            are not numbers of one type and shape.

    >>> with tempfile.TemporaryDirectory() as own:
    ...     write_shards(Path(own, "train"), [(torch.zeros(30, 4), torch.arange(30))] * 2)
    60
    """
    folder = Path(folder)
    checks.integer("block_size", block_size)
    if folder.exists():
        raise ConfigError(f"`folder` must not exist yet, got {folder}")
    cache = _litdata().Cache
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as own:
        new = Path(own, "new")
        writer, count = cache(str(new), chunk_bytes=shard_bytes), 0
        for number, (inputs, targets) in enumerate(_blocks(batches, block_size)):
            writer[number] = (inputs, targets)
            count += len(targets)
        if not count:
            raise ConfigError("`batches` must hold samples, got none")
        writer.done()
        writer.merge()
        os.replace(new, folder)
    return count


def _blocks(
    batches: Iterable[tuple[Any, Any]], size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Cut batches of any size into blocks of one size, of which the last may be smaller."""
    held: list[tuple[np.ndarray, np.ndarray]] = []
    first: list[str] = []
    for inputs, targets in batches:
        inputs, targets = np.asarray(inputs), np.asarray(targets)
        if len(inputs) != len(targets):
            raise ConfigError(
                f"a batch must have as many x as y, got {len(inputs)} and {len(targets)}"
            )
        kinds = [f"{part.dtype} {part.shape[1:]}" for part in (inputs, targets)]
        first = first or kinds
        # What follows would be read as what the first is.
        if kinds != first or {inputs.dtype.kind, targets.dtype.kind} - set("biufc"):
            raise ConfigError(
                "samples must be numbers, of one type and shape in all batches, got x and y of "
                f"{' and '.join(kinds)}; the first batch has {' and '.join(first)}"
            )
        held.append((inputs, targets))
        if sum(len(part) for _, part in held) >= size:
            inputs, targets = (np.concatenate(parts) for parts in zip(*held, strict=True))
            whole = len(targets) - len(targets) % size
            for start in range(0, whole, size):
                yield inputs[start : start + size], targets[start : start + size]
            held = [(inputs[whole:].copy(), targets[whole:].copy())]
    if sum(len(part) for _, part in held):
        yield tuple(np.concatenate(parts) for parts in zip(*held, strict=True))  # type: ignore[misc]


class ShardedDataset(Dataset[tuple[Tensor, ...]]):
    """A folder of shards, of which the blocks that were read last are in memory.

    The folder is one that :func:`write_shards` wrote, or litdata's `optimize` with items that are
    blocks: pairs (x, y) of arrays whose first dimension is the samples', the same number in each
    but the last. Gives `(x, y, index)`, a batch at a time, with `__getitems__`; integer labels as
    int64. A sample's number `index` is its position in the folder.

    Args:
        folder: where the shards lie, on a disk that this machine has mounted.
        blocks_in_memory: how many blocks are held.

    Raises:
        ConfigError: without the extra `streaming`.
        DataError: if the folder is not one of shards, or its items are not such blocks.

    >>> with tempfile.TemporaryDirectory() as own:
    ...     count = write_shards(f"{own}/train", [(torch.arange(7.0), torch.arange(7))])
    ...     ShardedDataset(f"{own}/train").__getitems__([5, 1])
    (tensor([5., 1.]), tensor([5, 1]), tensor([5, 1]))
    """

    def __init__(self, folder: str | Path, blocks_in_memory: int = 64) -> None:
        self.folder = Path(folder)
        self.blocks_in_memory = checks.integer("blocks_in_memory", blocks_in_memory)
        if not (self.folder / INDEX).is_file():
            raise DataError(
                f"{self.folder} is no folder of shards: it has no {INDEX}. "
                "kdlit.data.write_shards writes one"
            )
        self._kept: OrderedDict[int, tuple[Tensor, Tensor]] = OrderedDict()
        self._source: Any = None
        self._process = -1
        self._files = self._chunks()
        # Not litdata's length, which among several processes is that of one's share.
        self.block_count = sum(chunk["chunk_size"] for chunk in self._files)
        if not self.block_count:
            raise DataError(f"{self.folder} holds no samples")
        self.block_size = len(self._read(0)[1])
        last = self._read(self.block_count - 1)
        self._length: int = (self.block_count - 1) * self.block_size + len(last[1])

    def _chunks(self) -> list[dict[str, Any]]:
        """Return what is told of the files, once they are known to be there."""
        try:
            told = json.loads((self.folder / INDEX).read_text(encoding="utf-8"))
            config, chunks = told["config"], list(told["chunks"])
            if config["compression"] or config["encryption"]:
                raise DataError(f"{self.folder} is compressed or encrypted: write it without")
            formats = {str(name).partition(":")[0] for name in config["data_format"]}
            if formats - _READ:
                raise DataError(
                    f"{self.folder} holds items of {', '.join(sorted(formats - _READ))}, and "
                    "blocks are pairs of arrays of numbers: kdlit.data.write_shards writes such"
                )
            # For a missing file litdata would wait two minutes.
            for chunk in chunks:
                size = (self.folder / chunk["filename"]).stat().st_size
                if size != chunk["chunk_bytes"]:
                    raise DataError(
                        f"{self.folder / chunk['filename']} is damaged: it has {size} bytes, not "
                        f"{chunk['chunk_bytes']}"
                    )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{self.folder} cannot be read: {type(error).__name__}: {error}"
            ) from error
        return chunks

    def _open(self) -> Any:
        # A forked worker must not share its parent's open files.
        if self._source is None or self._process != os.getpid():
            source = _litdata().StreamingDataset
            self._source, self._process = source(str(self.folder), batch_decode=0), os.getpid()
        return self._source

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_source": None, "_kept": OrderedDict()}

    def _read(self, number: int) -> tuple[Tensor, Tensor]:
        item = self._open()[number]
        if not (isinstance(item, (tuple, list)) and len(item) == 2):
            raise DataError(f"item {number} of {self.folder} is no pair (x, y) of arrays")
        # Copies: what litdata gives may lie in a file that it closes.
        inputs, targets = (torch.from_numpy(np.array(part)) for part in item)
        if not inputs.ndim or not targets.ndim or len(inputs) != len(targets) or not len(targets):
            raise DataError(
                f"item {number} of {self.folder} is no block of samples: x has shape "
                f"{tuple(inputs.shape)} and y {tuple(targets.shape)}"
            )
        return inputs, targets if targets.is_floating_point() else targets.long()

    def _block(self, number: int) -> tuple[Tensor, Tensor]:
        if number in self._kept:
            self._kept.move_to_end(number)
            return self._kept[number]
        block = self._read(number)
        expected = min(self.block_size, len(self) - number * self.block_size)
        if len(block[1]) != expected:
            raise DataError(
                f"block {number} of {self.folder} has {len(block[1])} samples, not {expected}: "
                "all but the last must have as many as the first"
            )
        self._kept[number] = block
        if len(self._kept) > self.blocks_in_memory:
            self._kept.popitem(last=False)
        return block

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, position: int) -> tuple[Tensor, ...]:
        inputs, targets, index = self.__getitems__([position])
        return inputs[0], targets[0], index[0]

    def __getitems__(self, positions: Sequence[int]) -> tuple[Tensor, ...]:
        index = torch.as_tensor(positions, dtype=torch.int64)
        if not 0 <= int(index.min()) <= int(index.max()) < len(self):
            raise IndexError(f"positions must lie in [0, {len(self)})")
        # Block by block, so that each is looked up once.
        order = torch.argsort(index)
        numbers, counts = torch.unique_consecutive(
            index[order] // self.block_size, return_counts=True
        )
        example = self._block(int(numbers[0]))
        inputs, targets = (part.new_empty((len(index), *part.shape[1:])) for part in example)
        for number, where in zip(
            numbers.tolist(), torch.split(order, counts.tolist()), strict=True
        ):
            block, rows = self._block(number), index[where] - number * self.block_size
            inputs[where], targets[where] = block[0][rows], block[1][rows]
        return inputs, targets, index

    def fingerprint(self) -> str:
        """Return what stands for the data: the list of files, and what 16 samples are."""
        told = f"{len(self)};{self.block_size};{json.dumps(self._files)};"
        digest = hashlib.sha256(told.encode())
        probed = np.linspace(0, len(self) - 1, num=min(_PROBED, len(self)), dtype=np.int64)
        for part in self.__getitems__(probed.tolist()):
            digest.update(f"{part.dtype}{tuple(part.shape)}".encode())
            digest.update(part.contiguous().numpy().tobytes())
        return digest.hexdigest()[:12]


class BlockShuffle(DistributedSampler[Any]):
    """A shuffle by (seed, epoch) in which samples that are near in time lie in few blocks.

    The blocks are put in a random order, and of each `blocks_at_once` that follow one another the
    samples are shuffled among themselves. Processes share this one sequence, each a part that is
    contiguous; up to `num_replicas - 1` samples at its end are left out, other ones in each epoch.

    Args:
        dataset: what is shuffled.
        blocks_at_once: more mix better, and take more memory.
        seed: of the shuffle.
        rank: of this process.
        num_replicas: how many processes there are.

    >>> with tempfile.TemporaryDirectory() as own:
    ...     count = write_shards(f"{own}/train", [(torch.zeros(7), torch.zeros(7))], block_size=3)
    ...     sorted(BlockShuffle(ShardedDataset(f"{own}/train"), seed=1))
    [0, 1, 2, 3, 4, 5, 6]
    """

    def __init__(
        self,
        dataset: ShardedDataset,
        blocks_at_once: int = 64,
        seed: int = 0,
        rank: int = 0,
        num_replicas: int = 1,
    ) -> None:
        super().__init__(dataset, num_replicas, rank, seed=seed)
        self.blocks_at_once = checks.integer("blocks_at_once", blocks_at_once)
        self.start = 0
        """How many of this process's samples are passed over."""

    def __len__(self) -> int:
        return len(self.dataset) // self.num_replicas  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[int]:
        data: Any = self.dataset
        first = self.rank * len(self) + self.start
        stop = (self.rank + 1) * len(self)
        order = torch.randperm(data.block_count, generator=self._generator())
        begin = 0
        for window, numbers in enumerate(torch.split(order, self.blocks_at_once)):
            starts = [number * data.block_size for number in numbers.tolist()]
            positions = torch.cat(
                [torch.arange(start, min(start + data.block_size, len(data))) for start in starts]
            )
            end = begin + len(positions)
            if first < end and begin < stop:
                mixed = torch.randperm(len(positions), generator=self._generator(window))
                mine = positions[mixed][max(first - begin, 0) : stop - begin]
                # A list of all would take more memory than the samples.
                for part in torch.split(mine, _YIELDED):
                    yield from part.tolist()
            begin = end

    def _generator(self, *window: int) -> torch.Generator:
        return torch.Generator().manual_seed(derive_seed(self.seed, self.epoch, *window))
