"""The small convolutional network of the article that kdlit began from."""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlit import checks


class ConvMaxPool(nn.Conv2d):
    """A convolution and 2x2 max pooling, which adds its bias after pooling.

    It is the same function as pooling behind the bias, up to rounding: one number is added to all
    four of which the largest is taken. But three quarters of the additions are saved, and with
    them three quarters of the sum over all pixels that is the bias's gradient.

    >>> ConvMaxPool(1, 10, kernel_size=5)(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10, 12, 12])
    """

    bias: Tensor

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, padding: int = 0
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=padding)

    def forward(self, images: Tensor) -> Tensor:
        """Return maps of half the height and width."""
        pooled = F.max_pool2d(F.conv2d(images, self.weight, padding=self.padding), 2)
        # Under autocast the maps are in half precision, and stay so.
        return pooled + self.bias.to(pooled.dtype)[:, None, None]


class ArticleCNN(nn.Sequential):
    """Two 5x5 convolutions of 10 and 20 channels with pooling, then 50 hidden units.

    Layers are named `block1`, `block2`, `flatten`, `hidden` and `classifier`. Pooling stands before
    bias and ReLU, with which it commutes, since they are monotone: a quarter of the activations is
    left for them.

    Args:
        in_channels: channels of the input images, which are 28x28.
        num_classes: C.

    Shape:
        input (N, in_channels, 28, 28), output logits (N, C).

    >>> import torch
    >>> net = ArticleCNN()
    >>> net(torch.zeros(2, 1, 28, 28)).shape, sum(p.numel() for p in net.parameters())
    (torch.Size([2, 10]), 21840)
    """

    def __init__(self, in_channels: int = 1, num_classes: int = 10) -> None:
        checks.integer("in_channels", in_channels)
        checks.integer("num_classes", num_classes)
        layers: dict[str, nn.Module] = {
            "block1": nn.Sequential(ConvMaxPool(in_channels, 10, kernel_size=5), nn.ReLU()),
            "block2": nn.Sequential(ConvMaxPool(10, 20, kernel_size=5), nn.ReLU()),
            "flatten": nn.Flatten(),
            "hidden": nn.Sequential(nn.Linear(320, 50), nn.ReLU()),
            "classifier": nn.Linear(50, num_classes),
        }
        super().__init__(OrderedDict(layers))
        # The same numbers in another order in memory, which convolutions on CPUs and GPUs prefer.
        self.to(memory_format=torch.channels_last)
