"""Torchvision's networks for images of any number of channels."""

import pytest
import torch

from kdlit.errors import ConfigError
from kdlit.models import torchvision_network


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "squeezenet1_1"])
def test_one_channel_is_answered_as_three_equal_ones(name):
    torch.manual_seed(0)
    three = torchvision_network(name, num_classes=4).eval()
    torch.manual_seed(0)
    one = torchvision_network(name, num_classes=4, in_channels=1).eval()
    images = torch.randn(2, 1, 32, 32)
    expected = three(images.expand(-1, 3, -1, -1))
    assert expected.shape == (2, 4)
    torch.testing.assert_close(one(images), expected, rtol=1e-4, atol=1e-5)


def test_other_numbers_of_channels_and_options_reach_the_network():
    network = torchvision_network("resnet18", in_channels=5, zero_init_residual=True)
    assert network.conv1.weight.shape == (64, 5, 7, 7)
    assert network.conv1.bias is None
    assert network.layer1[0].bn2.weight.abs().sum() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet19"}, "torchvision has no classifier 'resnet19': did you mean resnet1"),
        ({"name": "fcn_resnet50"}, "torchvision has no classifier 'fcn_resnet50'"),
        ({"nonsense": 1}, "torchvision's resnet18: .*nonsense"),
        ({"weights": "BEST"}, "torchvision's resnet18: .*BEST"),
        ({"weights": "DEFAULT", "in_channels": 4}, "`in_channels` is 4"),
        (
            {"name": "googlenet", "in_channels": 1, "transform_input": True, "init_weights": False},
            "googlenet shifts each of three channels",
        ),
        ({"in_channels": 0}, "`in_channels` must be an integer >= 1, got 0"),
    ],
)
def test_refuses_what_torchvision_has_not(arguments, message):
    with pytest.raises(ConfigError, match=message):
        torchvision_network(**arguments)
