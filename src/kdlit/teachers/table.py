"""A teacher's outputs in memory-mapped files: written once, verified, found by sample and view."""

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdlit.batch import Outputs
from kdlit.errors import DataError, TeacherError
from kdlit.files import read_sealed_json, write_sealed_json

FORMAT = 1
CARD = "card.json"
_BLOCK = 1 << 20
_ON_DEVICE = 2 << 30
"""Tables of up to this many bytes are held on an accelerator, where a step waits for nothing."""


class TableWriter:
    """Writes a table's arrays, which several processes may fill at once.

    One process makes the files with `create`; the others see them with `create=False`. Nobody else
    does before :meth:`finish`, which writes the card and renames the folder into place.

    Args:
        folder: where the arrays lie until they are finished; beside the final place.
        index: the samples' numbers, ascending, shape (N,); or `range(N)`, of which nothing is kept.
        views: V.
        example: outputs of some samples, for their shapes.
        dtype: of logits and features: `float32` or `float16`.
        top_k: keep the k likeliest classes alone, and the mass of the rest; None keeps all logits.
        create: make the files.

    Raises:
        TeacherError: if there is no room for them.
    """

    def __init__(
        self,
        folder: Path,
        index: Tensor | range,
        views: int,
        example: Outputs,
        dtype: str,
        top_k: int | None,
        *,
        create: bool,
    ) -> None:
        self.folder, self.index, self.views, self.top_k = folder, index, views, top_k
        self.classes = example.logits.shape[-1]
        shapes = {
            name: (values.dtype, (views, len(index), *values.shape[1:]))
            for name, values in _columns(example, dtype, top_k).items()
        }
        self.dtype = dtype
        self._files = {name: f"{number}.npy" for number, name in enumerate(shapes)}
        self._arrays = {
            name: self._open(folder / self._files[name], dtype_, shape, create=create)
            for name, (dtype_, shape) in shapes.items()
        }
        if isinstance(index, Tensor):
            self._files["index"] = "index.npy"
            if create:
                np.save(folder / "index.npy", index.numpy())

    @staticmethod
    def _open(path: Path, dtype: torch.dtype, shape: tuple[int, ...], *, create: bool) -> Any:
        if not create:
            return np.lib.format.open_memmap(path, mode="r+")
        kind = torch.empty(0, dtype=dtype).numpy().dtype
        array = np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=shape)
        if hasattr(os, "posix_fallocate"):
            # A write to a mapped page for which the disk has no room kills the process.
            handle = os.open(path, os.O_RDWR)
            try:
                os.posix_fallocate(handle, 0, max(path.stat().st_size, 1))
            except OSError as error:
                megabytes = path.stat().st_size / 1e6
                raise TeacherError(
                    f"{path.parent.parent.parent} has no room for {megabytes:.0f} MB of a "
                    f"teacher's outputs ({error.strerror}): keep less with cache.dtype=float16 or "
                    "cache.top_k, or train with cache=none"
                ) from error
            finally:
                os.close(handle)
        return array

    def write(self, view: int, start: int, outputs: Outputs) -> None:
        """Write the outputs of the samples from position `start` on.

        Raises:
            TeacherError: if a finite value is too large for the type, or if the shapes differ from
                those of other samples.
        """
        for name, values in _columns(outputs, self.dtype, self.top_k).items():
            if values.dtype == torch.float16 and torch.isinf(values).any():
                raise TeacherError(
                    f"the teacher's {name} exceed what float16 holds (65504): keep them with "
                    "cache.dtype=float32"
                )
            kept, found = self._arrays[name].shape[2:], tuple(values.shape[1:])
            if kept != found:
                raise TeacherError(
                    f"the teacher's {name} of a sample have shape {found}, and of those before "
                    f"{kept}: to be kept, samples must have one length (padding to max_length), "
                    "else give the teacher itself"
                )
            self._arrays[name][view, start : start + len(values)] = values.numpy()

    def flush(self) -> None:
        """Hand what was written to the operating system."""
        for array in self._arrays.values():
            array.flush()

    def finish(self, place: Path, key: Mapping[str, Any], seconds: float) -> None:
        """Write the card with every file's checksum, and rename the folder to `place`."""
        card = {
            "format": FORMAT,
            "key": dict(key),
            "samples": len(self.index),
            "views": self.views,
            "classes": self.classes,
            "seconds": round(seconds, 3),
            "arrays": {
                name: {"file": file, "sha256": _checksum(self.folder / file)}
                for name, file in self._files.items()
            },
        }
        write_sealed_json(self.folder / CARD, card)
        if place.is_dir():
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)
        os.replace(self.folder, place)


class Table:
    """The outputs that a :class:`TableWriter` wrote, as a teacher's answer to sample numbers.

    Args:
        place: the folder.
        key: what it must have been made from.

    Raises:
        DataError: if there is none, or if it is not what it should be, with the reason.
    """

    def __init__(self, place: Path, key: Mapping[str, Any]) -> None:
        self.place = place
        try:
            self.card = read_sealed_json(place / CARD)
            if self.card["format"] != FORMAT:
                raise DataError(f"its format is {self.card['format']}, not {FORMAT}")
            differ = [name for name in key if self.card["key"].get(name) != key[name]]
            if differ or len(self.card["key"]) != len(key):
                raise DataError(f"it was made with another {', '.join(differ) or 'key'}")
            self._arrays = {
                str(name): self._load(entry) for name, entry in self.card["arrays"].items()
            }
            # There is none where each sample's number is its position.
            self.index = self._arrays.pop("index", None)
            self.samples, self.views = int(self.card["samples"]), int(self.card["views"])
            self.classes = int(self.card["classes"])
            shapes = {array.shape[:2] for array in self._arrays.values()}
            counts = {self.samples if self.index is None else len(self.index)}
            if shapes != {(self.views, self.samples)} or counts != {self.samples}:
                raise DataError(f"its arrays have shapes {sorted(shapes)}")
        except DataError as error:
            raise DataError(f"{place}: {error}") from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{place} cannot be read: {type(error).__name__}: {error}") from error
        # One row for each view of each sample.
        self._rows = {name: array.flatten(0, 1) for name, array in self._arrays.items()}
        self._is_range = self.index is None or bool(
            self.index[0] == 0 and self.index[-1] == self.samples - 1
        )
        self.device = torch.device("cpu")

    def _load(self, entry: Mapping[str, str]) -> Tensor:
        path = self.place / Path(entry["file"]).name
        if _checksum(path) != entry["sha256"]:
            raise DataError(f"{path.name} is damaged: its checksum is another")
        # Copy on write, since torch has no tensors that are only read; nothing is written.
        return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))

    @property
    def bytes(self) -> int:
        """The size of its arrays."""
        return sum(array.nbytes for array in self._arrays.values())

    def to(self, device: torch.device) -> None:
        """Hold the outputs on a device, if they are not too many for it."""
        if device.type != "cpu" and self.bytes <= _ON_DEVICE:
            self._rows = {name: rows.to(device) for name, rows in self._rows.items()}
            self.device = device
            if self.index is not None:
                self.index = self.index.to(device)

    def outputs(self, index: Tensor, view: int) -> Outputs:
        """Return the outputs for sample numbers (N,), on the device where these lie.

        Raises:
            TeacherError: if a sample is not in the table; on an accelerator, where asking would
                make the step wait, all that is said of it is NaN instead.
        """
        target, numbers = index.device, index.to(self.device, torch.int64)
        if self.index is None or self._is_range:
            rows = numbers.clamp(0, self.samples - 1)
            missing = rows != numbers
        else:
            rows = torch.searchsorted(self.index, numbers).clamp(max=self.samples - 1)
            missing = self.index[rows] != numbers
        if self.device.type == "cpu" and missing.any():
            raise TeacherError(
                f"{self.place} has no outputs for sample {int(numbers[missing][0])}: the data are "
                "not those it was made from"
            )
        rows = rows + (view % self.views) * self.samples
        found = {name: values[rows].to(target) for name, values in self._rows.items()}
        if self.device.type != "cpu":
            gone = missing.to(target)
            found = {
                name: values.masked_fill(gone.view(-1, *[1] * (values.ndim - 1)), torch.nan)
                if values.is_floating_point()
                else values
                for name, values in found.items()
            }
        logits = self._logits(found).float()
        features = {
            name.removeprefix("feature."): values.float()
            for name, values in found.items()
            if name.startswith("feature.")
        }
        return Outputs(logits, features)

    def _logits(self, found: Mapping[str, Tensor]) -> Tensor:
        if "logits" in found:
            return found["logits"]
        classes, values = found["top_classes"], found["top_values"].float()
        others = self.classes - classes.shape[-1]
        rest = found["rest"].float() - (np.log(others) if others else 0.0)
        logits = rest[..., None].repeat_interleave(self.classes, dim=-1)
        return logits.scatter_(-1, classes.long(), values)


def _columns(outputs: Outputs, dtype: str, top_k: int | None) -> dict[str, Tensor]:
    """Return what is kept of outputs, on the CPU, by the name of its array."""
    kept = getattr(torch, dtype)
    logits = outputs.logits.detach().cpu().float()
    features = {
        f"feature.{name}": values.detach().cpu().to(kept)
        for name, values in outputs.features.items()
    }
    if top_k is None or top_k >= logits.shape[-1]:
        return {"logits": logits.to(kept), **features}
    found = torch.log_softmax(logits, dim=-1)
    values, classes = found.topk(top_k, dim=-1)
    # In log space: one minus the sum of the largest would have no digits left.
    rest = found.scatter(-1, classes, -torch.inf).logsumexp(dim=-1)
    return {
        "top_values": values.to(kept),
        "top_classes": classes.to(torch.int32),
        "rest": rest,
        **features,
    }


def _checksum(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
