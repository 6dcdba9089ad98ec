"""One-for-all distillation."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kdlit import checks
from kdlit.batch import Batch, Outputs
from kdlit.errors import ConfigError
from kdlit.functional import ofa_loss
from kdlit.objectives.base import DryRun, Objective, logits_of, target_of
from kdlit.objectives.parts import applied, layer_names
from kdlit.schedules import Weight, check_weight
from kdlit.taps import PENULTIMATE


class OFA(Objective):
    r"""Branches from the student's stages imitate the teacher's logits, and so does the student.

    .. math:: \mathcal{L} = w_l \, \mathrm{OFA}(z, t, y)
        + w_b \sum_i \mathrm{OFA}\bigl(b_i(s_i), t, y\bigr)

    with :func:`kdlit.functional.ofa_loss`. Logits are what networks of any two architectures have
    in common; features of a convolutional network and of a transformer are not. Branches b_i are
    trained with the student and not shipped.

    A branch of maps is separable convolutions that each halve the size, one for every stage from
    its own on, then the mean over pixels and a linear layer. One of vectors or tokens (N, L, D) has
    linear layers with layer norm and GELU instead, where the authors' has transformer blocks and
    merged patches; theirs are also as wide as the wider network's last features.

    Both terms hold the teacher's logits and the ground truth already, so that no more than
    :class:`kdlit.objectives.TruthLabels` is needed as the label strategy beside them; the authors'
    code has the cross-entropy with the ground truth there.

    Args:
        student_layers: names of the student's layers with a branch, from the first to the deepest.
        gamma: the modulating exponent, > 0. Default 1.5, as in the authors' command for ResNet-18
            taught by a transformer on ImageNet; they use 1 elsewhere.
        temperature: T > 0. Default 1, as in the authors' code.
        logits_weight: w_l of the term `logits`. Default 1, as in the authors' code.
        branches_weight: w_b of the term `branches`. Default 1, as in the authors' code.
        width: channels inside the branches, >= 1. Default 128, ours.

    Raises:
        ConfigError: if a number is out of its range or no layer is named; at set-up, if a layer
            gives neither vectors, tokens nor maps; in training, if the batch has no target.

    Source: Hao et al., "One-for-All: Bridge the Gap Between Heterogeneous Architectures in
    Knowledge Distillation", 2023, section 3 (arXiv:2310.19444).

    >>> OFA(["block1", "block2"]).weights
    {'logits': 1.0, 'branches': 1.0}
    """

    branches: nn.ModuleList

    def __init__(
        self,
        student_layers: Sequence[str] = (PENULTIMATE,),
        gamma: float = 1.5,
        temperature: float = 1.0,
        logits_weight: Weight = 1.0,
        branches_weight: Weight = 1.0,
        width: int = 128,
    ) -> None:
        super().__init__()
        self.student_layers = layer_names("student_layers", student_layers)
        self.gamma = checks.positive("gamma", gamma)
        self.temperature = checks.positive("temperature", temperature)
        self.width = checks.integer("width", width)
        self.weights = {
            "logits": check_weight("logits_weight", logits_weight),
            "branches": check_weight("branches_weight", branches_weight),
        }

    def setup(self, run: DryRun) -> None:
        """Make the branches."""
        classes, count = run.student.logits.shape[1], len(self.student_layers)
        self.branches = nn.ModuleList(
            branch(run.student.features[name], classes, self.width, blocks=count - position)
            for position, name in enumerate(self.student_layers)
        )

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return the loss of the student's logits, and the sum of the branches' losses."""
        theirs, target = logits_of(teacher), target_of(batch)
        answers = [student.logits] + [
            applied(part, student.features[name])
            for part, name in zip(self.branches, self.student_layers, strict=True)
        ]
        losses = [
            ofa_loss(answer, theirs, target, self.gamma, self.temperature) for answer in answers
        ]
        return {"logits": losses[0], "branches": torch.stack(losses[1:]).sum()}

    def extra_repr(self) -> str:
        """Show the layers, gamma and the temperature."""
        return (
            f"student={self.student_layers}, gamma={self.gamma:g}, temperature={self.temperature:g}"
        )


class MeanOverPlaces(nn.Module):
    """Averages maps (N, C, H, W) over pixels and tokens (N, L, D) over L, to vectors.

    >>> mean = MeanOverPlaces()
    >>> mean(torch.zeros(2, 5, 4, 4)).shape, mean(torch.zeros(2, 7, 5)).shape
    (torch.Size([2, 5]), torch.Size([2, 5]))
    """

    def forward(self, features: Tensor) -> Tensor:
        """Return vectors; those that come in go out."""
        if features.ndim == 2:
            return features
        return features.mean(dim=(2, 3) if features.ndim == 4 else 1)


def branch(example: Tensor, classes: int, width: int, blocks: int) -> nn.Sequential:
    """Return a small network from features like the example's to logits.

    Raises:
        ConfigError: if the example is not (N, D), (N, L, D) or (N, C, H, W).

    >>> branch(torch.zeros(2, 3, 8, 8), 10, width=16, blocks=2)(torch.zeros(2, 3, 8, 8)).shape
    torch.Size([2, 10])
    """
    if example.ndim not in (2, 3, 4):
        raise ConfigError(
            "the student's layer must give vectors (N, D), tokens (N, L, D) or maps "
            f"(N, C, H, W), got {tuple(example.shape)}"
        )
    layers: list[nn.Module] = []
    channels = example.shape[1 if example.ndim == 4 else -1]
    for _ in range(blocks):
        layers += _separable(channels, width) if example.ndim == 4 else _dense(channels, width)
        channels = width
    return nn.Sequential(*layers, MeanOverPlaces(), nn.Linear(channels, classes))


def _dense(before: int, after: int) -> list[nn.Module]:
    return [nn.Linear(before, after), nn.LayerNorm(after), nn.GELU()]


def _separable(before: int, after: int) -> list[nn.Module]:
    """Return two separable 3x3 convolutions: the first halves the size, the second widens."""
    layers: list[nn.Module] = []
    for stride, wide in ((2, before), (1, after)):
        layers += [
            nn.Conv2d(before, before, 3, stride=stride, padding=1, groups=before, bias=False),
            nn.Conv2d(before, wide, kernel_size=1, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(),
        ]
    return layers
