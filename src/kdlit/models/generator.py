"""A network that makes images out of noise."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlit import checks
from kdlit.errors import ConfigError


class ImageGenerator(nn.Module):
    """Noise becomes small maps, which are enlarged twice to images of zero mean, unit variance.

    A linear layer makes maps of a quarter of the image's sides; then twice: nearest-neighbour
    enlargement to the double, a 3x3 convolution, batch norm and leaky ReLU; then a last 3x3
    convolution, tanh, and batch norm without weights, so that the images of a batch have the mean
    and variance of normalised data. It is the generator of Chen et al. 2019 with fewer channels.

    Args:
        noise: numbers that an image is made of.
        channels: channels behind the linear layer and behind the first convolution, and behind the
            second one. The source has `(128, 64)`.
        shape: shape (channels, height, width) of an image; height and width are multiples of 4.

    Shape:
        input (N, noise), output (N, channels, height, width).

    Source: Chen et al., "Data-Free Learning of Student Networks", ICCV 2019 (arXiv:1904.01186).

    >>> generator = ImageGenerator(noise=10, channels=(8, 4))
    >>> generator(torch.randn(5, 10)).shape
    torch.Size([5, 1, 28, 28])
    """

    def __init__(
        self,
        noise: int = 100,
        channels: Sequence[int] = (32, 16),
        shape: Sequence[int] = (1, 28, 28),
    ) -> None:
        super().__init__()
        if len(channels) != 2:
            raise ConfigError(f"`channels` must name 2 layers, got {list(channels)}")
        first, second = (checks.integer("channels", width) for width in channels)
        if len(shape) != 3 or any(side % 4 or side < 4 for side in shape[1:]):
            raise ConfigError(
                "`shape` must be (channels, height, width) with sides that are multiples of 4, "
                f"got {tuple(shape)}"
            )
        self.noise = checks.integer("noise", noise)
        colors, height, width = shape
        self.start = (first, height // 4, width // 4)
        self.linear = nn.Linear(noise, first * (height // 4) * (width // 4))
        self.normalize = nn.BatchNorm2d(first)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, after, 3, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.LeakyReLU(0.2, inplace=True),
            )
            for before, after in pairwise((first, first, second))
        )
        self.last = nn.Conv2d(second, colors, 3, padding=1)
        self.standardize = nn.BatchNorm2d(colors, affine=False)
        # The same numbers in another order in memory, which convolutions on CPUs and GPUs prefer.
        self.to(memory_format=torch.channels_last)

    def forward(self, noise: Tensor) -> Tensor:
        """Return one image for each row of noise."""
        maps = self.linear(noise).unflatten(1, self.start)
        maps = self.normalize(maps.contiguous(memory_format=torch.channels_last))
        for block in self.blocks:
            maps = block(F.interpolate(maps, scale_factor=2.0))
        images: Tensor = self.standardize(torch.tanh(self.last(maps)).float())
        return images
