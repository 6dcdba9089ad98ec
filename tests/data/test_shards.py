"""Samples on the disk: what is written is found by number, whatever the order."""

import copy
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from kdlit.data import BlockShuffle, ShardedDataset, write_shards
from kdlit.errors import ConfigError, DataError

COUNT, BLOCK = 107, 10


@pytest.fixture(scope="module")
def samples():
    generator = torch.Generator().manual_seed(4)
    x = torch.randint(256, (COUNT, 2, 3), dtype=torch.uint8, generator=generator)
    return x, torch.randint(5, (COUNT,), dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="module")
def folder(samples, tmp_path_factory):
    place = tmp_path_factory.mktemp("shards") / "train"
    parts = zip(*(part.split([3, 50, 1, 53]) for part in samples), strict=True)
    # A few hundred bytes: more than one file.
    assert write_shards(place, parts, block_size=BLOCK, shard_bytes="300B") == COUNT
    assert len(list(place.glob("*.bin"))) > 2
    return place


def test_each_sample_is_found_by_its_number(folder, samples):
    data = ShardedDataset(folder, blocks_in_memory=2)
    assert (len(data), data.block_size, data.block_count) == (COUNT, BLOCK, 11)
    positions = [*torch.randperm(COUNT).tolist(), 5, 5, 106]
    x, y, index = data.__getitems__(positions)
    assert index.tolist() == positions
    assert torch.equal(x, samples[0][positions])
    assert torch.equal(y, samples[1][positions].long())
    assert len(data._kept) == 2
    assert torch.equal(data[106][0], samples[0][106])
    for wrong in (-1, COUNT):
        with pytest.raises(IndexError):
            data[wrong]


def test_litdata_itself_writes_and_reads_the_same_folders(folder, samples):
    from litdata import StreamingDataset

    blocks = [StreamingDataset(str(folder))[number] for number in range(11)]
    assert np.array_equal(np.concatenate([x for x, _ in blocks]), samples[0].numpy())
    assert np.array_equal(np.concatenate([y for _, y in blocks]), samples[1].numpy())


def test_goes_to_workers(folder, samples):
    data = ShardedDataset(folder)
    data[0]
    loader = torch.utils.data.DataLoader(data, 25, num_workers=2, collate_fn=lambda batch: batch)
    assert torch.equal(torch.cat([x for x, *_ in loader]), samples[0])
    # As a spawned one gets it: without open files.
    other = copy.deepcopy(data)
    assert other._source is None
    assert torch.equal(other.__getitems__(range(COUNT))[0], samples[0])


def test_the_fingerprint_is_of_what_is_there(folder, samples, tmp_path):
    x, y = samples
    write_shards(tmp_path / "same", [(x, y)], BLOCK, "300B")
    changed = x.clone()
    changed[0, 0, 0] += 1
    write_shards(tmp_path / "other", [(changed, y)], BLOCK, "300B")
    own = ShardedDataset(folder).fingerprint()
    assert ShardedDataset(tmp_path / "same").fingerprint() == own
    assert ShardedDataset(tmp_path / "other").fingerprint() != own


def test_an_epoch_is_every_sample_once_in_an_order_of_its_own(folder):
    data = ShardedDataset(folder)
    sampler = BlockShuffle(data, blocks_at_once=3, seed=7)
    orders = []
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
        assert sorted(orders[-1]) == list(range(COUNT))
    assert orders[0] == orders[2] != orders[1]
    assert list(BlockShuffle(data, 3, seed=8)) != orders[0]


def test_neighbours_lie_in_few_blocks_and_are_mixed(folder):
    order = list(BlockShuffle(ShardedDataset(folder), blocks_at_once=3))
    # Windows of three whole blocks, wherever the short block is.
    met, window, size = [], set(), 0
    for position in order:
        window.add(position // BLOCK)
        size += 1
        if size == sum(min(BLOCK, COUNT - block * BLOCK) for block in window) and len(window) == 3:
            met.append(window)
            window, size = set(), 0
    met.append(window)
    assert [len(blocks) for blocks in met] == [3, 3, 3, 2]
    assert len(set.union(*met)) == 11
    assert all(max(blocks) - min(blocks) > 2 for blocks in met[:3]), "blocks from anywhere"
    steps = np.diff(order)
    assert np.mean(steps == 1) < 0.2


@pytest.mark.parametrize("processes", [2, 3, 4])
def test_processes_share_one_sequence(folder, processes):
    data = ShardedDataset(folder)
    whole = list(BlockShuffle(data, 4, seed=2))
    parts = [BlockShuffle(data, 4, 2, rank, processes) for rank in range(processes)]
    assert {len(part) for part in parts} == {COUNT // processes}
    assert [number for part in parts for number in part] == whole[: COUNT - COUNT % processes]


def test_passes_over_what_was_seen(folder):
    sampler = BlockShuffle(ShardedDataset(folder), 3, rank=1, num_replicas=2)
    whole = list(sampler)
    for start in (0, 1, 29, 30, 52, 53):
        sampler.start = start
        assert list(sampler) == whole[start:]


def test_bad_folders_are_refused_with_the_reason(tmp_path, samples):
    with pytest.raises(DataError, match=r"has no index\.json.*write_shards"):
        ShardedDataset(tmp_path)
    (tmp_path / "index.json").write_text("{}")
    with pytest.raises(DataError, match=r"cannot be read: KeyError"):
        ShardedDataset(tmp_path)
    x, y = samples
    with pytest.raises(ConfigError, match="must not exist yet"):
        write_shards(tmp_path, [samples])
    with pytest.raises(ConfigError, match="got none"):
        write_shards(tmp_path / "none", [(x[:0], y[:0])])
    with pytest.raises(ConfigError, match="as many x as y, got 3 and 2"):
        write_shards(tmp_path / "odd", [(x[:3], y[:2])])
    with pytest.raises(ConfigError, match=r"of one type .* got x and y of uint8 .* and float32"):
        write_shards(tmp_path / "types", [(x, y.int()), (x, y.float())])
    with pytest.raises(ConfigError, match=r"must be numbers, .* object"):
        write_shards(tmp_path / "objects", [(np.array([{}, {}]), np.zeros(2))])
    with pytest.raises(ConfigError, match="`block_size`"):
        write_shards(tmp_path / "zero", [samples], block_size=0)
    assert [path.name for path in tmp_path.iterdir()] == ["index.json"], "nothing is left behind"


def test_damaged_folders_are_refused_at_once(folder, tmp_path):
    for number, damage in enumerate((Path.unlink, cut)):
        place = tmp_path / str(number)
        shutil.copytree(folder, place)
        damage(sorted(place.glob("*.bin"))[-1])
        with pytest.raises(DataError, match=("FileNotFoundError", "is damaged: it has")[number]):
            ShardedDataset(place)
    told = json.loads((folder / "index.json").read_text())
    told["config"]["compression"] = "zstd"
    (place / "index.json").write_text(json.dumps(told))
    with pytest.raises(DataError, match="compressed or encrypted"):
        ShardedDataset(place)


def cut(path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def written(place, items):
    from litdata.streaming import Cache

    writer = Cache(str(place), chunk_bytes="1MB")
    for number, item in enumerate(items):
        writer[number] = item
    writer.done()
    writer.merge()
    return place


class Hostile:
    """Writes a file where it is unpickled."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_nothing_is_unpickled(tmp_path):
    place = written(tmp_path / "train", [(Hostile(tmp_path / "there"), np.zeros((2, 3)))])
    with pytest.raises(DataError, match="holds items of pickle, and blocks are pairs of arrays"):
        ShardedDataset(place)
    assert not (tmp_path / "there").exists()


def test_items_that_are_no_blocks_are_refused(tmp_path):
    single = (np.zeros(3), 1)
    with pytest.raises(DataError, match="no block of samples: x has shape"):
        ShardedDataset(written(tmp_path / "single", [single] * 3))
    with pytest.raises(DataError, match="no pair"):
        ShardedDataset(written(tmp_path / "alone", [np.zeros(3)] * 3))
    sizes = [(np.zeros((size, 2)), np.zeros(size)) for size in (4, 3, 4)]
    with pytest.raises(DataError, match=r"block 1 .* has 3 samples, not 4"):
        ShardedDataset(written(tmp_path / "uneven", sizes)).__getitems__(range(12))


def test_a_missing_extra_is_named(folder, monkeypatch, tmp_path, samples):
    monkeypatch.setitem(sys.modules, "litdata.streaming", None)
    for use in (lambda: ShardedDataset(folder), lambda: write_shards(tmp_path / "a", [samples])):
        with pytest.raises(ConfigError, match=r'pip install "kdlit\[streaming\]"'):
            use()
