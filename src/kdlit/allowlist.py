"""Networks by what a file says of them, without the file having a say in what is run.

The metadata of a weights file are data from somewhere. Hydra would call whatever a `_target_`
names; here a `_target_` is one of a few known names, and its arguments are plain values.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from kdlit import models
from kdlit.errors import ConfigError

ALLOWED = "kdlit.models.<name>, timm.create_model and torchvision.models.<function>"
_WAY_OUT = "build the network yourself and pass it as `network=`"
# Hydra's, which change nothing where all values are plain.
_IGNORED = ("_target_", "_convert_", "_recursive_")
# Where pretrained weights come from: the file has better ones.
_WEIGHTS_OF_OTHERS = (
    "pretrained", "weights", "progress", "checkpoint_path", "cache_dir",
)  # fmt: skip
# With pretrained weights torchvision makes them another network than without.
_CHANGED_BY_WEIGHTS = ("googlenet", "inception_v3")


def build_network(node: object) -> nn.Module:
    """Make the network that a node names: a mapping with a `_target_` and its arguments.

    Allowed are the networks of :mod:`kdlit.models`, `timm.create_model` with a name of timm's own
    registry, and the functions in torchvision's registry of classifiers. Weights of others are
    never loaded.

    Args:
        node: such as `{"_target_": "kdlit.models.MLP", "widths": [16]}`.

    Raises:
        ConfigError: if it names anything else, or if an argument is no plain value or is refused
            by what takes it.

    >>> type(build_network({"_target_": "kdlit.models.MLP", "widths": [16]})).__name__
    'MLP'
    >>> build_network({"_target_": "os.system", "command": "echo"})
    Traceback (most recent call last):
    kdlit.errors.ConfigError: 'os.system' is not among what a file may name (kdlit.models.<name>, \
timm.create_model and torchvision.models.<function>): build the network yourself and pass it as \
`network=`
    """
    if not isinstance(node, Mapping) or not isinstance(node.get("_target_"), str):
        raise ConfigError(f"it does not name a network: {_WAY_OUT}")
    target: str = node["_target_"]
    arguments = {name: value for name, value in node.items() if name not in _IGNORED}
    maker = _maker(target, arguments)
    try:
        for name, value in arguments.items():
            if not isinstance(name, str) or name.startswith("_") or not _plain(value):
                raise ConfigError(f"{target}: `{name}` is no plain value: {_WAY_OUT}")
        return maker(arguments)
    except ConfigError:
        raise
    except Exception as error:  # whatever a constructor finds wrong, or values nested too deep
        raise ConfigError(f"{target}: {type(error).__name__}: {error}: {_WAY_OUT}") from error


def _maker(target: str, arguments: Mapping[str, Any]) -> Callable[[dict[str, Any]], nn.Module]:
    """Return what makes a network of the arguments."""
    home, _, name = target.rpartition(".")
    if home == "kdlit.models" and name in models.__all__:
        network: Callable[..., nn.Module] = getattr(models, name)
        return lambda given: network(**_without_weights(given))
    if target == "timm.create_model":
        return _timm
    if home == "torchvision.models":
        from torchvision import models as torchvisions

        if name in torchvisions.list_models(module=torchvisions):
            if name in _CHANGED_BY_WEIGHTS and (
                arguments.get("weights") or arguments.get("pretrained")
            ):
                raise ConfigError(
                    f"{target} is another network with pretrained weights than without: {_WAY_OUT}"
                )
            return lambda given: torchvisions.get_model(name, **_without_weights(given))
    raise ConfigError(f"{target!r} is not among what a file may name ({ALLOWED}): {_WAY_OUT}")


def _timm(arguments: dict[str, Any]) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise ConfigError(f'{error}: it comes with pip install "kdlit[timm]"') from error
    name = arguments.get("model_name")
    # A name may also be a repository or a folder, whose files say what is made.
    if not isinstance(name, str) or not name.replace("_", "").replace(".", "").isalnum():
        raise ConfigError(f"timm.create_model: {name!r} is no name of a network: {_WAY_OUT}")
    for key in ("pretrained_cfg", "pretrained_cfg_overlay"):
        if arguments.get(key):
            raise ConfigError(f"timm.create_model: `{key}` is not read from a file: {_WAY_OUT}")
    network: nn.Module = timm.create_model(**_without_weights(arguments), pretrained=False)
    return network


def _without_weights(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in arguments.items() if key not in _WEIGHTS_OF_OTHERS}


def _plain(value: object) -> bool:
    """Return whether a value is of numbers, texts, lists and mappings, none of which is a node.

    >>> _plain([1, "relu", {"rate": 0.5}]), _plain({"_target_": "os.system"})
    (True, False)
    """
    if isinstance(value, Mapping):
        return all(
            isinstance(key, str) and not key.startswith("_") and _plain(inner)
            for key, inner in value.items()
        )
    if isinstance(value, list):
        return all(map(_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))
