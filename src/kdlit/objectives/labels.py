"""Label strategies: what the student is asked to imitate."""

from torch import Tensor

from kdlit import checks
from kdlit.batch import Batch, Outputs
from kdlit.functional import hard_label_loss, soft_label_loss, truth_loss
from kdlit.objectives.base import Objective, target_of
from kdlit.objectives.teacher_labels import TeacherLabels
from kdlit.objectives.transforms import LogitTransform
from kdlit.schedules import Weight


class BlendedLabels(TeacherLabels):
    r"""Soft labels, hard labels and ground truth, each with its own weight.

    .. math:: \mathcal{L} = w_s \mathcal{L}_\text{soft}(T) + w_h \mathcal{L}_\text{hard}
        + w_t \mathrm{CE}(z, y)

    A term with weight 0 is not computed. The default weights are a plain choice of ours; no paper
    recommends them.

    Args:
        soft: w_s >= 0, weight of :func:`kdlit.functional.soft_label_loss`.
        hard: w_h >= 0, weight of :func:`kdlit.functional.hard_label_loss`.
        truth: w_t >= 0, weight of the cross-entropy with the ground truth.
        temperature: T > 0 of the soft labels.
        transform: of the logits that soft and hard labels compare; see
            :mod:`kdlit.objectives.transforms`.

    Raises:
        ConfigError: if a weight is negative, all are 0, or the temperature is not > 0.

    >>> sorted(BlendedLabels(soft=0.5, hard=0.5, truth=0.0).weights.items())
    [('hard', 0.5), ('soft', 0.5)]
    """

    def __init__(
        self,
        soft: Weight = 0.5,
        hard: Weight = 0.25,
        truth: Weight = 0.25,
        temperature: float = 4.0,
        transform: LogitTransform | None = None,
    ) -> None:
        super().__init__({"soft": soft, "hard": hard, "truth": truth}, transform)
        self.temperature = checks.positive("temperature", temperature)

    def compare(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return the soft and the hard term."""
        z, t = self.pair(student, teacher)
        terms = {}
        if "soft" in self.weights:
            terms["soft"] = soft_label_loss(z, t, self.temperature)
        if "hard" in self.weights:
            terms["hard"] = hard_label_loss(z, t)
        return terms

    def settings(self) -> dict[str, object]:
        """Return the temperature where it matters."""
        return {"temperature": self.temperature} if "soft" in self.weights else {}


class SoftLabels(BlendedLabels):
    r"""The teacher's softened distribution, mixed with the ground truth.

    .. math:: \mathcal{L} = \alpha \, T^2 \, \mathrm{KL}\bigl(\mathrm{softmax}(t/T) \,\|\,
        \mathrm{softmax}(z/T)\bigr) + (1 - \alpha) \, \mathrm{CE}(z, y)

    Args:
        temperature: T > 0. Default 4, as in the recipe of Tian et al., "Contrastive
            Representation Distillation", 2020 (arXiv:1910.10699), section 4.
        alpha: weight of the *teacher*, in [0, 1]. Default 0.9, from the same recipe; 1 uses no
            ground truth, and 0 is :class:`TruthLabels`.
        transform: of the logits that are compared, such as
            :class:`kdlit.objectives.Standardize`; None leaves them as they are.

    Raises:
        ConfigError: if `temperature` is not > 0 or `alpha` not in [0, 1].

    Source: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, section 2
    (arXiv:1503.02531).

    >>> import torch
    >>> from kdlit.batch import Batch, Outputs
    >>> label = SoftLabels(temperature=4.0, alpha=0.9)
    >>> student, teacher = Outputs(torch.zeros(2, 3)), Outputs(torch.eye(3)[:2] * 5)
    >>> terms = label(student, teacher, Batch(None, target=torch.tensor([0, 1])))
    >>> {name: round(value.item(), 4) for name, value in terms.items()}
    {'soft': 3.0444, 'truth': 1.0986}
    """

    def __init__(
        self,
        temperature: float = 4.0,
        alpha: float = 0.9,
        transform: LogitTransform | None = None,
    ) -> None:
        alpha = checks.fraction("alpha", alpha)
        super().__init__(alpha, 0.0, 1 - alpha, temperature, transform)


class HardLabels(BlendedLabels):
    r"""The teacher's decision as the label, mixed with the ground truth.

    .. math:: \mathcal{L} = \alpha \, \mathrm{CE}(z, \arg\max t) + (1 - \alpha) \, \mathrm{CE}(z, y)

    Args:
        alpha: weight of the *teacher*, in [0, 1]. Default 0.5, as in the source.
        transform: of the logits that are compared; see :mod:`kdlit.objectives.transforms`.

    Raises:
        ConfigError: if `alpha` is not in [0, 1].

    Source: Touvron et al., "Training data-efficient image transformers & distillation through
    attention", 2021, equation 3 (arXiv:2012.12877).

    >>> HardLabels().weights
    {'hard': 0.5, 'truth': 0.5}
    """

    def __init__(self, alpha: float = 0.5, transform: LogitTransform | None = None) -> None:
        alpha = checks.fraction("alpha", alpha)
        super().__init__(soft=0.0, hard=alpha, truth=1 - alpha, transform=transform)


class TruthLabels(BlendedLabels):
    r"""The ground truth alone: the baseline without distillation. Runs no teacher in training.

    .. math:: \mathcal{L} = \mathrm{CE}(z, y)

    >>> TruthLabels().needs_teacher
    False
    """

    def __init__(self) -> None:
        super().__init__(soft=0.0, hard=0.0, truth=1.0)


class SmoothLabels(Objective):
    r"""The ground truth, smoothed: the teacher-free baseline that soft labels must beat.

    .. math:: \mathcal{L} = -\frac1N \sum_n \sum_c \Bigl((1-\epsilon)\,[c = y_n]
        + \frac{\epsilon}{C}\Bigr) \log \mathrm{softmax}(z_n)_c

    Args:
        smoothing: epsilon in [0, 1). Default 0.1, as in the source.

    Raises:
        ConfigError: if `smoothing` is not in [0, 1).

    Source: Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", 2016,
    section 7 (arXiv:1512.00567).

    >>> SmoothLabels(smoothing=1.0)
    Traceback (most recent call last):
    kdlit.errors.ConfigError: `smoothing` must lie in [0, 1), got 1.0
    """

    needs_teacher = False

    def __init__(self, smoothing: float = 0.1) -> None:
        super().__init__()
        self.smoothing = checks.fraction("smoothing", smoothing, below_one=True)
        self.weights = {"smooth": 1.0}

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return the one term."""
        return {"smooth": truth_loss(student.logits, target_of(batch), self.smoothing)}

    def extra_repr(self) -> str:
        """Show the smoothing."""
        return f"smoothing={self.smoothing:g}"
