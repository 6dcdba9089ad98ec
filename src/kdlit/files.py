"""Files that are either old or new, never half-written, and fingerprints of what is in them."""

import errno
import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdlit.errors import StorageError

_SEAL = "sha256"
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}


def is_storage(error: BaseException | None) -> bool:
    """Return whether an error says that there is no room, or a file system that is only read."""
    return isinstance(error, OSError) and error.errno in {*_NO_ROOM, errno.EROFS}


@contextmanager
def writing(place: Path, *, only_storage: bool = False) -> Iterator[None]:
    """Name the place in the error of what cannot be written there.

    Args:
        place: the file, or the folder.
        only_storage: leave alone what :func:`is_storage` does not know: where other files are
            read meanwhile.

    Raises:
        StorageError: for an `OSError`.
    """
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        if only_storage and not is_storage(error):
            raise
        told = error.strerror or str(error)
        way_out = ": make room there" if error.errno in _NO_ROOM else ""
        raise StorageError(f"{place} cannot be written: {told}{way_out}") from error


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` with a temporary path beside `path`, then rename the file into place.

    A reader sees the old file or the new one, also after a power cut. If `write` fails, nothing is
    left behind; of a process that is killed, :func:`remove_unfinished` removes what is.

    Raises:
        StorageError: if it cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        os.close(handle)
        temporary = Path(name)
        try:
            write(temporary)
            temporary.chmod(0o666 & ~_umask())
            _to_disk(temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        with suppress(OSError):  # not all systems let a folder be opened
            _to_disk(path.parent)


def remove_unfinished(folder: Path, name: str | None = None) -> None:
    """Remove what killed processes have left of files that they were writing.

    Call it where no other process can be writing them.

    Args:
        folder: where :func:`write_atomically` writes.
        name: of the file; None for all.
    """
    pattern = "*" if name is None else glob.escape(name)
    for left in folder.glob(f".{pattern}.????????.tmp"):
        left.unlink(missing_ok=True)


def _to_disk(path: Path) -> None:
    """Have what was written to a file, or the names in a folder, survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def is_writable(folder: Path) -> bool:
    """Return whether files can be put into a folder that is there, or that would be made.

    >>> is_writable(Path(__file__) / "below a file")
    False
    """
    there = _nearest(folder)
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def room_in(folder: Path) -> int:
    """Return how many bytes are free in a folder that is there, or that would be made.

    >>> room_in(Path(__file__).parent / "not there") > 0
    True
    """
    return shutil.disk_usage(_nearest(folder)).free


def _nearest(folder: Path) -> Path:
    return next(place for place in (folder, *folder.absolute().parents) if place.exists())


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically; NaN is refused, since JSON has none."""
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_sealed_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a mapping as :func:`write_json` does, with a checksum of it as its last entry."""
    write_json(path, {**value, _SEAL: _checksum(value)})


def read_sealed_json(path: Path) -> dict[str, Any]:
    """Return what :func:`write_sealed_json` wrote, without the checksum.

    A file that never had one is taken as it is.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is damaged, or no mapping.
    """
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError("it is no mapping")
    last = next(reversed(value), "")
    # Whatever its name: that may be what is damaged.
    if isinstance(value.get(last), str) and len(value[last]) == len(_checksum({})):
        seal = value.pop(last)
        if last != _SEAL or seal != _checksum(value):
            raise ValueError("it is damaged: its checksum is another")
    return value


def _checksum(value: Mapping[str, Any]) -> str:
    # As JSON gives it back: keys are texts, and tuples are lists.
    text = json.dumps(json.loads(json.dumps(value)), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def fingerprint(value: Any) -> str:
    """Return 12 hexadecimal digits that stand for a JSON-like value.

    >>> fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def state_fingerprint(state: Mapping[str, Tensor]) -> str:
    """Return 12 hexadecimal digits that stand for named tensors: names, types, shapes, bits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:12]
