r"""A bias for classes that a student has not seen, or of which it has seen too many.

A student whose transfer set omits classes learns from soft labels what they look like, but hardly
ever decides for them: the output's bias of such a class is wrong, and one number mends it (Hinton,
Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, section 3, arXiv:1503.02531). A
bias b is added to the logits of all classes C that are meant, and a sample is decided for one of
them where

.. math:: m_n = \max_{k \notin C} z_{nk} - \max_{k \in C} z_{nk} < b
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from kdlit.errors import ConfigError


def margins(logits: Tensor, classes: Sequence[int]) -> Tensor:
    """Return how much bias each sample needs to be decided for one of the classes.

    Args:
        logits: z (N, C).
        classes: some of the classes, and not all.

    Returns:
        m (N,).

    Raises:
        ConfigError: if `classes` names none, all, or one that there is not.

    >>> margins(torch.tensor([[1.0, 3.0, 0.0], [2.0, 0.0, 5.0]]), [2])
    tensor([ 3., -3.])
    """
    meant = torch.zeros(logits.shape[1], dtype=torch.bool)
    if not all(0 <= k < logits.shape[1] for k in classes):
        raise ConfigError(f"`classes` must be from 0 to {logits.shape[1] - 1}, got {list(classes)}")
    meant[list(classes)] = True
    if meant.all() or not meant.any():
        raise ConfigError(f"`classes` must be some of the classes and not all, got {list(classes)}")
    return logits[:, ~meant].amax(dim=1) - logits[:, meant].amax(dim=1)


def bias_for_share(logits: Tensor, classes: Sequence[int], share: float) -> float:
    """Return the bias with which the classes get a share of the decisions; no labels are read.

    Args:
        logits: z (N, C), of samples that are like those to come.
        classes: which.
        share: of the samples that belong to them, in (0, 1), known from elsewhere.

    >>> logits = torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [4.0, 0.0]])
    >>> bias_for_share(logits, [1], 0.5)
    2.5
    """
    if not 0 < share < 1:
        raise ConfigError(f"`share` must be in (0, 1), got {share}")
    ordered = margins(logits, classes).sort().values
    wanted = min(max(round(share * len(ordered)), 1), len(ordered) - 1)
    return float((ordered[wanted - 1] + ordered[wanted]) / 2)


def bias_of_fewest_errors(logits: Tensor, classes: Sequence[int], target: Tensor) -> float:
    """Return the bias with the fewest errors, the smallest one where there are several.

    Args:
        logits: z (N, C).
        classes: which.
        target: y (N,). Errors on the samples by which the bias was chosen are too few.

    >>> logits = torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]])
    >>> bias_of_fewest_errors(logits, [1], torch.tensor([1, 1, 0]))
    2.5
    """
    needed, order = margins(logits, classes).sort()
    meant = torch.zeros(logits.shape[1], dtype=torch.bool)
    meant[list(classes)] = True
    # Right with the bias, and right without it: the decision within either part is fixed.
    inside = logits.masked_fill(~meant, -torch.inf).argmax(dim=1).eq(target)[order].int()
    outside = logits.masked_fill(meant, -torch.inf).argmax(dim=1).eq(target)[order].int()
    zero = inside.new_zeros(1)
    right = torch.cat([zero, (inside - outside).cumsum(0)])  # but for a constant
    edges = torch.cat([needed[:1] - 1, (needed[:-1] + needed[1:]) / 2, needed[-1:] + 1])
    # Between equal margins there is no bias.
    possible = torch.cat([needed.new_ones(1), needed[:-1] < needed[1:], needed.new_ones(1)]).bool()
    best = possible & right.eq(right[possible].max())
    return float(edges[best][edges[best].abs().argmin()])


def errors_with_bias(
    logits: Tensor, classes: Sequence[int], target: Tensor, bias: float
) -> dict[str, float]:
    """Return what is wrong with a bias on the logits of some classes.

    Args:
        logits: z (N, C).
        classes: which get the bias.
        target: y (N,).
        bias: b.

    Returns:
        `bias`, `errors`, `accuracy`, and of the classes' own samples `samples_in_classes` and
        `errors_in_classes`.

    >>> logits = torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]])
    >>> found = errors_with_bias(logits, [1], torch.tensor([1, 1, 0]), bias=1.5)
    >>> found["errors"], found["errors_in_classes"], found["samples_in_classes"]
    (1, 1, 2)
    """
    margins(logits, classes)  # which checks the classes
    biased = logits.clone()
    biased[:, list(classes)] += bias
    wrong = biased.argmax(dim=1).ne(target)
    inside = torch.isin(target, torch.tensor(list(classes)))
    return {
        "bias": bias,
        "errors": int(wrong.sum()),
        "accuracy": 1 - float(wrong.double().mean()),
        "samples_in_classes": int(inside.sum()),
        "errors_in_classes": int(wrong[inside].sum()),
    }
