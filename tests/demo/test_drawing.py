"""A drawing is placed as MNIST places its digits."""

import pytest
import torch

from kdlit.data import MNISTDataModule
from kdlit.demo import digit_of
from kdlit.errors import DataError


def test_a_digit_fits_the_box_and_its_centre_of_mass_is_the_middle():
    drawing = torch.zeros(112, 112)
    drawing[3:40, 60:70] = 255
    drawing[35:40, 45:90] = 255
    digit = digit_of(drawing)[0].float()
    rows, columns = torch.nonzero(digit).unbind(dim=1)
    assert max(rows.max() - rows.min(), columns.max() - columns.min()) + 1 == 20
    places = torch.arange(28.0)
    for profile in (digit.sum(dim=0), digit.sum(dim=1)):
        assert abs(float((profile * places).sum() / profile.sum()) - 14) <= 0.51


@pytest.mark.parametrize("scale", [1, 4])
def test_a_digit_of_mnist_is_left_where_it_is(mnist_root, scale):
    data = MNISTDataModule(mnist_root)
    data.setup()
    for image in data.test_data.images[:50, 0]:
        drawn = image.repeat_interleave(scale, 0).repeat_interleave(scale, 1)
        difference = (digit_of(drawn).float() - image.float()).abs().mean()
        assert difference < 12, difference


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (112, 1), (1, 112), (112, 112)])
def test_dots_lines_and_a_full_field_are_digits_too(rows, columns):
    drawing = torch.zeros(112, 112)
    drawing[:rows, :columns] = 255
    digit = digit_of(drawing)
    assert digit.shape == (1, 28, 28)
    assert digit.max() == 255


def test_an_empty_drawing_is_refused():
    with pytest.raises(DataError, match="nothing is drawn"):
        digit_of(torch.zeros(112, 112, dtype=torch.uint8))
