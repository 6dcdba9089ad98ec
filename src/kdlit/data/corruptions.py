"""Test images made harder: turned, shifted, noisy; the same for anyone who asks."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from kdlit import checks
from kdlit.data.augment import RandomAffine, RandomShift
from kdlit.randomness import derive_seed, uniform


class Corruption(ABC):
    """Changes images by a fixed amount, in a way that depends on (seed, index) alone.

    All severities of a kind share their random numbers: an image that is turned to the left by 15
    degrees is turned to the left by 30, too.

    Attributes:
        kind: what it does, in a word.
        severity: how much of it.
        unit: of the severity.
        stream: the number of its random numbers among those of other kinds.
    """

    kind: str
    unit: str
    stream: int

    def __init__(self, severity: float) -> None:
        self.severity = checks.positive("severity", severity)

    def __call__(self, images: Tensor, index: Tensor, seed: int = 0) -> Tensor:
        """Return corrupted images as float32.

        Args:
            images: pixels in 0 to 255, shape (N, C, H, W).
            index: each image's position in its data set, shape (N,).
            seed: any integer.
        """
        numbers = uniform(derive_seed(seed, self.stream), index, self.count(images))
        return self.apply(images.float(), numbers)

    def count(self, images: Tensor) -> int:
        """Return how many random numbers an image needs."""
        return 1

    @abstractmethod
    def apply(self, images: Tensor, numbers: Tensor) -> Tensor:
        """Return images (N, C, H, W) corrupted, given numbers (N, count) in [0, 1)."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.severity:g})"


class Rotation(Corruption):
    """Turn each image by `severity` degrees, to the left or to the right; empty parts are 0.

    >>> Rotation(15)(torch.ones(2, 1, 28, 28), torch.arange(2)).shape
    torch.Size([2, 1, 28, 28])
    """

    kind, unit, stream = "rotated", "°", 1

    def apply(self, images: Tensor, numbers: Tensor) -> Tensor:
        """Turn by the largest angle of a random affine map."""
        side = (numbers >= 0.5).float()
        middle = torch.full_like(numbers, 0.5).expand(-1, 3)
        turn = RandomAffine(degrees=self.severity, scale=0, translate=0)
        return turn(images, torch.cat((side, middle), dim=1))


class Shift(Corruption):
    """Shift each image by `severity` whole pixels up, down, left or right; empty parts are 0.

    >>> shifted = Shift(1)(torch.tensor([[[[0, 0, 0], [0, 9, 0], [0, 0, 0]]]]), torch.tensor([0]))
    >>> int(shifted.sum()), int(shifted[0, 0, 1, 1])
    (9, 0)
    """

    kind, unit, stream = "shifted", "px", 2

    def __init__(self, severity: int) -> None:
        super().__init__(checks.integer("severity", severity))

    def apply(self, images: Tensor, numbers: Tensor) -> Tensor:
        """Shift by the largest step of a random shift, in one of four directions."""
        direction = (numbers[:, 0] * 4).to(torch.int64)
        # No shift is the middle of the range of a random shift, the largest are its ends.
        least, middle, most = 0.0, 0.5, 1 - 2.0**-24
        places = torch.tensor([[least, middle], [most, middle], [middle, least], [middle, most]])
        return RandomShift(int(self.severity))(images, places.to(images.device)[direction])


class Noise(Corruption):
    """Add Gaussian noise of standard deviation `severity` times 255 to each pixel, and clip.

    >>> noisy = Noise(0.1)(torch.full((1, 1, 28, 28), 128), torch.tensor([7]))
    >>> abs(float(noisy.mean()) - 128) < 5, abs(float(noisy.std()) - 25.5) < 3
    (True, True)
    """

    kind, unit, stream = "noisy", "", 3

    def count(self, images: Tensor) -> int:
        """Return the number of pixels."""
        return images[0].numel()

    def apply(self, images: Tensor, numbers: Tensor) -> Tensor:
        """Add normal quantiles of the numbers, which never are 0 or 1 here."""
        normal: Tensor = torch.special.ndtri(numbers.double() + 2.0**-25).float()
        return torch.clamp(images + 255 * self.severity * normal.reshape(images.shape), 0, 255)


CORRUPTIONS: tuple[Corruption, ...] = (
    Rotation(15), Rotation(30), Rotation(45),
    Shift(2), Shift(4), Shift(6),
    Noise(0.1), Noise(0.2), Noise(0.4),
)  # fmt: skip
"""Three severities of each kind."""
