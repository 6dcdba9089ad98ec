"""Reading and writing of a network's weights, without running code from the file."""

import json
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kdlit.errors import ConfigError
from kdlit.files import write_atomically

_PREFIXES = ("student.", "network.", "model.", "net.", "module.", "_orig_mod.")
_SHOWN = 5


def save_weights(path: Path, network: nn.Module, metadata: Mapping[str, Any] | None = None) -> None:
    """Write a network's state as safetensors, atomically, with metadata as JSON texts in it."""
    state = {name: tensor.contiguous().clone() for name, tensor in network.state_dict().items()}
    texts = {key: json.dumps(value) for key, value in (metadata or {}).items()}
    write_atomically(path, lambda temporary: save_file(state, temporary, metadata=texts))


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the metadata that :func:`save_weights` wrote."""
    with safe_open(path, framework="pt") as opened:
        return {key: json.loads(text) for key, text in (opened.metadata() or {}).items()}


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Return the tensors in a .safetensors file, a Lightning .ckpt or a saved state dict.

    Pickles are loaded with `weights_only=True`: tensors and plain containers, no code.

    Raises:
        ConfigError: if the file is missing, damaged, or holds anything else.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"there is no file {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            # torch warns of unusual pickles before it refuses them.
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise ConfigError(f"{path} is damaged or not a safetensors file: {error}") from error
    except pickle.UnpicklingError as error:
        raise ConfigError(
            f"{path} holds objects other than tensors and plain containers, which are not loaded "
            "because they could run code. Save the network's state_dict() instead"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{path} is damaged or not a file of weights: {error}") from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise ConfigError(f"{path} is not a state dict: it must map names to tensors")
    return dict(content)


def load_weights(network: nn.Module, path: str | Path) -> None:
    """Load a file's weights into a network; all of them or, on error, none.

    A prefix that a wrapper has put before every name (`student.`, `network.`, `model.`, ...) is
    taken off where that makes the names fit; entries of other parts of a wrapper are ignored.

    Raises:
        ConfigError: if the file cannot be read, or its names or shapes are not the network's.
    """
    state = read_state(path)
    wanted = network.state_dict()
    for prefix in _PREFIXES:
        if set(state) >= set(wanted):
            break
        inner = {key.removeprefix(prefix): v for key, v in state.items() if key.startswith(prefix)}
        if set(inner) & set(wanted) or any(key.startswith(_PREFIXES) for key in inner):
            state = inner
    _check_fit(wanted, state, path)
    network.load_state_dict(state)


def _check_fit(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor], path: str | Path) -> None:
    missing = [name for name in wanted if name not in state]
    unexpected = [name for name in state if name not in wanted]
    shapes = [
        f"{name} is {tuple(state[name].shape)} where {tuple(tensor.shape)} is needed"
        for name, tensor in wanted.items()
        if name in state and state[name].shape != tensor.shape
    ]
    found = {"missing keys": missing, "unexpected keys": unexpected, "shapes": shapes}
    if any(found.values()):
        told = "; ".join(f"{what}: {_some(names)}" for what, names in found.items() if names)
        raise ConfigError(f"{path} holds the weights of another network. {told}")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
