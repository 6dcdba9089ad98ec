"""The formats: how each is written, read again as a user would, and what is asked of it."""

import copy
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.export import ExportedProgram

from kdlit.checks import did_you_mean
from kdlit.errors import ConfigError
from kdlit.export.check import Comparison, of_network, require_accuracy, require_equal
from kdlit.export.files import Takes
from kdlit.export.graph import Deployed, traced
from kdlit.export.int8 import write_int8
from kdlit.export.onnx import read_onnx, to_onnx
from kdlit.export.program import read_program, write_program
from kdlit.loading import STUDENT_FILE, StudentCard, load_student, network_of
from kdlit.weights import save_weights

_EXAMPLES = 3
"""Samples that a network is traced with; one might be taken for a constant."""


@dataclass(frozen=True)
class Student:
    """What is exported, and the images that it is compared on.

    Attributes:
        network: in evaluation mode, on the CPU.
        metadata: what its file says of it.
        images: test images as the network takes them, (N, ...).
        pixels: the same as the files take them that prepare images themselves; None: no file does.
        calibration: returns training images as the files take them.
    """

    network: nn.Module
    metadata: Mapping[str, Any]
    images: Tensor
    pixels: Tensor | None
    calibration: Callable[[], Tensor]

    @cached_property
    def card(self) -> StudentCard:
        """The metadata, taken apart."""
        return StudentCard.of(self.metadata)

    @property
    def given(self) -> Tensor:
        """Test images as a graph takes them."""
        return self.images if self.pixels is None else self.pixels

    @cached_property
    def program(self) -> ExportedProgram:
        """The network traced, behind its preprocessing if the files do that."""
        deployed = Deployed(self.network, None if self.pixels is None else self.card.input)
        return traced(deployed, self.given[:_EXAMPLES])

    @cached_property
    def onnx(self) -> bytes:
        """The program as ONNX."""
        return to_onnx(self.program)


class Format(ABC):
    """One format.

    Attributes:
        name: in `formats=[...]`.
        file: the file's name.
        needs: packages that do not come with kdlit.
    """

    name: str
    file: str
    needs: tuple[str, ...] = ()

    @abstractmethod
    def write(self, student: Student, path: Path) -> None:
        """Write the file."""

    @abstractmethod
    def read(self, student: Student, path: Path) -> Callable[[Tensor], Tensor]:
        """Read it as a user would; returns what maps a batch to its logits."""

    def takes(self, student: Student) -> tuple[Takes, Tensor]:
        """Return what the file is given, in a word and the test images as such."""
        if student.pixels is None:
            return "prepared", student.images
        return "uint8" if student.pixels.dtype.itemsize == 1 else "float32", student.pixels

    def require(self, found: Comparison, tolerance: float, int8_tolerance: float) -> None:
        """Raise an ExportError if the file is not good enough."""
        require_equal(found, tolerance)


class _Safetensors(Format):
    name, file = "safetensors", STUDENT_FILE

    def write(self, student: Student, path: Path) -> None:
        save_weights(path, student.network, student.metadata)

    def read(self, student: Student, path: Path) -> Callable[[Tensor], Tensor]:
        try:
            network_of(student.card)
        except ConfigError:  # the file may not name it: a user hands the network over
            return of_network(load_student(path, network=_emptied(student.network)))
        return of_network(load_student(path))

    def takes(self, student: Student) -> tuple[Takes, Tensor]:
        return "prepared", student.images


class _Onnx(Format):
    name, file = "onnx", "student.onnx"
    needs = ("onnx", "onnxscript", "onnxruntime")

    def write(self, student: Student, path: Path) -> None:
        path.write_bytes(student.onnx)

    def read(self, student: Student, path: Path) -> Callable[[Tensor], Tensor]:
        return read_onnx(path)


class _Program(Format):
    name, file = "program", "student.pt2"

    def write(self, student: Student, path: Path) -> None:
        write_program(student.program, path)

    def read(self, student: Student, path: Path) -> Callable[[Tensor], Tensor]:
        return read_program(path)


class _Int8(_Onnx):
    name, file = "int8", "student.int8.onnx"

    def write(self, student: Student, path: Path) -> None:
        source = path.with_name("float32.onnx")
        source.write_bytes(student.onnx)
        write_int8(source, path, student.calibration())
        source.unlink()

    def require(self, found: Comparison, tolerance: float, int8_tolerance: float) -> None:
        require_accuracy(found, int8_tolerance)


FORMATS: Mapping[str, Format] = {
    kind.name: kind for kind in (_Safetensors(), _Onnx(), _Program(), _Int8())
}


def formats_of(names: Sequence[str]) -> list[Format]:
    """Return the formats of these names, each once.

    Raises:
        ConfigError: if there is none of a name, or if packages that it needs are not installed.

    >>> [found.file for found in formats_of(["program", "safetensors"])]
    ['student.pt2', 'student.safetensors']
    """
    if isinstance(names, str) or not names:
        raise ConfigError(f"formats={names}: it must be a list of one format or more")
    found = []
    for name in dict.fromkeys(map(str, names)):
        if name not in FORMATS:
            raise ConfigError(f"formats: there is no {name}: {did_you_mean(name, FORMATS)}")
        missing = [p for p in FORMATS[name].needs if importlib.util.find_spec(p) is None]
        if missing:
            verb = "are" if len(missing) > 1 else "is"
            raise ConfigError(
                f"formats: {name} needs {', '.join(missing)}, which {verb} not installed: it comes "
                'with pip install "kdlit[export]"'
            )
        found.append(FORMATS[name])
    return found


def _emptied(network: nn.Module) -> nn.Module:
    """Return a copy that has none of the weights, so that they must come from a file."""
    emptied = copy.deepcopy(network)
    for tensor in emptied.state_dict().values():
        tensor.zero_()
    return emptied
