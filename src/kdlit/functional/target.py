"""The class of the ground truth set apart from the others."""

import torch
from torch import Tensor

from kdlit.errors import ConfigError
from kdlit.functional.checks import check_classes


def column_of(values: Tensor, target: Tensor) -> Tensor:
    """Return the entry of each sample's own class, shape (N,), of values of shape (N, C).

    >>> import torch
    >>> column_of(torch.tensor([[1, 2, 3], [4, 5, 6]]), torch.tensor([2, 0])).tolist()
    [3, 4]
    """
    check_classes(values, target)
    return values.gather(1, target.to(torch.long)[:, None])[:, 0]


def columns_beside(values: Tensor, target: Tensor) -> Tensor:
    """Return the entries of all other classes, in their order, shape (N, C - 1).

    Raises:
        ConfigError: if there are fewer than three classes: one other class alone says nothing.

    >>> import torch
    >>> columns_beside(torch.tensor([[1, 2, 3], [4, 5, 6]]), torch.tensor([2, 0])).tolist()
    [[1, 2], [5, 6]]
    """
    check_classes(values, target)
    classes = values.shape[1]
    if classes < 3:
        raise ConfigError(
            "a loss over the classes beside the true one needs three classes or more, got "
            f"{classes}: with two there is nothing to tell apart; use label=soft"
        )
    kept = torch.arange(classes - 1, device=values.device)[None]
    return values.gather(1, kept + (kept >= target[:, None]).to(torch.long))
