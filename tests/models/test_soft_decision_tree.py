"""The tree against one that walks from node to node, a sample at a time."""

import math

import pytest
import torch
from torch import Tensor

from kdlit.errors import ConfigError
from kdlit.models import SoftDecisionTree


def walk(tree: SoftDecisionTree, image: Tensor) -> list[tuple[float, list[float]]]:
    """Return the probability and the distribution of every leaf, from left to right."""
    weights, biases = tree.filters.weight.double(), tree.filters.bias.double()
    betas = tree.paths.log_beta.double().exp()
    first_leaf = len(weights)
    found = []

    def visit(node: int, probability: float) -> None:
        if node >= first_leaf:
            powers = [math.exp(value) for value in tree.leaves[node - first_leaf].tolist()]
            found.append((probability, [power / sum(powers) for power in powers]))
            return
        activation = sum(
            (w * x for w, x in zip(weights[node].tolist(), image.flatten().tolist(), strict=True)),
            biases[node].item(),
        )
        right = 1 / (1 + math.exp(-betas[node].item() * activation))
        visit(2 * node + 1, probability * (1 - right))
        visit(2 * node + 2, probability * right)

    visit(0, 1.0)
    return found


@pytest.fixture
def tree():
    torch.manual_seed(0)
    tree = SoftDecisionTree(in_features=12, num_classes=3, depth=3, beta=2.5)
    with torch.no_grad():  # each its own inverse temperature, as where they are learned
        tree.paths.log_beta += 0.3 * torch.randn(7)
    return tree


IMAGES = torch.randn(6, 1, 3, 4, generator=torch.Generator().manual_seed(1))


def test_predicts_by_the_leaf_with_the_greatest_path_probability(tree):
    for logits, image in zip(tree.eval()(IMAGES), IMAGES, strict=True):
        leaves = walk(tree, image)
        _, expected = max(leaves, key=lambda leaf: leaf[0])
        assert logits.exp().tolist() == pytest.approx(expected, rel=1e-5)
        assert sum(probability for probability, _ in leaves) == pytest.approx(1)


def test_or_by_the_mean_of_all_leaves(tree):
    tree.prediction = "mean"
    for logits, image in zip(tree.eval()(IMAGES), IMAGES, strict=True):
        leaves = walk(tree, image)
        expected = [sum(p * q[k] for p, q in leaves) for k in range(3)]
        assert logits.exp().tolist() == pytest.approx(expected, rel=1e-5)


def test_learns_from_the_mean_of_the_leaves_log_probabilities(tree):
    for logits, image in zip(tree.train()(IMAGES), IMAGES, strict=True):
        leaves = walk(tree, image)
        expected = [sum(p * math.log(q[k]) for p, q in leaves) for k in range(3)]
        assert logits.tolist() == pytest.approx(expected, rel=1e-5)


def test_decisions_that_are_certain_stay_finite_with_their_gradients(tree):
    images = (1e4 * IMAGES).requires_grad_()
    logits = tree.train()(images)
    logits.square().sum().backward()
    assert torch.isfinite(logits).all()
    assert torch.isfinite(images.grad).all()
    assert torch.isfinite(tree.eval()(images)).all()


@pytest.mark.parametrize("learn", [False, True])
def test_the_inverse_temperature_is_learned_where_that_is_wanted(learn):
    tree = SoftDecisionTree(depth=2, beta=3.0, learn_beta=learn)
    logits = tree(torch.randn(4, 1, 28, 28))
    assert logits.shape == (4, 10)
    logits.square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in tree.parameters())
    assert ("paths.log_beta" in dict(tree.named_parameters())) == learn
    assert torch.allclose(tree.state_dict()["paths.log_beta"].exp(), torch.tensor(3.0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 0}, "`depth` must be an integer >= 1, got 0"),
        ({"beta": 0.0}, "`beta` must be finite and > 0, got 0.0"),
        ({"num_classes": 0}, "`num_classes`"),
        ({"prediction": "mode"}, "`prediction` must be one of greatest_path, mean, got 'mode'"),
    ],
)
def test_refuses_bad_arguments(arguments, message):
    with pytest.raises(ConfigError, match=message):
        SoftDecisionTree(**arguments)
