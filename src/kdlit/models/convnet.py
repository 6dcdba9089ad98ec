"""Convolutional teachers for 28x28 images."""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from kdlit import checks
from kdlit.errors import ConfigError


class ConvNet(nn.Sequential):
    """A stride-2 5x5 stem, then blocks of 3x3 convolutions that each end in pooling.

    Each block is `depth` times (convolution, batch norm, ReLU), with 2x2 max pooling after the
    last convolution: there it costs least, since normalisation and ReLU then see a quarter of the
    pixels. Layers are named `stem`, `block1`, ..., `flatten`, `dropout` (if any) and `classifier`.

    Args:
        channels: channels of the stem and of each block, at most three blocks for 28x28 images.
        depth: convolutions in a block.
        dropout: share of features dropped before the classifier, in [0, 1).
        in_channels: channels of the input images, which are 28x28.
        num_classes: C.

    Shape:
        input (N, in_channels, 28, 28), output logits (N, C).

    >>> import torch
    >>> net = ConvNet().eval()
    >>> net(torch.zeros(2, 1, 28, 28)).shape, sum(p.numel() for p in net.parameters())
    (torch.Size([2, 10]), 61426)
    """

    def __init__(
        self,
        channels: Sequence[int] = (24, 48, 96),
        depth: int = 1,
        dropout: float = 0.0,
        in_channels: int = 1,
        num_classes: int = 10,
    ) -> None:
        checks.integer("in_channels", in_channels)
        checks.integer("num_classes", num_classes)
        checks.integer("depth", depth)
        checks.fraction("dropout", dropout, below_one=True)
        if not 1 <= len(channels) <= 4:
            raise ConfigError(f"`channels` must name 1 to 4 layers, got {list(channels)}")
        for width in channels:
            checks.integer("channels", width)
        # No padding: 28 pixels become 12, and the digits' empty frame is not computed.
        stem = nn.Conv2d(in_channels, channels[0], kernel_size=5, stride=2, bias=False)
        layers: dict[str, nn.Module] = {
            "stem": nn.Sequential(stem, nn.BatchNorm2d(channels[0]), nn.ReLU())
        }
        for number, (before, after) in enumerate(pairwise(channels), start=1):
            block: list[nn.Module] = []
            for position in range(depth):
                width = before if position == 0 else after
                block.append(nn.Conv2d(width, after, kernel_size=3, padding=1, bias=False))
                if position == depth - 1:
                    block.append(nn.MaxPool2d(2))
                block += [nn.BatchNorm2d(after), nn.ReLU()]
            layers[f"block{number}"] = nn.Sequential(*block)
        side = 12 // 2 ** (len(channels) - 1)
        layers["flatten"] = nn.Flatten()
        if dropout:
            layers["dropout"] = nn.Dropout(dropout)
        layers["classifier"] = nn.Linear(channels[-1] * side * side, num_classes)
        super().__init__(OrderedDict(layers))
        # The same numbers in another order in memory, which convolutions on CPUs and GPUs prefer.
        self.to(memory_format=torch.channels_last)
