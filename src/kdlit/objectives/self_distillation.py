"""A network whose depth teaches its earlier layers."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlit import checks
from kdlit.batch import Batch, Outputs
from kdlit.errors import ConfigError
from kdlit.functional import hint_loss, soft_label_loss, truth_loss
from kdlit.functional.precision import float32_at_least
from kdlit.objectives.base import DryRun, Objective, target_of
from kdlit.objectives.layers import resized
from kdlit.taps import PENULTIMATE


class SelfDistillation(Objective):
    r"""Heads on earlier layers of the student learn from the truth and from its own decision.

    With logits q^i and features F^i of the head on layer i, and the student's own logits z and
    penultimate features F as constants:

    .. math:: \mathcal{L} = \sum_i \Bigl( (1 - \alpha) \, \mathrm{CE}(q^i, y)
        + \alpha \, T^2 \, \mathrm{KL}\bigl(\mathrm{softmax}(z/T) \,\|\, \mathrm{softmax}(q^i/T)
        \bigr) + \lambda \, \tfrac{1}{N D} \sum_n \lVert F^i_n - F_n \rVert_2^2 \Bigr)

    which are the terms `truth`, `soft` and `hint`. The student's own cross-entropy with the truth
    is the label strategy's (`TruthLabels`), and no teacher is needed. A head pools its layer to
    at most `pool` x `pool`, maps that to features of the penultimate layer's width (linear, ReLU),
    and those to classes. Heads are trained with the student and are not shipped.

    In the paper a head begins with convolutions, and its formulas have neither the factor T² nor
    the mean over features, both of which keep a term's size when T or the width is changed.

    Args:
        student_layers: the layers that get heads; maps (N, C, H, W), tokens (N, L, D) or vectors.
        temperature: T > 0. Default 3, as in the authors' code.
        alpha: weight of the student's own decision against the truth, in [0, 1]. Default 0.3, as
            in the authors' code.
        hint: lambda >= 0; 0 leaves that term out. Default 0.03, as in the authors' code, which
            sums where we average: here that is all but off, and 1 is worth trying.
        pool: side of the maps that a head sees at most. Default 4, ours.

    Raises:
        ConfigError: if a setting is out of range, no layer is named, or in `setup` if a layer
            gives something else.

    Source: Zhang et al., "Be Your Own Teacher: Improve the Performance of Convolutional Neural
    Networks via Self Distillation", 2019, section 3 (arXiv:1905.08094).

    >>> SelfDistillation(["layer1", "layer2"], hint=0.0).weights
    {'truth': 0.7, 'soft': 0.3}
    """

    needs_teacher = False

    def __init__(
        self,
        student_layers: Sequence[str] = ("block1", "block2"),
        temperature: float = 3.0,
        alpha: float = 0.3,
        hint: float = 0.03,
        pool: int = 4,
    ) -> None:
        super().__init__()
        if isinstance(student_layers, str) or not student_layers:
            raise ConfigError(
                f"`student_layers` must be a list of one layer or more, got {student_layers!r}"
            )
        self.layers = tuple(student_layers)
        self.student_layers = (*self.layers, PENULTIMATE)
        self.temperature = checks.positive("temperature", temperature)
        self.pool = checks.integer("pool", pool)
        alpha = checks.fraction("alpha", alpha)
        weights = {"truth": 1 - alpha, "soft": alpha, "hint": checks.non_negative("hint", hint)}
        self.weights = {name: weight for name, weight in weights.items() if weight > 0}

    def setup(self, run: DryRun) -> None:
        """Make the heads."""
        width = run.student.features[PENULTIMATE].shape[-1]
        classes = run.student.logits.shape[-1]
        self.heads = nn.ModuleList(
            Head(run.student.features[layer], width, classes, self.pool) for layer in self.layers
        )

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return the terms that have a weight, each summed over the heads."""
        found = [
            head(student.features[layer])
            for layer, head in zip(self.layers, self.heads, strict=True)
        ]
        terms: dict[str, list[Tensor]] = {}
        if "truth" in self.weights:
            target = target_of(batch)
            terms["truth"] = [truth_loss(logits, target) for _, logits in found]
        if "soft" in self.weights:
            deepest = student.logits.detach()
            terms["soft"] = [
                soft_label_loss(logits, deepest, self.temperature) for _, logits in found
            ]
        if "hint" in self.weights:
            features = student.features[PENULTIMATE].detach()
            terms["hint"] = [hint_loss(hidden, features) for hidden, _ in found]
        return {name: torch.stack(values).sum() for name, values in terms.items()}

    def extra_repr(self) -> str:
        """Show the layers and weights."""
        weights = ", ".join(f"{name}={weight:g}" for name, weight in self.weights.items())
        return f"student_layers={self.layers}, temperature={self.temperature:g}, {weights}"


class Head(nn.Module):
    """Pooling, a hidden layer, and a classifier, on one layer of a network.

    Args:
        example: what the layer gives, for its shape.
        width: of the hidden layer.
        classes: C.
        pool: side of the pooled maps, at most.

    Raises:
        ConfigError: if the layer gives neither vectors, tokens nor maps.

    >>> hidden, logits = Head(torch.zeros(1, 8, 7, 7), width=16, classes=3)(torch.zeros(5, 8, 7, 7))
    >>> hidden.shape, logits.shape
    (torch.Size([5, 16]), torch.Size([5, 3]))
    """

    def __init__(self, example: Tensor, width: int, classes: int, pool: int = 4) -> None:
        super().__init__()
        if example.ndim not in (2, 3, 4):
            raise ConfigError(
                "a head needs a layer that gives vectors (N, D), tokens (N, L, D) or maps "
                f"(N, C, H, W), got {tuple(example.shape)}"
            )
        self.size = tuple(min(pool, side) for side in example.shape[2:])
        self.hidden = nn.Linear(self._pooled(example).shape[1], width)
        self.classifier = nn.Linear(width, classes)

    def _pooled(self, features: Tensor) -> Tensor:
        if features.ndim == 4:
            return resized(features, (self.size[0], self.size[1])).flatten(1)
        return features.mean(dim=1) if features.ndim == 3 else features

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the hidden features and the logits, in float32 at least."""
        pooled = self._pooled(features.to(self.hidden.weight.dtype))
        hidden = F.relu(self.hidden(pooled))
        return float32_at_least(hidden), float32_at_least(self.classifier(hidden))
