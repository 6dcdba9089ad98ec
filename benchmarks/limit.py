"""How far a step is from what the machine could do, and where its time goes."""

import statistics
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from kdlit.functional import soft_label_loss
from kdlit.models import ArticleCNN

BATCH = 64
# What torch's operators belong to.
PARTS: Mapping[str, tuple[str, ...]] = {
    "convolutions, forward": ("aten::mkldnn_convolution", "aten::cudnn_convolution"),
    "convolutions, backward": ("aten::convolution_backward",),
    "pooling": ("aten::max_pool2d_with_indices", "aten::max_pool2d_with_indices_backward"),
    "linear layers": ("aten::addmm", "aten::mm"),
    "optimizer": (
        "Optimizer.step#Adam.step", "aten::_fused_adam_", "Optimizer.zero_grad#Adam.zero_grad",
    ),
}  # fmt: skip


def multiply_adds(network: nn.Module) -> int:
    """Return a network's multiply-adds for one image, forward."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(torch.zeros(1, 1, 28, 28))
    return int(counter.get_total_flops()) // 2


def _step() -> "tuple[nn.Module, torch.optim.Optimizer, Tensor, Tensor]":
    torch.manual_seed(0)
    network = ArticleCNN()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    return network, optimizer, torch.randn(BATCH, 1, 28, 28), torch.randn(BATCH, 10)


def _train(network: nn.Module, optimizer: Any, images: Tensor, teacher: Tensor) -> None:
    logits = network(images)
    target = teacher.argmax(dim=1)
    loss = 0.9 * soft_label_loss(logits, teacher, 4.0) + 0.1 * F.cross_entropy(logits, target)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def physical_limit(steps: int) -> list[Mapping[str, Any]]:
    """Compare a step with its multiply-adds at the rate of a large matrix product.

    A training step has three times the multiply-adds of the forward pass, less the gradient of
    the images, which nobody asks for.
    """
    size = 1024
    left, right = torch.randn(size, size), torch.randn(size, size)
    rate = size**3 / median_seconds(lambda: left @ right, 20)
    forward = multiply_adds(ArticleCNN())
    first = 24 * 24 * 10 * 25  # the first convolution's gradient of its input
    needed = BATCH * (3 * forward - first)
    parts = _step()
    seconds = median_seconds(lambda: _train(*parts), steps)
    return [{
        "student's multiply-adds, forward": forward,
        "multiply-adds a step": needed,
        "matrix product, 10⁹ multiply-adds/s": rate / 1e9,
        "limit, ms": 1e3 * needed / rate,
        "step, ms": 1e3 * seconds,
        "step / limit": seconds * rate / needed,
    }]  # fmt: skip


def median_seconds(call: Any, times: int) -> float:
    """Return the median seconds of some calls, after a few that are not counted."""
    for _ in range(max(times // 10, 2)):
        call()
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def where_the_time_goes(steps: int) -> list[Mapping[str, Any]]:
    """Return the shares of a step's time by a profile of the CPU, which itself takes time."""
    parts = _step()
    for _ in range(max(steps // 10, 2)):
        _train(*parts)
    with profile(activities=[ProfilerActivity.CPU]) as found:
        for _ in range(steps):
            _train(*parts)
    part_of = {name: part for part, names in PARTS.items() for name in names}
    spent: dict[str, float] = defaultdict(float)
    for event in found.key_averages():
        spent[part_of.get(event.key, "everything else")] += event.self_cpu_time_total
    total = sum(spent.values())
    order = sorted(spent, key=lambda name: -spent[name])
    return [{"part": name, "share, %": 100 * spent[name] / total} for name in order]
