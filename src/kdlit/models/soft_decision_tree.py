"""A binary tree of linear filters whose decisions are soft, and so are learned by gradients."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlit import checks
from kdlit.errors import ConfigError
from kdlit.functional.precision import float32_at_least

PREDICTIONS = ("greatest_path", "mean")
"""What a tree may predict by."""


class SoftDecisionTree(nn.Module):
    r"""Inner nodes send a sample to the right with a probability; leaves hold distributions.

    .. math:: p_i(x) = \sigma\bigl(\beta (w_i \cdot x + b_i)\bigr), \quad
        Q^\ell = \mathrm{softmax}(\phi^\ell)

    The probability :math:`P^\ell(x)` of a leaf is the product of the decisions on its path. In
    evaluation the tree predicts the distribution of the leaf with the greatest path probability,
    which is a decision that can be followed filter by filter, or the mean over all leaves, which
    cannot:

    .. math:: z(x) = \log Q^{\arg\max_\ell P^\ell(x)} \quad\text{or}\quad
        z(x) = \log \sum_\ell P^\ell(x) \, Q^\ell

    In training the logits are the leaves' log probabilities, averaged over the paths:

    .. math:: z(x) = \sum_\ell P^\ell(x) \log Q^\ell

    They are not normalised. Then :math:`-t \cdot z` is the paper's loss, each leaf's cross-entropy
    with the target t, weighted by its path probability; :class:`kdlit.objectives.SoftTree` makes it
    of a label strategy's cross-entropy.

    Layers are named `flatten`, `filters` (activations without :math:`\beta`, one for each inner
    node) and `paths` (:class:`PathProbabilities`). Nodes are numbered level by level from the root,
    each level from left to right.

    Args:
        in_features: values per sample; 784 for 28x28 grey images.
        num_classes: C.
        depth: decisions on the way to a leaf; there are 2^depth leaves.
        beta: the inverse temperature :math:`\beta` > 0 of the decisions.
        learn_beta: whether each inner node learns its own, from `beta` on. The paper does not say
            whether its own is learned.
        prediction: `greatest_path` or `mean`.

    Shape:
        input (N, ...) with `in_features` values per sample, output logits (N, C).

    Raises:
        ConfigError: if a setting is out of range.

    Source: Frosst, Hinton, "Distilling a Neural Network Into a Soft Decision Tree", 2017
    (arXiv:1711.09784).

    >>> tree = SoftDecisionTree(depth=3).eval()
    >>> tree.filters.out_features, tuple(tree.leaves.shape)
    (7, (8, 10))
    >>> torch.allclose(tree(torch.zeros(2, 1, 28, 28)).exp().sum(dim=1), torch.ones(2))
    True
    """

    def __init__(
        self,
        in_features: int = 784,
        num_classes: int = 10,
        depth: int = 8,
        beta: float = 1.0,
        learn_beta: bool = False,
        prediction: str = "greatest_path",
    ) -> None:
        super().__init__()
        checks.integer("in_features", in_features)
        checks.integer("num_classes", num_classes)
        checks.integer("depth", depth)
        if prediction not in PREDICTIONS:
            raise ConfigError(
                f"`prediction` must be one of {', '.join(PREDICTIONS)}, got {prediction!r}"
            )
        self.prediction = prediction
        self.flatten = nn.Flatten()
        self.filters = nn.Linear(in_features, 2**depth - 1)
        self.paths = PathProbabilities(depth, beta, learn_beta)
        self.leaves = nn.Parameter(torch.randn(2**depth, num_classes))

    @property
    def depth(self) -> int:
        """Decisions on the way to a leaf."""
        return self.paths.depth

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits."""
        nodes: Tensor = self.paths(self.filters(self.flatten(inputs)))
        paths = nodes[:, -len(self.leaves) :]
        leaves = F.log_softmax(float32_at_least(self.leaves), dim=1)
        if self.training:
            return paths.exp() @ leaves
        if self.prediction == "mean":
            return torch.logsumexp(paths[:, :, None] + leaves, dim=1)
        return leaves[paths.argmax(dim=1)]

    def extra_repr(self) -> str:
        """Show how it predicts."""
        return f"leaves={tuple(self.leaves.shape)}, prediction={self.prediction}"


class PathProbabilities(nn.Module):
    r"""The logarithm of the probability that a sample comes by a node, for every node of a tree.

    .. math:: \log P^{2i+2}(x) = \log P^i(x) + \log \sigma(\beta a_i), \quad
        \log P^{2i+1}(x) = \log P^i(x) + \log \sigma(-\beta a_i), \quad \log P^0(x) = 0

    Args:
        depth: levels of inner nodes.
        beta: the inverse temperature > 0.
        learn_beta: whether each inner node learns its own.

    Shape:
        activations a (N, 2^depth - 1), output (N, 2^(depth + 1) - 1) in float32 at least: the nodes
        level by level, the leaves last.

    >>> PathProbabilities(depth=2)(torch.zeros(1, 3)).exp()
    tensor([[1.0000, 0.5000, 0.5000, 0.2500, 0.2500, 0.2500, 0.2500]])
    """

    def __init__(self, depth: int, beta: float = 1.0, learn_beta: bool = False) -> None:
        super().__init__()
        self.depth = depth
        betas = torch.full((2**depth - 1,), checks.positive("beta", beta)).log()
        if learn_beta:
            self.log_beta = nn.Parameter(betas)
        else:
            self.register_buffer("log_beta", betas)

    def forward(self, activations: Tensor) -> Tensor:
        """Return the logarithms of the path probabilities."""
        decisions = float32_at_least(activations) * self.log_beta.exp()
        right = F.logsigmoid(decisions)
        left = right - decisions
        level = decisions.new_zeros(len(decisions), 1)
        levels = [level]
        for depth in range(self.depth):
            nodes = slice(2**depth - 1, 2 ** (depth + 1) - 1)
            children = (level + left[:, nodes], level + right[:, nodes])
            level = torch.stack(children, dim=2).flatten(1)
            levels.append(level)
        return torch.cat(levels, dim=1)

    def extra_repr(self) -> str:
        """Show the depth."""
        return f"depth={self.depth}, learn_beta={isinstance(self.log_beta, nn.Parameter)}"
