"""Dark knowledge: what a teacher's soft labels say beside the decision, and where it is unsure."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kdlit.batch import probabilities
from kdlit.errors import ConfigError
from kdlit.functional.temperature import softened
from kdlit.report.charts import Cells, heat_map
from kdlit.report.content import Bar, Block, Figure, Gallery, Sample, Section, Table, Text

TEMPERATURES = (1.0, 4.0, 20.0)
ANCHOR, TITLE = "knowledge", "Dark knowledge"
_MOST_CLASSES = 30
_MOST_SAMPLES = 10
_BARS = 3


@dataclass(frozen=True)
class Seen:
    """What teacher and student of one run say of the test set.

    Attributes:
        images: shape (N, H, W) or (N, C, H, W), any range; of more than one channel the first three
            are shown if there are so many, else the first.
        target: class indices, shape (N,).
        teacher: logits, shape (N, C).
        student: logits, shape (N, C).
        classes: the names of the classes.
        setting: the name of the student's setting.
        seed: the run's seed.
    """

    images: Tensor
    target: Tensor
    teacher: Tensor
    student: Tensor
    classes: Sequence[str]
    setting: str
    seed: int


def mean_soft_labels(logits: Tensor, target: Tensor, temperature: float) -> Tensor:
    r"""Return the mean soft label of each true class, shape (C, C); NaN for a class not there.

    .. math:: M_{kc} = \frac1{|\{n : y_n = k\}|} \sum_{n : y_n = k} \mathrm{softmax}(t_n / T)_c

    Args:
        logits: t, shape (N, C).
        target: y, shape (N,).
        temperature: T > 0.

    >>> found = mean_soft_labels(torch.tensor([[0.0, 0.0], [9.0, 0.0]]), torch.tensor([1, 1]), 1.0)
    >>> [[round(value, 3) for value in row] for row in found.tolist()]
    [[nan, nan], [0.75, 0.25]]
    """
    soft = softened(logits, temperature).exp()
    return torch.stack([soft[target == k].mean(dim=0) for k in range(logits.shape[-1])])


def entropy(logits: Tensor) -> Tensor:
    """Return the entropy of softmax(logits), in nats, shape (N,).

    >>> round(entropy(torch.zeros(1, 2)).item(), 4)
    0.6931
    """
    log_p = softened(logits)
    return -(log_p.exp() * log_p).sum(dim=-1)


def section(seen: Seen) -> Section:
    """Show the mean soft labels, the samples the teacher is least sure of, and disagreements."""
    blocks: list[Block] = [
        Text(
            f"Of the teacher and the student of {seen.setting}, the best setting with a teacher "
            f"that is there: seed {seen.seed}, {len(seen.target):,} test samples."
        )
    ]
    if len(seen.classes) <= _MOST_CLASSES:
        blocks.append(_matrices(seen))
    else:
        blocks.append(Text(f"{len(seen.classes)} classes are too many for a matrix."))
    unsure = entropy(seen.teacher).argsort(descending=True, stable=True)[:_MOST_SAMPLES]
    blocks.append(
        Gallery(
            "The samples of which the teacher is least sure (highest entropy first)",
            [_sample(seen, int(place)) for place in unsure],
        )
    )
    ours, theirs = probabilities(seen.student), probabilities(seen.teacher)
    apart = torch.nonzero(ours.argmax(dim=1) != theirs.argmax(dim=1)).flatten()
    order = ours[apart].amax(dim=1).argsort(descending=True, stable=True)
    told = (
        f"Teacher and student decide differently on {len(apart):,} of {len(seen.target):,} samples"
    )
    if len(apart):
        right = seen.target[apart]
        told += (
            f"; the teacher is right on {int((theirs[apart].argmax(dim=1) == right).sum()):,} of "
            f"them, the student on {int((ours[apart].argmax(dim=1) == right).sum()):,}"
        )
    blocks.append(Text(told + "."))
    if len(apart):
        blocks.append(
            Gallery(
                "Where teacher and student disagree (the student's surest first)",
                [_sample(seen, int(apart[place])) for place in order[:_MOST_SAMPLES]],
            )
        )
    return Section(ANCHOR, TITLE, blocks)


def missing(reason: str) -> Section:
    """Say why there is nothing to show."""
    return Section(ANCHOR, TITLE, [Text(f"Left out: {reason}")])


def _matrices(seen: Seen) -> Figure:
    panels, rows = [], []
    for place, temperature in enumerate(TEMPERATURES):
        percent = 100 * mean_soft_labels(seen.teacher, seen.target, temperature)
        values = [[None if value != value else value for value in row] for row in percent.tolist()]
        beside = percent.clone().fill_diagonal_(0.0).nan_to_num(0.0)
        digits = 1 if temperature >= 4 else 2
        panels.append(
            heat_map(
                f"soft{place}",
                f"T = {temperature:g}",
                Cells(seen.classes, seen.classes, values),
                "the teacher's probability of, %",
                "true class",
                digits=digits,
                highest=max(float(beside.max()), 1e-3),
                description=f"Matrix of mean soft labels at temperature {temperature:g}; the "
                "numbers stand in the table below.",
            )
        )
        for name, row in zip(seen.classes, values, strict=True):
            rows.append(
                [f"{temperature:g}", name, *("" if v is None else f"{v:.{digits}f}" for v in row)]
            )
    caption = (
        "The teacher's mean soft label of each true class, in percent. Colours tell the classes "
        "beside the true one apart: the brightest is the largest of them, and all above it."
    )
    header = ["T", "true class", *seen.classes]
    return Figure(
        caption, panels, (), Table("Mean soft labels, %", header, rows, words=2, folded=True)
    )


def _sample(seen: Seen, place: int) -> Sample:
    def bars(logits: Tensor) -> list[Bar]:
        found = probabilities(logits[place]).topk(min(_BARS, len(seen.classes)))
        return [
            Bar(seen.classes[int(c)], float(p))
            for p, c in zip(found.values, found.indices, strict=True)
        ]

    return Sample(
        png(seen.images[place]),
        place,
        seen.classes[int(seen.target[place])],
        bars(seen.teacher),
        bars(seen.student),
    )


def png(image: Tensor) -> str:
    """Return a picture as PNG in base64, its darkest value black and its brightest white.

    Args:
        image: shape (H, W) or (C, H, W).

    Raises:
        ConfigError: if Pillow is not installed.

    >>> png(torch.rand(8, 8)).startswith("iVBOR")
    True
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ConfigError(
            'pictures need Pillow: it comes with pip install "kdlit[report]"'
        ) from error
    image = image.float()
    low, high = image.min(), image.max()
    scaled = ((image - low) / (high - low).clamp(min=1e-12) * 255).round().to(torch.uint8)
    if scaled.ndim == 3:
        scaled = scaled[:3].permute(1, 2, 0) if len(scaled) >= 3 else scaled[0]
    buffer = io.BytesIO()
    Image.fromarray(scaled.numpy()).save(buffer, format="PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
