"""Optimizers that keep the weights within bounds."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from kdlit import checks
from kdlit.classifier import OptimizerFactory


def with_max_norm(
    parameters: Iterable[nn.Parameter],
    optimizer: OptimizerFactory,
    max_norm: float,
    **settings: Any,
) -> Optimizer:
    r"""Make an optimizer that bounds each unit's incoming weights after every step.

    .. math:: w_u \leftarrow w_u \min\left(1, \frac{c}{\lVert w_u \rVert_2}\right)

    for each row w_u of a weight matrix (for each filter of a convolution), also of the last
    layer's. Biases, and whatever else is a vector, are left alone. Weights begin as they are made:
    the first step is the first that bounds them.

    Args:
        parameters: of the network.
        optimizer: makes the optimizer, such as `torch.optim.Adam`.
        max_norm: c > 0.
        settings: further arguments of `optimizer`, such as `lr`.

    Raises:
        ConfigError: if `max_norm` is not > 0.

    Source: Hinton et al., "Improving neural networks by preventing co-adaptation of feature
    detectors", 2012, section 2 (arXiv:1207.0580).

    >>> layer = nn.Linear(2, 1, bias=False)
    >>> _ = layer.weight.data.copy_(torch.tensor([[3.0, 4.0]]))
    >>> layer.weight.grad = torch.zeros(1, 2)
    >>> with_max_norm(layer.parameters(), torch.optim.SGD, max_norm=1.0, lr=0.1).step()
    >>> layer.weight.data
    tensor([[0.6000, 0.8000]])
    """
    limit = checks.positive("max_norm", max_norm)
    made = optimizer(parameters, **settings)

    @torch.no_grad()
    def bound(optimizer: Optimizer, *_: Any) -> None:
        for group in optimizer.param_groups:
            for weight in group["params"]:
                if weight.ndim > 1:
                    incoming = tuple(range(1, weight.ndim))
                    norm = torch.linalg.vector_norm(weight, dim=incoming, keepdim=True)
                    weight.mul_(limit / norm.clamp_min(limit))

    made.register_step_post_hook(bound)
    return made
