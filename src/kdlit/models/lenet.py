"""LeNet-5, the classic convolutional network for digits, and narrower ones of its form."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn

from kdlit import checks
from kdlit.errors import ConfigError
from kdlit.models.article import ConvMaxPool


class LeNet5(nn.Sequential):
    """Three 5x5 convolutions, of which pooling follows two, then one hidden layer.

    The images get a frame of two zeros on each side, which makes them the 32x32 of the paper. As in
    most networks of this name today, ReLU and max pooling stand for the paper's squashing functions
    and trainable averages. Layers are named `block1`, `block2`, `block3`, `flatten`, `hidden` and
    `classifier`; pooling stands before bias and ReLU, with which it commutes.

    Args:
        channels: channels of the three convolutions; `(3, 8, 60)` with 42 hidden units are half
            of each layer.
        hidden: units between the last convolution and the classifier.
        in_channels: channels of the input images, which are 28x28.
        num_classes: C.

    Shape:
        input (N, in_channels, 28, 28), output logits (N, C).

    Source: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document
    recognition", 1998, figure 2.

    >>> import torch
    >>> net = LeNet5()
    >>> net(torch.zeros(2, 1, 28, 28)).shape, sum(p.numel() for p in net.parameters())
    (torch.Size([2, 10]), 61706)
    >>> sum(p.numel() for p in LeNet5(channels=(3, 8, 60), hidden=42).parameters())
    15738
    """

    def __init__(
        self,
        channels: Sequence[int] = (6, 16, 120),
        hidden: int = 84,
        in_channels: int = 1,
        num_classes: int = 10,
    ) -> None:
        checks.integer("in_channels", in_channels)
        checks.integer("num_classes", num_classes)
        checks.integer("hidden", hidden)
        if len(channels) != 3:
            raise ConfigError(f"`channels` must name 3 layers, got {list(channels)}")
        first, second, third = (checks.integer("channels", width) for width in channels)
        layers: dict[str, nn.Module] = {
            "block1": nn.Sequential(ConvMaxPool(in_channels, first, 5, padding=2), nn.ReLU()),
            "block2": nn.Sequential(ConvMaxPool(first, second, 5), nn.ReLU()),
            "block3": nn.Sequential(nn.Conv2d(second, third, 5), nn.ReLU()),
            "flatten": nn.Flatten(),
            "hidden": nn.Sequential(nn.Linear(third, hidden), nn.ReLU()),
            "classifier": nn.Linear(hidden, num_classes),
        }
        super().__init__(OrderedDict(layers))
        # The same numbers in another order in memory, which convolutions on CPUs and GPUs prefer.
        self.to(memory_format=torch.channels_last)
