"""A student from its file alone: the network, and what is known of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from kdlit.allowlist import build_network
from kdlit.errors import ConfigError
from kdlit.weights import load_weights, read_metadata

STUDENT_FILE = "student.safetensors"
"""A student's weights in a run's directory, and in what is exported of it."""


@dataclass(frozen=True)
class Preprocessing:
    r"""What is done to pixels before a network sees them.

    .. math:: x = \frac{p - s\,\mu}{s\,\sigma}

    Attributes:
        shape: of one sample, such as (1, 28, 28).
        mean: mu, one number or one for each channel.
        std: sigma, likewise.
        scale: s, the largest value of a pixel.

    >>> preprocessing = Preprocessing((1, 1, 2), mean=0.5, std=0.25, scale=255)
    >>> preprocessing(torch.tensor([[[[0, 255]]]], dtype=torch.uint8))
    tensor([[[[-2.,  2.]]]])
    """

    shape: tuple[int, ...]
    mean: float | tuple[float, ...]
    std: float | tuple[float, ...]
    scale: float

    def __call__(self, pixels: Tensor) -> Tensor:
        """Map pixels (N, *shape) of any type to float32."""
        offset, divisor = (part.to(pixels.device) for part in self.constants())
        return (pixels.to(torch.float32) - offset) / divisor

    def constants(self) -> tuple[Tensor, Tensor]:
        """Return s mu and s sigma: float32, of shape () or (C, 1, ...)."""
        trailing = (1,) * (len(self.shape) - 1)
        scaled = [
            torch.tensor(part, dtype=torch.float64) * self.scale for part in (self.mean, self.std)
        ]
        offset, divisor = (
            (part.reshape(-1, *trailing) if part.ndim else part).to(torch.float32)
            for part in scaled
        )
        return offset, divisor


@dataclass(frozen=True)
class StudentCard:
    """What a student's file says of it.

    Attributes:
        network: the configuration of the network, with its `_target_`.
        rebuilt_by: the objective that has changed the network since it was made from that (SimKD),
            or None.
        input: what is done to pixels; None where the data did not say.
        classes: the names of the classes, in order of the logits.
        label: the configuration of the label strategy.
        feature: those of the feature objectives, by name.
        teacher: type, parameters, images and test metrics of the teacher; None without one.
        test: metrics of the student on the test set: fractions and nats.
        versions: of the packages that it was trained with.
    """

    network: Mapping[str, Any]
    rebuilt_by: str | None = None
    input: Preprocessing | None = None
    classes: tuple[str, ...] = ()
    label: Mapping[str, Any] = field(default_factory=dict)
    feature: Mapping[str, Any] = field(default_factory=dict)
    teacher: Mapping[str, Any] | None = None
    test: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> "StudentCard":
        """Take apart the metadata of a file; what is not there keeps its default.

        Raises:
            ConfigError: if an entry has another form.

        >>> StudentCard.of({"student": {"_target_": "kdlit.models.MLP"}}).network
        {'_target_': 'kdlit.models.MLP'}
        """
        try:
            known = {
                name: metadata[name]
                for name in ("rebuilt_by", "label", "feature", "teacher", "test", "versions")
                if name in metadata
            }
            given = metadata.get("input")
            return cls(
                network=metadata.get("student") or {},
                classes=tuple(str(name) for name in metadata.get("classes") or ()),
                input=None if given is None else Preprocessing(
                    shape=tuple(given["shape"]),
                    mean=_numbers(given["mean"]),
                    std=_numbers(given["std"]),
                    scale=float(given["scale"]),
                ),
                **known,
            )  # fmt: skip
        except (TypeError, KeyError, ValueError) as error:
            raise ConfigError(
                f"the metadata have another form: {type(error).__name__}: {error}"
            ) from error


def _numbers(value: Any) -> float | tuple[float, ...]:
    return tuple(map(float, value)) if isinstance(value, list) else float(value)


def student_file(path: str | Path) -> Path:
    """Return the file of a student: itself, or that in a run's or an export's directory.

    Raises:
        ConfigError: if there is none.
    """
    path = Path(path)
    found = path / STUDENT_FILE if path.is_dir() else path
    if not found.is_file():
        raise ConfigError(f"there is no file {found}")
    if found.suffix != ".safetensors":
        raise ConfigError(
            f"{found} is no .safetensors file; kdlit.load_weights reads other files into a network"
        )
    return found


def read_card(path: str | Path) -> StudentCard:
    """Return what a student's file says of it: network, preprocessing, classes, metrics, teacher.

    Args:
        path: a run's directory, an export's, or a .safetensors file.

    Raises:
        ConfigError: if there is no such file, or if it cannot be read.
    """
    file = student_file(path)
    try:
        return StudentCard.of(read_metadata(file))
    except (SafetensorError, ValueError, OSError, RecursionError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from error


def network_of(card: StudentCard) -> nn.Module:
    """Make the network that a card describes, with any weights.

    Raises:
        ConfigError: if that is not possible, with the way out.
    """
    if card.rebuilt_by is not None:
        raise ConfigError(
            f"{card.rebuilt_by} has put parts of its teacher into this student, which the file "
            "does not describe: load student.pt2 with torch.export.load (python scripts/export.py "
            f"writes it), or put the student together with kdlit.objectives.{card.rebuilt_by}"
            ".rebuild and pass it as `network=`"
        )
    return build_network(card.network)


def load_student(path: str | Path, network: nn.Module | None = None) -> nn.Module:
    """Return a student with its weights, in evaluation mode, from its file alone.

    Nothing is unpickled, and of what the file names only networks that are known to be harmless
    are made; see :func:`kdlit.allowlist.build_network`. Lightning and Hydra are not needed.

    Args:
        path: a run's directory, an export's, or a .safetensors file.
        network: a network of the student's kind to load the weights into, in place, where the file
            may not name it; any weights.

    Raises:
        ConfigError: if the file cannot be read, names no network that may be made, or holds the
            weights of another.

    >>> import tempfile, kdlit
    >>> from kdlit.models import MLP
    >>> node = {"_target_": "kdlit.models.MLP", "widths": [16]}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "student.safetensors"
    ...     kdlit.save_weights(file, MLP(widths=[16]), {"student": node})
    ...     student = load_student(folder)
    >>> type(student).__name__, student.training
    ('MLP', False)
    """
    file = student_file(path)
    if network is None:
        card = read_card(file)
        try:
            network = network_of(card)
        except ConfigError as error:
            raise ConfigError(f"{file}: {error}") from error
    load_weights(network, file)
    return network.eval()
