import pytest
import torch
import torchvision.transforms.functional as reference

from kdlit.data import RandomAffine, RandomShift
from kdlit.errors import ConfigError


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_each_image_is_shifted_by_its_own_numbers(dtype):
    images = torch.randint(1, 256, (25, 2, 9, 7)).to(dtype)
    steps = (torch.arange(5) + 0.5) / 5
    shifted = RandomShift(2)(images, torch.cartesian_prod(steps, steps))
    assert shifted.dtype == dtype
    for image, result, (down, right) in zip(
        images, shifted, torch.cartesian_prod(torch.arange(-2, 3), torch.arange(-2, 3)), strict=True
    ):
        padded = torch.nn.functional.pad(image, (2, 2, 2, 2))
        expected = padded[:, 2 + down : 11 + down, 2 + right : 9 + right]
        assert torch.equal(result, expected)


def test_affine_rotates_scales_and_shifts_as_torchvision_does():
    image = torch.rand(1, 1, 28, 28)
    # 0.75 and 0.5 of the range: half the largest rotation, no shift.
    turned = RandomAffine(degrees=20, scale=0, translate=0)(
        image, torch.tensor([[0.75, 0.5, 0.5, 0.5]])
    )
    expected = reference.rotate(image, 10, reference.InterpolationMode.BILINEAR)
    assert torch.allclose(turned, expected, atol=1e-4)
    larger = RandomAffine(degrees=0, scale=0.2, translate=0)(
        image, torch.tensor([[0.5, 1.0, 0.5, 0.5]])
    )
    expected = reference.affine(image, 0, [0, 0], 1.2, [0, 0], reference.InterpolationMode.BILINEAR)
    assert torch.allclose(larger, expected, atol=1e-4)
    moved = RandomAffine(degrees=0, scale=0, translate=2 / 28)(
        image, torch.tensor([[0.5, 0.5, 1.0, 0.5]])
    )
    assert torch.allclose(moved[..., :-2], image[..., 2:], atol=1e-4)


def test_no_change_in_the_middle_of_every_range():
    image = torch.rand(3, 1, 28, 28)
    assert torch.allclose(RandomAffine()(image, torch.full((3, 4), 0.5)), image, atol=1e-5)


def test_refuses_bad_arguments():
    with pytest.raises(ConfigError, match="`pixels`"):
        RandomShift(0)
    with pytest.raises(ConfigError, match=r"`scale` must lie in \[0, 1\), got 1\.0"):
        RandomAffine(scale=1.0)
