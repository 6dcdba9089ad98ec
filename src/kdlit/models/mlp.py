"""A multi-layer perceptron of any widths."""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from kdlit import checks


class MLP(nn.Sequential):
    """Flatten, then hidden layers with ReLU (and dropout), then a linear classifier.

    Layers are named `flatten`, `hidden1`, `hidden2`, ... and `classifier`, and with `input_dropout`
    one of that name behind `flatten`.

    Args:
        in_features: values per sample; 784 for 28x28 grey images.
        widths: the hidden layers' widths, in order; empty for a linear classifier.
        num_classes: C.
        dropout: share of hidden units dropped in training, in [0, 1).
        input_dropout: share of input values dropped in training, in [0, 1): they become 0, which is
            the mean of normalised images.

    Shape:
        input (N, ...) with `in_features` values per sample, output logits (N, C).

    >>> import torch
    >>> net = MLP(widths=[30, 30])
    >>> net(torch.zeros(2, 1, 28, 28)).shape, sum(p.numel() for p in net.parameters())
    (torch.Size([2, 10]), 24790)
    """

    def __init__(
        self,
        in_features: int = 784,
        widths: Sequence[int] = (800, 800),
        num_classes: int = 10,
        dropout: float = 0.0,
        input_dropout: float = 0.0,
    ) -> None:
        checks.integer("in_features", in_features)
        checks.integer("num_classes", num_classes)
        checks.fraction("dropout", dropout, below_one=True)
        layers: dict[str, nn.Module] = {"flatten": nn.Flatten()}
        if checks.fraction("input_dropout", input_dropout, below_one=True):
            layers["input_dropout"] = nn.Dropout(input_dropout)
        sizes = [in_features, *(checks.integer("widths", width) for width in widths)]
        for number, (before, after) in enumerate(pairwise(sizes), start=1):
            parts = [nn.Linear(before, after), nn.ReLU(), *([nn.Dropout(dropout)] * bool(dropout))]
            layers[f"hidden{number}"] = nn.Sequential(*parts)
        layers["classifier"] = nn.Linear(sizes[-1], num_classes)
        super().__init__(OrderedDict(layers))
