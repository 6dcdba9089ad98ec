"""Soft labels by other measures: reverse KL, Jensen-Shannon, squared error of the logits."""

from torch import Tensor

from kdlit import checks
from kdlit.batch import Batch, Outputs
from kdlit.functional import jensen_shannon_loss, logit_mse_loss, reverse_kl_loss
from kdlit.objectives.teacher_labels import TeacherLabels, mixed
from kdlit.objectives.transforms import LogitTransform, refuse_truncation

_INFINITE = "KL(student || teacher) is infinite where the teacher's probability is 0"


class ReverseKLLabels(TeacherLabels):
    r"""The reverse divergence: the student keeps to what the teacher thinks likely.

    .. math:: \mathcal{L} = \alpha \, T^2 \, \mathrm{KL}\bigl(\mathrm{softmax}(z/T) \,\|\,
        \mathrm{softmax}(t/T)\bigr) + (1 - \alpha) \, \mathrm{CE}(z, y)

    Args:
        temperature: T > 0. Default 4, as of :class:`SoftLabels`, a choice of ours.
        alpha: weight of the *teacher*, in [0, 1]. Default 0.9, likewise.
        transform: of the logits that are compared, or None.

    Raises:
        ConfigError: if `temperature` is not > 0 or `alpha` not in [0, 1], or if the transform
            truncates the teacher: the divergence is then infinite.

    Source: Gu et al., "MiniLLM: Knowledge Distillation of Large Language Models", 2024
    (arXiv:2306.08543).

    >>> ReverseKLLabels()
    ReverseKLLabels(reverse_kl=0.9, truth=0.1, temperature=4)
    """

    def __init__(
        self,
        temperature: float = 4.0,
        alpha: float = 0.9,
        transform: LogitTransform | None = None,
    ) -> None:
        refuse_truncation(transform, _INFINITE)
        super().__init__(mixed("reverse_kl", alpha), transform)
        self.temperature = checks.positive("temperature", temperature)

    def compare(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return the one term."""
        z, t = self.pair(student, teacher)
        return {"reverse_kl": reverse_kl_loss(z, t, self.temperature)}

    def settings(self) -> dict[str, object]:
        """Return the temperature."""
        return {"temperature": self.temperature}


class JensenShannonLabels(TeacherLabels):
    r"""The generalised Jensen-Shannon divergence, between the two directions of KL.

    .. math:: \mathcal{L} = \alpha \, T^2 \, \mathrm{JSD}_\beta\bigl(\mathrm{softmax}(t/T) \,\|\,
        \mathrm{softmax}(z/T)\bigr) + (1 - \alpha) \, \mathrm{CE}(z, y)

    with :func:`kdlit.functional.jensen_shannon_divergence`. Unlike KL it is bounded: a teacher that
    is sure and wrong costs no more than log 2.

    Args:
        beta: in [0, 1]; 0 is the forward divergence of :class:`SoftLabels`, 1 the reverse one.
            Default 0.5, the symmetric case, one of three in the source's experiments.
        temperature: T > 0. Default 4, as of :class:`SoftLabels`, a choice of ours.
        alpha: weight of the *teacher*, in [0, 1]. Default 0.9, likewise.
        transform: of the logits that are compared, or None.

    Raises:
        ConfigError: if `temperature` is not > 0, `alpha` or `beta` not in [0, 1], or if the
            transform truncates the teacher and beta is 1.

    Source: Agarwal et al., "On-Policy Distillation of Language Models: Learning from
    Self-Generated Mistakes", 2024, section 2 (arXiv:2306.13649).

    >>> JensenShannonLabels(beta=0.1)
    JensenShannonLabels(jensen_shannon=0.9, truth=0.1, beta=0.1, temperature=4)
    """

    def __init__(
        self,
        beta: float = 0.5,
        temperature: float = 4.0,
        alpha: float = 0.9,
        transform: LogitTransform | None = None,
    ) -> None:
        share = checks.fraction("beta", beta)
        if share == 1:
            refuse_truncation(transform, f"with beta=1, {_INFINITE}")
        super().__init__(mixed("jensen_shannon", alpha), transform)
        self.beta = share
        self.temperature = checks.positive("temperature", temperature)

    def compare(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return the one term."""
        z, t = self.pair(student, teacher)
        loss = jensen_shannon_loss(z, t, self.beta, self.temperature)
        return {"jensen_shannon": loss}

    def settings(self) -> dict[str, object]:
        """Return beta and the temperature."""
        return {"beta": self.beta, "temperature": self.temperature}


class LogitMSELabels(TeacherLabels):
    r"""The student's logits are regressed onto the teacher's.

    .. math:: \mathcal{L} = \alpha \, \frac{1}{NC} \sum_n \lVert z_n - t_n \rVert_2^2
        + (1 - \alpha) \, \mathrm{CE}(z, y)

    Args:
        alpha: weight of the *teacher*, in [0, 1]. Default 0.9, as of :class:`SoftLabels`, a choice
            of ours.
        transform: of the logits that are compared, or None.

    Raises:
        ConfigError: if `alpha` is not in [0, 1], or if the transform truncates the teacher, whose
            probabilities it cuts off and not its logits.

    Source: Ba, Caruana, "Do Deep Nets Really Need to be Deep?", 2014 (arXiv:1312.6184); Kim et
    al., "Comparing Kullback-Leibler Divergence and Mean Squared Error Loss in Knowledge
    Distillation", 2021 (arXiv:2105.08919).

    >>> LogitMSELabels(alpha=1.0)
    LogitMSELabels(mse=1)
    """

    def __init__(self, alpha: float = 0.9, transform: LogitTransform | None = None) -> None:
        refuse_truncation(transform, "logits are compared, and a truncated distribution has none")
        super().__init__(mixed("mse", alpha), transform)

    def compare(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return the one term."""
        z, t = self.pair(student, teacher)
        return {"mse": logit_mse_loss(z, t)}
