"""Reading and writing of a network's weights, without running code from the file."""

import json
import os
import pickle
import re
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

_PREFIXES = ("student.", "network.", "model.", "net.", "module.")
_COMPILED = "_orig_mod."
_SHOWN = 5


def save_weights(path: Path, network: nn.Module, metadata: Mapping[str, Any] | None = None) -> None:
    """Write a network's state as safetensors, atomically, with metadata as JSON texts in it."""
    state = {name: tensor.contiguous().clone() for name, tensor in network.state_dict().items()}
    texts = {key: json.dumps(value) for key, value in (metadata or {}).items()}

    def write(temporary: Path) -> None:
        try:
            save_file(state, temporary, metadata=texts)
        except SafetensorError as error:
            number = re.search(r"os error (\d+)", str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from error

    write_atomically(path, write)


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the metadata that :func:`save_weights` wrote."""
    with safe_open(path, framework="pt") as opened:
        return {key: json.loads(text) for key, text in (opened.metadata() or {}).items()}


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Return the tensors in a .safetensors file, a Lightning .ckpt or a saved state dict.

    Pickles are loaded with `weights_only=True`: tensors and plain containers, no code. Objects of
    other kinds beside the `state_dict` of a Lightning checkpoint, such as hyperparameters that are
    paths or modules, are not made; where one is a subclass of a list or mapping torch refuses the
    file.

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
        content = _checkpoint_without_objects(path)
        if content is None:
            raise ConfigError(
                f"{path} holds objects other than tensors and plain containers, which are not "
                "loaded because they could run code. Save the network's state_dict() instead"
            ) from error
    except Exception as error:  # a damaged pickle makes the unpickler stumble in any way
        raise ConfigError(f"{path} is damaged or not a file of weights: {error}") from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not _is_state(content):
        raise ConfigError(f"{path} is not a state dict: it must map names to tensors")
    return dict(content)


class _Inert:
    """Stands for an object that is not made."""

    def __new__(cls, *args: object, **kwargs: object) -> "_Inert":
        return super().__new__(cls)

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def _checkpoint_without_objects(path: Path) -> Any:
    """Return a checkpoint's content with inert objects for what is not loaded, or None.

    None, too, if what is inert belongs to its `state_dict`.
    """
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        # Nothing that the file names is imported: all names stand for one class that does nothing.
        with torch.serialization.safe_globals([(_Inert, name) for name in names]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # what is inert may be of no use where it stands
        return None
    found = isinstance(content, Mapping) and _is_state(content.get("state_dict"))
    return content if found else None


def _is_state(content: object) -> bool:
    return isinstance(content, Mapping) and all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    )


def load_weights(network: nn.Module, path: str | Path, prefix: str | None = None) -> nn.Module:
    """Load a file's weights into a network; all of them or, on error, none.

    A wrapper has put a prefix before every name: `student.` or `network.` in kdlit's checkpoints,
    the name of an attribute in those of somebody's LightningModule. It is found by the names of
    the network, and what else the file holds is ignored.

    Args:
        network: any network of the file's kind, in place.
        path: a .safetensors file, a Lightning .ckpt or a saved state dict.
        prefix: the attribute under which the file holds the network, such as `backbone`; needed
            where the names fit under more than one. None finds it.

    Returns:
        The network.

    Raises:
        ConfigError: if the file cannot be read, its names or shapes are not the network's, or if
            it holds more than one network that fits.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     theirs = nn.ModuleDict({"backbone": nn.Linear(2, 3), "head": nn.Linear(3, 1)})
    ...     torch.save({"state_dict": theirs.state_dict()}, f"{folder}/their.ckpt")
    ...     network = load_weights(nn.Linear(2, 3), f"{folder}/their.ckpt", prefix="backbone")
    >>> torch.equal(network.weight, theirs["backbone"].weight)
    True
    """
    wanted = network.state_dict()
    # What torch.compile puts between names, as if nothing had been compiled.
    state = {name.replace(_COMPILED, ""): value for name, value in read_state(path).items()}
    names = {name.replace(_COMPILED, ""): name for name in wanted}
    if prefix is None:
        state = _without_prefix(state, set(names), path)
    else:
        start = f"{prefix.removesuffix('.')}."
        inner = {key.removeprefix(start): v for key, v in state.items() if key.startswith(start)}
        if not inner:
            found = sorted({name.partition(".")[0] for name in state})
            raise ConfigError(
                f"{path} holds nothing under {prefix!r}: `prefix` must begin with one of "
                f"{_some(found)}"
            )
        state = inner
    state = {names.get(name, name): value for name, value in state.items()}
    _check_fit(wanted, state, path)
    network.load_state_dict(state)
    return network


def _without_prefix(
    state: dict[str, Tensor], wanted: set[str], path: str | Path
) -> dict[str, Tensor]:
    """Return the part of a state under the one prefix that makes its names fit, or all of it."""

    def under(prefix: str) -> dict[str, Tensor]:
        return {key.removeprefix(prefix): v for key, v in state.items() if key.startswith(prefix)}

    if not wanted or set(state) >= wanted:
        return state
    one = min(wanted)
    ends = {name.removesuffix(one) for name in state if name.endswith(f".{one}")}
    fitting = sorted(prefix for prefix in ends if set(under(prefix)) >= wanted)
    # A checkpoint of kdlit's may hold an average of the student, or peers, beside it.
    own = [prefix for prefix in _PREFIXES if prefix in fitting][:1]
    if len(fitting) > 1 and not own:
        told = ", ".join(prefix.removesuffix(".") for prefix in fitting)
        raise ConfigError(
            f"{path} holds more than one network of this kind: say with `prefix` which of {told} "
            "is meant"
        )
    if fitting:
        return under((own or fitting)[0])
    near = [prefix for prefix in _PREFIXES if set(under(prefix)) & wanted]
    return under(near[0]) if near else state


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
