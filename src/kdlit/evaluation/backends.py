"""Ways to run a network whose time is taken: eager, compiled, ONNX Runtime."""

import importlib.util
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import torch
from torch import Tensor, nn

from kdlit.errors import ConfigError

_TOLERANCE = 1e-2  # compilers reorder sums; what is wrong is wrong by more
_LONGEST = 160

Run = Callable[[], Any]
"""One call of a network with inputs that it keeps; returns logits, or what has them."""


def call(network: nn.Module, inputs: Any) -> Any:
    """Call a network with a tensor, or with a mapping of keyword arguments."""
    return network(**inputs) if isinstance(inputs, Mapping) else network(inputs)


def logits_of(answer: Any) -> Tensor:
    """Return an answer's logits in float32, on the CPU."""
    logits = answer if isinstance(answer, Tensor) else answer.logits
    return torch.as_tensor(logits).float().cpu()


def eager(network: nn.Module, inputs: Any) -> Run:
    """Run a network as it is."""
    return lambda: call(network, inputs)


def compiled(network: nn.Module, inputs: Any) -> Run:
    """Run a network through `torch.compile` with its defaults, for inputs of this shape."""
    made: Any = torch.compile(network, dynamic=False)
    return lambda: call(made, inputs)


def onnx(network: nn.Module, inputs: Any) -> Run:
    """Run a network in ONNX Runtime on the CPU, with torch's number of threads.

    Raises:
        ConfigError: if a package is missing, or the inputs are not one tensor on the CPU.
    """
    missing = [
        name
        for name in ("onnx", "onnxscript", "onnxruntime")
        if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise ConfigError(
            f'{" and ".join(missing)} not installed: it comes with pip install "kdlit[export]"'
        )
    if not isinstance(inputs, Tensor):
        raise ConfigError("only networks that take one tensor are exported")
    if inputs.device.type != "cpu":
        raise ConfigError("measured on the CPU alone: device=cpu")
    import onnxruntime

    program = torch.onnx.export(network, (inputs,), dynamo=True, verbose=False)
    assert program is not None  # noqa: S101 - it is None only where a file was asked for
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(
        program.model_proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    named = {session.get_inputs()[0].name: inputs.numpy()}
    return lambda: torch.from_numpy(session.run(None, named)[0])


BACKENDS: Mapping[str, Callable[[nn.Module, Any], Run]] = {
    "eager": eager,
    "compile": compiled,
    "onnx": onnx,
}


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what compilers and exporters say of their work off the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            redirect_stdout(io.StringIO()),
            redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@torch.no_grad()
def prepare(backend: str, network: nn.Module, inputs: Any) -> Run:
    """Make a network ready in a backend, and compare its answers with the network's own.

    Raises:
        ConfigError: if the backend cannot run it or answers otherwise, with the reason in a line.

    >>> run = prepare("eager", nn.Linear(3, 2), torch.zeros(4, 3))
    >>> run().shape
    torch.Size([4, 2])
    """
    expected = logits_of(call(network, inputs))
    with quiet():
        try:
            run = BACKENDS[backend](network, inputs)
            found = logits_of(run())
        except ConfigError:
            raise
        except Exception as error:  # compilers and exporters have many types
            raise ConfigError(f"{type(error).__name__}: {_first_line(error)}") from error
    off = float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
    if not off <= _TOLERANCE:
        raise ConfigError(f"its logits differ from eager's by {off:.1e} of the largest")
    return run


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no message"]
    return lines[0] if len(lines[0]) <= _LONGEST else f"{lines[0][: _LONGEST - 3]}..."
