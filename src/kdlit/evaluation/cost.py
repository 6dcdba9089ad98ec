"""What a network costs: numbers to store, bytes, multiply-adds."""

from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def parameters(network: nn.Module) -> int:
    """Return the number of a network's parameters.

    >>> parameters(nn.Linear(3, 2))
    8
    """
    return sum(parameter.numel() for parameter in network.parameters())


def tensor_bytes(network: nn.Module) -> int:
    """Return the bytes of a network's parameters and buffers.

    >>> tensor_bytes(nn.BatchNorm1d(2))  # four vectors of 2 float32, and an int64
    40
    """
    state = network.state_dict().values()
    return sum(tensor.numel() * tensor.element_size() for tensor in state)


@torch.no_grad()
def multiply_adds(run: Callable[[], object]) -> int:
    """Return the multiply-adds of one call: half of what `torch.utils.flop_counter` counts.

    It counts matrix products, convolutions and attention; additions of a bias, normalisation,
    activations and pooling are not counted.

    >>> network = nn.Sequential(nn.Linear(5, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> multiply_adds(lambda: network(torch.zeros(1, 5))) == 5 * 3 + 3 * 2
    True
    """
    with FlopCounterMode(display=False) as counter:
        run()
    flops: int = counter.get_total_flops()
    return flops // 2
