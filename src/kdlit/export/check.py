"""Whether a file answers as the student does, on real images and batches of several sizes."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdlit.batch import Outputs
from kdlit.errors import ExportError

BATCH_SIZES = (1, 7, 64)
"""The sizes of the first batches; those that follow have `REST`."""
REST = 500


@dataclass(frozen=True)
class Comparison:
    """A file beside the student it was made of.

    Attributes:
        largest_difference: of any logit, absolute.
        equal_decisions: the share of samples on which both decide alike.
        accuracy: of the file.
        accuracy_of_student: of the student on the same samples.
        largest_logit: of the student, absolute.
        samples: how many were compared.
    """

    largest_difference: float
    equal_decisions: float
    accuracy: float
    accuracy_of_student: float
    largest_logit: float
    samples: int


def in_batches(count: int) -> list[Tensor]:
    """Return positions of `count` samples in batches of 1, 7, 64 and then 500.

    Fewer samples than the first batches have are repeated.

    >>> [len(part) for part in in_batches(1000)]
    [1, 7, 64, 500, 428]
    >>> [len(part) for part in in_batches(10)]
    [1, 7, 64]
    """
    first = sum(BATCH_SIZES)
    positions = torch.arange(max(count, first)) % count
    rest = torch.split(positions[first:], REST) if count > first else ()
    return [*torch.split(positions[:first], list(BATCH_SIZES)), *rest]


def answers(run: Callable[[Tensor], Tensor], inputs: Tensor, parts: Iterable[Tensor]) -> Tensor:
    """Return the logits (N, C) of samples that are asked in these batches.

    Raises:
        ExportError: if a batch is refused, or answered in another shape.
    """
    found = []
    for part in parts:
        try:
            logits = run(inputs[part])
        except Exception as error:  # each runtime has its own types
            raise ExportError(f"a batch of {len(part)} is refused: {error}") from error
        if logits.ndim != 2 or len(logits) != len(part):
            raise ExportError(f"a batch of {len(part)} is answered by {tuple(logits.shape)}")
        found.append(logits.float())
    return torch.cat(found)


def of_network(network: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return what maps a batch to a network's logits, without gradients."""

    def run(images: Tensor) -> Tensor:
        with torch.no_grad():
            return Outputs.of(network(images)).logits

    return run


class Reference:
    """What the student says of test images, for files to be compared with.

    Args:
        student: in evaluation mode.
        images: prepared as the student takes them, (N, ...).
        target: the classes, (N,).

    >>> images, target = torch.eye(3), torch.arange(3)
    >>> reference = Reference(nn.Flatten(), images, target)
    >>> found = reference.compare(lambda images: images + 0.5, images)
    >>> found.largest_difference, found.equal_decisions, found.accuracy, found.samples
    (0.5, 1.0, 1.0, 3)
    """

    def __init__(self, student: nn.Module, images: Tensor, target: Tensor) -> None:
        self.parts = in_batches(len(images))
        self.images, self.samples = images, len(images)
        self.target = target[torch.cat(self.parts)]
        self.logits = answers(of_network(student), images, self.parts)

    def compare(
        self,
        run: Callable[[Tensor], Tensor],
        inputs: Tensor,
        parts: Iterable[Tensor] | None = None,
    ) -> Comparison:
        """Ask a file about the same samples, `inputs` as it takes them.

        Args:
            run: maps a batch of them to logits.
            inputs: (N, ...), in the order of the images.
            parts: `self.parts`, perhaps behind a progress bar.
        """
        logits = answers(run, inputs, self.parts if parts is None else parts)
        if logits.shape != self.logits.shape:
            raise ExportError(
                f"it answers {logits.shape[1]} classes and the student {self.logits.shape[1]}"
            )
        return Comparison(
            largest_difference=float((logits - self.logits).abs().max()),
            equal_decisions=self._share(logits.argmax(1) == self.logits.argmax(1)),
            accuracy=self._share(logits.argmax(1) == self.target),
            accuracy_of_student=self._share(self.logits.argmax(1) == self.target),
            largest_logit=float(self.logits.abs().max()),
            samples=self.samples,
        )

    def _share(self, hits: Tensor) -> float:
        """Return the share of samples, each counted once."""
        return float(hits[: self.samples].double().mean())


def require_equal(found: Comparison, tolerance: float) -> None:
    """Check that a file computes the same numbers, up to rounding.

    Args:
        found: the comparison.
        tolerance: how far logits may be apart, as a share of the largest logit (or of 1).

    Raises:
        ExportError: if they are further apart, or no numbers.
    """
    allowed = tolerance * max(found.largest_logit, 1.0)
    if not found.largest_difference <= allowed:
        raise ExportError(
            f"its logits differ from the student's by up to {found.largest_difference:.3g}, and "
            f"{allowed:.3g} is allowed (tolerance={tolerance:g} times the largest logit); "
            f"{100 * found.equal_decisions:.2f} % of {found.samples} decisions are equal, accuracy "
            f"{100 * found.accuracy:.2f} % where the student has "
            f"{100 * found.accuracy_of_student:.2f} %"
        )


def require_accuracy(found: Comparison, points: float) -> None:
    """Check that a file is wrong about not many more samples than the student is.

    Args:
        found: the comparison.
        points: how much lower its accuracy may be, in percentage points.

    Raises:
        ExportError: if it is lower than that.
    """
    drop = 100 * (found.accuracy_of_student - found.accuracy)
    if not drop <= points or found.largest_difference != found.largest_difference:
        raise ExportError(
            f"its accuracy is {100 * found.accuracy:.2f} % where the student has "
            f"{100 * found.accuracy_of_student:.2f} %: {drop:.2f} points less, and {points:g} are "
            f"allowed (int8_tolerance); {100 * found.equal_decisions:.2f} % of {found.samples} "
            f"decisions are equal, logits differ by up to {found.largest_difference:.3g}"
        )
