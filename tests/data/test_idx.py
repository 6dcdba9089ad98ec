import gzip
import shutil
import urllib.error

import pytest
import torch
import torchvision

import kdlit.data.idx as idx
from kdlit.data.idx import load_idx_resource
from kdlit.errors import DataError

MNIST = torchvision.datasets.MNIST
LABELS = "t10k-labels-idx1-ubyte.gz"


@pytest.fixture
def copy(mnist_root, tmp_path):
    shutil.copytree(mnist_root / "MNIST" / "raw", tmp_path / "MNIST" / "raw")
    return tmp_path


@pytest.fixture
def offline(monkeypatch):
    def fail(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(idx, "download_url", fail)


def test_torchvision_extracts_the_same_without_a_network(copy, capsys):
    for train, prefix in ((True, "train"), (False, "t10k")):
        theirs = MNIST(copy, train=train, download=True)
        ours = load_idx_resource(MNIST, copy, f"{prefix}-images-idx3-ubyte.gz")
        assert torch.equal(ours, theirs.data)
        labels = load_idx_resource(MNIST, copy, f"{prefix}-labels-idx1-ubyte.gz")
        assert torch.equal(labels.long(), theirs.targets)


def test_extracted_files_will_do(copy):
    archive = copy / "MNIST" / "raw" / LABELS
    expected = load_idx_resource(MNIST, copy, LABELS)
    archive.with_suffix("").write_bytes(gzip.decompress(archive.read_bytes()))
    archive.unlink()
    assert torch.equal(load_idx_resource(MNIST, copy, LABELS), expected)
    archive.with_suffix("").write_bytes(archive.with_suffix("").read_bytes()[:-1])
    with pytest.raises(DataError, match="is damaged: 9999 bytes"):
        load_idx_resource(MNIST, copy, LABELS)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content[:-100],
        lambda content: b"",
        lambda content: content[:2000] + bytes([content[2000] ^ 1]) + content[2001:],
    ],
    ids=["truncated", "empty", "one bit"],
)
def test_a_damaged_archive_is_refused(copy, change):
    archive = copy / "MNIST" / "raw" / LABELS
    archive.write_bytes(change(archive.read_bytes()))
    with pytest.raises(DataError, match=f"{LABELS} is damaged.*git checkout"):
        load_idx_resource(MNIST, copy, LABELS)


def test_a_missing_archive_without_network(tmp_path, offline):
    with pytest.raises(DataError, match=r"not in .* cannot be downloaded .*no network.*data\.root"):
        load_idx_resource(torchvision.datasets.FashionMNIST, tmp_path, LABELS)
    assert not list(tmp_path.rglob("*"))


def test_a_missing_archive_is_downloaded_and_verified(mnist_root, tmp_path, monkeypatch):
    source = mnist_root / "MNIST" / "raw" / LABELS
    monkeypatch.setattr(
        idx, "download_url", lambda url, root, name, md5: shutil.copy(source, f"{root}/{name}")
    )
    assert len(load_idx_resource(MNIST, tmp_path, LABELS)) == 10_000
    assert [path.name for path in (tmp_path / "MNIST" / "raw").iterdir()] == [LABELS]


def test_a_folder_that_cannot_be_made(tmp_path, offline):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot be written.*data\.root"):
        load_idx_resource(MNIST, tmp_path / "file", LABELS)


@pytest.mark.parametrize("content", [b"", b"abc", bytes([0, 0, 9, 1, 0, 0, 0, 1, 5]), bytes(4)])
def test_what_is_no_idx_file_is_refused(content):
    with pytest.raises(DataError, match="labels is not an IDX file"):
        idx.read_idx(content, "labels")
