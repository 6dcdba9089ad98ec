"""Checkpoints that are either old or new, and whose damage shows."""

import io
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from kdlit.errors import DataError
from kdlit.files import write_atomically


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes each checkpoint beside its place and renames it; refuses to load a damaged one.

    Lightning's own way goes through the system's folder for temporary files, which may be another
    file system: there a rename is a copy, and a process that is killed leaves half of one. It reads
    damaged numbers as it reads others.

    >>> import lightning.pytorch as pl
    >>> trainer = pl.Trainer(plugins=[AtomicCheckpointIO()], accelerator="cpu", logger=False)
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write a checkpoint.

        Raises:
            StorageError: if it cannot be written; one that was there before is left as it was.
        """
        # In memory first: of a full disk torch has nothing to say that could be understood.
        written = io.BytesIO()
        torch.save(checkpoint, written)
        write_atomically(Path(path), lambda temporary: temporary.write_bytes(written.getbuffer()))

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Return a checkpoint.

        Raises:
            DataError: if the file is damaged.
        """
        check_checksums(Path(path))
        try:
            return super().load_checkpoint(path, map_location or _as_it_is, weights_only)
        except RuntimeError as error:
            raise DataError(f"{path} is damaged: {error}") from error


def _as_it_is(storage: Any, location: str) -> Any:
    return storage  # on the CPU, where it was read to


def check_checksums(path: Path) -> None:
    """Compare what a file of `torch.save` holds with its checksums, which torch does not look at.

    Raises:
        DataError: if it differs, or if the file is not one of `torch.save`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:  # a damaged archive makes its reader stumble in any way
        raise DataError(f"{path} is damaged or no checkpoint: {error}") from error
    if damaged is not None:
        raise DataError(f"{path} is damaged: the checksum of {damaged} is another")
