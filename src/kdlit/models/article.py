"""The small convolutional network of the article that kdlit began from."""

from collections import OrderedDict

from torch import nn

from kdlit import checks


class ArticleCNN(nn.Sequential):
    """Two 5x5 convolutions of 10 and 20 channels with pooling, then 50 hidden units.

    Layers are named `block1`, `block2`, `flatten`, `hidden` and `classifier`. Pooling stands before
    ReLU: the two commute, since both are monotone, and a quarter of the activations is rectified.

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
            "block1": nn.Sequential(
                nn.Conv2d(in_channels, 10, kernel_size=5), nn.MaxPool2d(2), nn.ReLU()
            ),
            "block2": nn.Sequential(nn.Conv2d(10, 20, kernel_size=5), nn.MaxPool2d(2), nn.ReLU()),
            "flatten": nn.Flatten(),
            "hidden": nn.Sequential(nn.Linear(320, 50), nn.ReLU()),
            "classifier": nn.Linear(50, num_classes),
        }
        super().__init__(OrderedDict(layers))
