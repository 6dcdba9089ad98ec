import statistics

import pytest
import torch
import torchvision.transforms.functional as reference

from kdlit.data.corruptions import CORRUPTIONS, Noise, Rotation, Shift
from kdlit.errors import ConfigError

INDEX = torch.arange(40)
IMAGES = 255 * torch.rand(40, 1, 28, 28, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=repr)
def test_depends_on_seed_and_index_alone(corruption):
    together = corruption(IMAGES, INDEX, 3)
    assert together.dtype == torch.float32
    assert torch.equal(corruption(IMAGES[7:8], INDEX[7:8], 3), together[7:8])
    assert torch.equal(corruption(IMAGES.flip(0), INDEX.flip(0), 3), together.flip(0))
    assert not torch.equal(corruption(IMAGES, INDEX, 4), together)
    assert not torch.equal(corruption(IMAGES, INDEX + 40, 3), together)
    assert torch.equal(corruption(IMAGES.to(torch.uint8), INDEX, 3),
                       corruption(IMAGES.to(torch.uint8).float(), INDEX, 3))  # fmt: skip
    assert together.min() >= 0
    assert together.max() <= 255.001


def test_rotation_is_by_so_many_degrees_to_either_side():
    sides = []
    for image, found in zip(IMAGES, Rotation(30)(IMAGES, INDEX), strict=True):
        turned = [
            reference.rotate(image[None], angle, reference.InterpolationMode.BILINEAR)[0]
            for angle in (30, -30)
        ]
        fits = [torch.allclose(one, found, atol=0.1) for one in turned]
        assert sum(fits) == 1
        sides.append(fits.index(True))
    assert 10 < sum(sides) < 30


def test_shift_is_by_so_many_pixels_in_one_of_four_directions():
    directions = []
    for image, found in zip(IMAGES, Shift(4)(IMAGES, INDEX), strict=True):
        padded = torch.nn.functional.pad(image, (4, 4, 4, 4))
        shifted = [
            padded[:, 4 + down : 32 + down, 4 + right : 32 + right]
            for down, right in ((-4, 0), (4, 0), (0, -4), (0, 4))
        ]
        (direction,) = [n for n in range(4) if torch.equal(shifted[n], found)]
        directions.append(direction)
    assert set(directions) == {0, 1, 2, 3}


def test_noise_is_normal_and_clipped():
    grey = torch.full((40, 1, 28, 28), 127.5)
    noise = (Noise(0.1)(grey, INDEX) - grey).flatten()
    assert float(noise.mean()) == pytest.approx(0, abs=0.5)
    assert float(noise.std()) == pytest.approx(25.5, rel=0.02)
    # Within one and two standard deviations, and neighbours are not alike.
    normal = statistics.NormalDist()
    for width in (1, 2):
        share = float((noise.abs() < 25.5 * width).float().mean())
        assert share == pytest.approx(normal.cdf(width) - normal.cdf(-width), abs=0.01)
    assert abs(float(torch.corrcoef(torch.stack((noise[1:], noise[:-1])))[0, 1])) < 0.03
    strong = Noise(3)(grey, INDEX)
    assert (strong.min(), strong.max()) == (0, 255)


def test_severities_share_their_random_numbers():
    weak, strong = (Noise(severity)(IMAGES * 0 + 127.5, INDEX) for severity in (0.01, 0.02))
    assert torch.allclose(2 * (weak - 127.5), strong - 127.5, atol=1e-3)


def test_refuses_bad_severities():
    with pytest.raises(ConfigError, match="`severity` must be finite and > 0, got -1"):
        Noise(-1)
    with pytest.raises(ConfigError, match="`severity` must be an integer"):
        Shift(1.5)
