"""Reading of the IDX files in which MNIST and its relatives are published.

The archives are read as they are: verified against their MD5 at every load and never extracted, so
that there is no second copy to be damaged, and a read-only folder will do.
"""

import gzip
import hashlib
import os
import shutil
import tempfile
import urllib.error
import zlib
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import Tensor
from torchvision.datasets.utils import download_url

from kdlit.errors import DataError
from kdlit.files import write_atomically

_UNSIGNED_BYTE = 0x08


def read_idx(content: bytes, name: str) -> Tensor:
    """Return the uint8 array in an IDX file's content.

    Raises:
        DataError: if the content is not an IDX file of unsigned bytes, or too short or too long.

    >>> read_idx(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 9]), "labels").tolist()
    [7, 9]
    """
    rank = content[3] if len(content) >= 4 else 0
    if content[:3] != bytes([0, 0, _UNSIGNED_BYTE]) or len(content) < 4 + 4 * rank or not rank:
        raise DataError(f"{name} is not an IDX file of unsigned bytes")
    shape = tuple(np.frombuffer(content, ">u4", count=rank, offset=4).astype(int))
    size = len(content) - 4 - 4 * rank
    if size != np.prod(shape):
        raise DataError(f"{name} is damaged: {size} bytes of data where {shape} are announced")
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)
    return torch.from_numpy(values.copy())


def has_idx_resource(source: type[torchvision.datasets.MNIST], root: Path, name: str) -> bool:
    """Return whether :func:`load_idx_resource` need not download an archive."""
    archive = root / source.__name__ / "raw" / name
    return archive.exists() or archive.with_suffix("").exists()


def load_idx_resource(source: type[torchvision.datasets.MNIST], root: Path, name: str) -> Tensor:
    """Return one of a data set's arrays, downloading its archive if it is not there.

    Looks in `root/<data set>/raw` for the original archive, whose MD5 must be torchvision's, then
    for the extracted file.

    Args:
        source: torchvision's class of the data set, which knows its mirrors and checksums.
        root: the folder that holds the data set's folder.
        name: the archive, such as `train-images-idx3-ubyte.gz`.

    Raises:
        DataError: if the file is damaged, or is missing and cannot be downloaded.
    """
    folder = root / source.__name__ / "raw"
    archive, extracted = folder / name, folder / name.removesuffix(".gz")
    checksum = dict(source.resources)[name]
    try:
        if not archive.exists() and extracted.exists():
            return read_idx(extracted.read_bytes(), str(extracted))
        if not archive.exists():
            _download(source, archive, checksum)
        packed = archive.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {archive}: {error.strerror or error}") from error
    if hashlib.md5(packed, usedforsecurity=False).hexdigest() != checksum:
        raise DataError(
            f"{archive} is damaged: its MD5 is not {checksum}. Delete it and restore it "
            f"(`git checkout` brings back MNIST's), or let it be downloaded again"
        )
    try:
        return read_idx(gzip.decompress(packed), str(archive))
    except (OSError, EOFError, zlib.error) as error:  # pragma: no cover - the MD5 was right
        raise DataError(f"{archive} cannot be decompressed: {error}") from error


def _download(source: type[torchvision.datasets.MNIST], archive: Path, checksum: str) -> None:
    """Download to a temporary folder; the data set's own is made only once the file is right."""
    nearest = next(parent for parent in archive.resolve().parents if parent.exists())
    if not (nearest.is_dir() and os.access(nearest, os.W_OK)):
        raise DataError(
            f"{archive.name} is not in {archive.parent}, and it cannot be downloaded there, since "
            f"{nearest} cannot be written. Set data.root to a folder that can"
        )
    failures = []
    with tempfile.TemporaryDirectory() as folder:
        for mirror in source.mirrors:
            try:
                download_url(mirror + archive.name, folder, archive.name, md5=checksum)
            except (urllib.error.URLError, RuntimeError, OSError) as error:
                failures.append(str(error))
                continue
            write_atomically(archive, lambda path: shutil.copy(Path(folder, archive.name), path))
            return
    raise DataError(
        f"{archive.name} is not in {archive.parent} and cannot be downloaded "
        f"({'; '.join(failures)}). Put the file there, or set data.root to a folder that has it"
    )
