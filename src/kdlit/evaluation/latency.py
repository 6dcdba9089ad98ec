"""How long a call takes: everybody in turn, so that what slows the machine slows all alike."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from kdlit.errors import ConfigError
from kdlit.evaluation.backends import Run, prepare

WARM_UP = 10
"""Calls of each before the clock is started."""
FEWEST = 10
"""Rounds that are measured, however long they take."""


def interleaved(
    runs: Sequence[Callable[[], object]],
    rounds: int,
    seconds: float,
    synchronize: Callable[[], object] = lambda: None,
) -> list[list[float]]:
    """Return the seconds of each call, over rounds in which everybody is called once.

    Each round has an order of its own, the same in every process, so that nobody always runs in
    the wake of the same one: in its caches, and beside its threads that still wait for work.

    Args:
        runs: what is called.
        rounds: how many rounds, at most.
        seconds: after so much time no further round begins, once there are `FEWEST`.
        synchronize: waits until a device has done what it was told.

    >>> [len(times) for times in interleaved([list, dict], rounds=20, seconds=60)]
    [20, 20]
    """
    for run in runs:
        for _ in range(WARM_UP):
            run()
    times: list[list[float]] = [[] for _ in runs]
    shuffler = np.random.default_rng(0)
    begun = time.perf_counter()
    for number in range(rounds):
        if number >= FEWEST and time.perf_counter() - begun > seconds:
            break
        for place in shuffler.permutation(len(runs)):
            synchronize()
            start = time.perf_counter()
            runs[place]()
            synchronize()
            times[place].append(time.perf_counter() - start)
    return times


@torch.no_grad()
def latencies(
    networks: Mapping[str, nn.Module | Run],
    inputs: Any,
    backends: Sequence[str],
    rounds: int,
    seconds: float,
    device: torch.device,
) -> list[dict[str, Any]]:
    """Return the latency of networks in backends, for inputs of one size.

    Args:
        networks: by name; what is not one network but a call, in eager alone.
        inputs: what networks are called with.
        backends: of :data:`kdlit.evaluation.backends.BACKENDS`.
        rounds: see :func:`interleaved`.
        seconds: likewise.
        device: where the networks lie.

    Returns:
        For each network and backend its names, and `median_ms`, `p95_ms`, `rounds`; or `why_not`.

    >>> (row,) = latencies({"student": nn.Linear(2, 2)}, torch.zeros(1, 2), ["eager"], 10, 1,
    ...                    torch.device("cpu"))
    >>> row["network"], row["backend"], row["rounds"], row["median_ms"] <= row["p95_ms"]
    ('student', 'eager', 10, True)
    """
    if "compile" in backends:
        # What was compiled for other sizes counts towards a limit, behind which torch gives up.
        torch.compiler.reset()
    rows: list[dict[str, Any]] = []
    ready: list[tuple[dict[str, Any], Run]] = []
    for backend in backends:
        for name, network in networks.items():
            row: dict[str, Any] = {"network": name, "backend": backend}
            rows.append(row)
            try:
                ready.append((row, _ready(network, backend, inputs)))
            except ConfigError as error:
                row["why_not"] = str(error)
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    times = interleaved([run for _, run in ready], rounds, seconds, wait)
    for (row, _), taken in zip(ready, times, strict=True):
        median, p95 = np.percentile(np.array(taken), [50, 95])
        row |= {
            "median_ms": 1e3 * float(median),
            "p95_ms": 1e3 * float(p95),
            "rounds": len(taken),
        }
    return rows


def _ready(network: nn.Module | Run, backend: str, inputs: Any) -> Run:
    if isinstance(network, nn.Module):
        return prepare(backend, network, inputs)
    if backend != "eager":
        raise ConfigError("it is not one network")
    return network
