"""Numbers instead of classes: the losses of a student that regresses."""

import torch.nn.functional as F
from torch import Tensor

from kdlit.errors import ConfigError
from kdlit.functional.checks import check_same_logits
from kdlit.functional.precision import float32_at_least


def regression_truth_loss(predictions: Tensor, target: Tensor) -> Tensor:
    r"""Squared error of predictions.

    .. math:: \mathcal{L} = \frac1{ND} \sum_n \lVert z_n - y_n \rVert_2^2

    Args:
        predictions: z, shape (N, D).
        target: y, shape (N, D), or (N,) where D = 1.

    Returns:
        A scalar >= 0, averaged over samples and outputs.

    Raises:
        ConfigError: if the shapes do not fit.

    >>> import torch
    >>> regression_truth_loss(torch.tensor([[1.0], [4.0]]), torch.tensor([1.0, 2.0])).item()
    2.0
    """
    z = float32_at_least(predictions)
    return F.mse_loss(z, columns(target, predictions).to(z.dtype))


def bounded_regression_loss(
    predictions: Tensor, teacher_predictions: Tensor, target: Tensor, margin: float = 0.0
) -> Tensor:
    r"""The teacher's error as a bound: samples on which the student errs more are learned again.

    .. math:: \mathcal{L} = \frac1N \sum_n [\, e_n + m > e'_n \,] \, e_n, \quad
        e_n = \tfrac1D \lVert z_n - y_n \rVert_2^2, \;
        e'_n = \tfrac1D \lVert t_n - y_n \rVert_2^2

    The student is never drawn to the teacher, whose numbers may be far off: it only is told by
    which samples it could do better.

    Args:
        predictions: z, shape (N, D).
        teacher_predictions: t, shape (N, D); no gradient is needed.
        target: y, shape (N, D), or (N,) where D = 1.
        margin: m, of a mean squared error.

    Returns:
        A scalar >= 0.

    Raises:
        ConfigError: if the shapes do not fit.

    Source: Chen, Choi, Yu, Han, Chandraker, "Learning Efficient Object Detection Models with
    Knowledge Distillation", 2017 (NeurIPS), section 3.3, whose norms are sums over the D
    coordinates of a box where these are means.

    >>> import torch
    >>> student, teacher = torch.tensor([[3.0], [1.0]]), torch.tensor([[2.0], [2.0]])
    >>> bounded_regression_loss(student, teacher, torch.zeros(2)).item()
    4.5
    """
    check_same_logits(predictions, teacher_predictions)
    z, t = float32_at_least(predictions), float32_at_least(teacher_predictions)
    y = columns(target, predictions).to(z.dtype)
    ours, theirs = ((said - y).square().mean(dim=1) for said in (z, t))
    return (ours * (ours + margin > theirs)).mean()


def columns(target: Tensor, predictions: Tensor) -> Tensor:
    """Return targets in the shape (N, D) of the predictions; with D = 1 they may be (N,).

    Raises:
        ConfigError: for any other shape, which torch would broadcast to (N, N).

    >>> import torch
    >>> columns(torch.tensor([1.0, 2.0]), torch.zeros(2, 1)).tolist()
    [[1.0], [2.0]]
    """
    shaped = target[:, None] if target.ndim == 1 and predictions.shape[1] == 1 else target
    if predictions.ndim != 2 or shaped.shape != predictions.shape:
        raise ConfigError(
            "the numbers to predict must have the predictions' shape (N, D), or (N,) where D = 1: "
            f"got {tuple(target.shape)} for predictions {tuple(predictions.shape)}"
        )
    return shaped
