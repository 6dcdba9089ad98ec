"""What is known of an exported file."""

from dataclasses import dataclass
from typing import Literal

Takes = Literal["prepared", "uint8", "float32"]
"""Images as the network takes them, or pixels of a type, which the file prepares itself."""


@dataclass(frozen=True)
class ExportedFile:
    """One file beside the student that it was made of, as `export.json` has it.

    Attributes:
        format: `safetensors`, `onnx`, `program` or `int8`.
        file: its name.
        bytes: its size.
        takes: what it is given.
        largest_difference: of any logit from the student's, absolute.
        equal_decisions: the share of samples on which both decide alike.
        accuracy: of the file on these samples.
        accuracy_of_student: on the same samples.
        samples: test images that were compared.
        versions: of the packages that wrote it.
    """

    format: str
    file: str
    bytes: int
    takes: Takes
    largest_difference: float
    equal_decisions: float
    accuracy: float
    accuracy_of_student: float
    samples: int
    versions: dict[str, str]
