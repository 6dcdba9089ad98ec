import pytest
import torch

from kdlit.errors import ConfigError
from kdlit.models import MLP, ArticleCNN, ConvNet


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
    ],
)
def test_shapes_and_gradients(net, channels, classes):
    logits = net(torch.randn(3, channels, 28, 28))
    assert logits.shape == (3, classes)
    logits.square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in net.parameters())


def test_pooling_before_relu_is_the_same_function():
    net, images = ArticleCNN(), torch.randn(4, 1, 28, 28)
    block1, block2, *head = net
    (conv1, pool, relu), conv2 = block1, block2[0]
    expected = pool(relu(conv2(pool(relu(conv1(images))))))
    for layer in head:
        expected = layer(expected)
    assert torch.equal(net(images), expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MLP(widths=[0]), "`widths` must be an integer >= 1, got 0"),
        (lambda: MLP(dropout=1.0), "`dropout`"),
        (lambda: ArticleCNN(num_classes=0), "`num_classes`"),
        (lambda: ConvNet(channels=[]), "`channels` must name 1 to 4"),
        (lambda: ConvNet(depth=0), "`depth`"),
    ],
)
def test_refuses_bad_arguments(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
