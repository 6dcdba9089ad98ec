import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdlit.errors import ConfigError
from kdlit.models import MLP, ArticleCNN, ConvNet, LeNet5


@pytest.mark.parametrize(
    ("net", "channels", "classes"),
    [
        (ArticleCNN(), 1, 10),
        (ArticleCNN(in_channels=3, num_classes=7), 3, 7),
        (MLP(), 1, 10),
        (MLP(in_features=3 * 784, widths=[], num_classes=4), 3, 4),
        (MLP(widths=[20, 10], dropout=0.5), 1, 10),
        (ConvNet(), 1, 10),
        (ConvNet(channels=[4, 8, 8, 16], depth=3, dropout=0.2, in_channels=3), 3, 10),
        (ConvNet(channels=[4]), 1, 10),
        (LeNet5(), 1, 10),
        (LeNet5(channels=[3, 8, 60], hidden=42, in_channels=3, num_classes=4), 3, 4),
    ],
)
def test_shapes_and_gradients(net, channels, classes):
    logits = net(torch.randn(3, channels, 28, 28))
    assert logits.shape == (3, classes)
    logits.square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in net.parameters())


def as_printed(net: ArticleCNN) -> nn.Sequential:
    """The article's order: bias, ReLU, pooling; with the same weights."""
    convolutions = nn.Conv2d(1, 10, 5), nn.Conv2d(10, 20, 5)
    for plain, ours in zip(convolutions, (net.block1[0], net.block2[0]), strict=True):
        plain.load_state_dict(ours.state_dict())
    blocks = [nn.Sequential(conv, nn.ReLU(), nn.MaxPool2d(2)) for conv in convolutions]
    return nn.Sequential(*blocks, *copy.deepcopy([net.flatten, net.hidden, net.classifier]))


def test_pooling_before_bias_and_relu_is_the_same_function_with_the_same_gradients():
    net, images = ArticleCNN().double(), torch.randn(4, 1, 28, 28, dtype=torch.float64)
    other = as_printed(net).double()
    for network in (net, other):
        network(images).square().sum().backward()
    torch.testing.assert_close(net(images), other(images), rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-12)


def test_lenet_is_the_network_of_the_paper_on_framed_images():
    net, images = LeNet5().double(), torch.randn(2, 1, 28, 28, dtype=torch.float64)
    hidden = F.pad(images, (2, 2, 2, 2))
    assert hidden.shape[-2:] == (32, 32)
    for block in (net.block1, net.block2):
        conv = block[0]
        hidden = F.max_pool2d(F.relu(F.conv2d(hidden, conv.weight, conv.bias)), 2)
    assert hidden.shape == (2, 16, 5, 5)
    conv = net.block3[0]
    hidden = F.relu(F.conv2d(hidden, conv.weight, conv.bias)).flatten(1)
    assert hidden.shape == (2, 120)
    hidden = F.relu(net.hidden[0](hidden))
    assert hidden.shape == (2, 84)
    torch.testing.assert_close(net(images), net.classifier(hidden), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MLP(widths=[0]), "`widths` must be an integer >= 1, got 0"),
        (lambda: MLP(dropout=1.0), "`dropout`"),
        (lambda: ArticleCNN(num_classes=0), "`num_classes`"),
        (lambda: ConvNet(channels=[]), "`channels` must name 1 to 4"),
        (lambda: ConvNet(depth=0), "`depth`"),
        (lambda: LeNet5(channels=[6, 16]), "`channels` must name 3 layers"),
        (lambda: LeNet5(hidden=0), "`hidden`"),
    ],
)
def test_refuses_bad_arguments(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
