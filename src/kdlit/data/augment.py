"""Augmentations of a whole batch, each sample with random numbers of its own."""

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlit import checks


class Augmentation(Protocol):
    """Maps images and random numbers in [0, 1) to images; holds no random state."""

    count: int
    """Random numbers per sample."""

    def __call__(self, images: Tensor, uniform: Tensor) -> Tensor:
        """Return images (N, C, H, W), given the same and numbers (N, count)."""
        ...


class NoAugmentation:
    """Leave images as they are."""

    count = 0

    def __call__(self, images: Tensor, uniform: Tensor) -> Tensor:
        """Return the same images."""
        return images


class RandomShift:
    """Shift each image by whole pixels, up to `pixels` in each direction; empty parts are 0.

    >>> shift = RandomShift(pixels=1)
    >>> image = torch.arange(9).reshape(1, 1, 3, 3)
    >>> shift(image, torch.tensor([[0.0, 0.5]]))[0, 0].tolist()
    [[0, 0, 0], [0, 1, 2], [3, 4, 5]]
    """

    count = 2

    def __init__(self, pixels: int = 2) -> None:
        self.pixels = checks.integer("pixels", pixels)

    def __call__(self, images: Tensor, uniform: Tensor) -> Tensor:
        """Return shifted images of the same type."""
        samples, _, height, width = images.shape
        offset = (uniform * (2 * self.pixels + 1)).to(torch.int64)
        rows = offset[:, :1] + torch.arange(height, device=images.device)
        columns = offset[:, 1:] + torch.arange(width, device=images.device)
        padded = F.pad(images, (self.pixels,) * 4)
        sample = torch.arange(samples, device=images.device)[:, None, None]
        # Advanced indices apart from each other put the channels last.
        shifted = padded[sample, :, rows[:, :, None], columns[:, None, :]]
        return shifted.permute(0, 3, 1, 2)


class RandomAffine:
    """Rotate, scale and shift each image, with bilinear interpolation; empty parts are 0.

    Args:
        degrees: largest rotation to either side.
        scale: largest relative change of size, in [0, 1): 0.1 is 0.9 to 1.1 times.
        translate: largest shift in each direction, as a fraction of the image's size.

    >>> images = torch.rand(2, 1, 28, 28)
    >>> RandomAffine(degrees=10)(images, torch.rand(2, 4)).shape
    torch.Size([2, 1, 28, 28])
    """

    count = 4

    def __init__(
        self, degrees: float = 10.0, scale: float = 0.1, translate: float = 2 / 28
    ) -> None:
        self.degrees = checks.non_negative("degrees", degrees)
        self.scale = checks.fraction("scale", scale, below_one=True)
        self.translate = checks.fraction("translate", translate)

    def __call__(self, images: Tensor, uniform: Tensor) -> Tensor:
        """Return transformed images as float32, on the scale of the input."""
        signed = 2 * uniform - 1
        angle = signed[:, 0] * math.radians(self.degrees)
        size = 1 + signed[:, 1] * self.scale
        shift = 2 * self.translate * signed[:, 2:]
        cosine, sine = torch.cos(angle) / size, torch.sin(angle) / size
        theta = torch.stack(
            (
                torch.stack((cosine, -sine, shift[:, 0]), dim=-1),
                torch.stack((sine, cosine, shift[:, 1]), dim=-1),
            ),
            dim=1,
        )
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
        return F.grid_sample(images.float(), grid, align_corners=False)
