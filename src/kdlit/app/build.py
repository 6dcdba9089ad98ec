"""From configuration nodes to objects, with errors that name the key."""

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from kdlit.batch import Batch
from kdlit.classifier import wants_total_steps
from kdlit.distillation import DistillationModule
from kdlit.errors import ConfigError, KdlitError
from kdlit.objectives import Objective
from kdlit.objectives.base import looks_inside

_EXTRAS = {"timm": "timm", "wandb": "wandb", "mlflow": "mlflow"}


def build(config: DictConfig, key: str, /, **arguments: Any) -> Any:
    """Instantiate the node `key` of a configuration, with further arguments that are in no file.

    Raises:
        ConfigError: if that fails, with the key and the reason.
    """
    try:
        return instantiate(config[key], **arguments)
    except HydraException as error:
        where = re.search(r"full_key: (\S+)", str(error))
        cause: BaseException = error
        while cause.__cause__ is not None and not isinstance(cause, KdlitError):
            cause = cause.__cause__
        place, text = where[1] if where else key, _way_out(cause)
        # What made parts of its own may have said more exactly where it went wrong.
        told = isinstance(cause, KdlitError) and re.match(rf"`?{re.escape(place)}\.", text)
        raise ConfigError(text if told else f"{place}: {text}") from error


def _way_out(error: BaseException) -> str:
    text = str(error)
    for package, extra in _EXTRAS.items():
        if isinstance(error, ImportError) and package in text:
            return f'{text}: it comes with pip install "kdlit[{extra}]"'
    return text if isinstance(error, KdlitError) else f"{type(error).__name__}: {text}"


def build_part(node: DictConfig, key: str, /, **arguments: Any) -> Any:
    """Instantiate a node by itself, with errors that name the `key` where it stands."""
    return build(OmegaConf.create({key: node}), key, **arguments)


def build_all(config: DictConfig, key: str) -> dict[str, Any]:
    """Instantiate every entry of a mapping of nodes, such as `callbacks`, by its name."""
    group = config.get(key)
    if not isinstance(group, DictConfig):
        return {}
    return {str(name): build(group, str(name)) for name in group if group[name] is not None}


def real_data(config: DictConfig) -> DictConfig:
    """Return the node of the data that a teacher learns and a student is tested on.

    It is `data`, or `data.real` where a run's own are made for it (`data=generated`).
    """
    node: DictConfig = config.data.get("real", config.data)
    return node


@torch.no_grad()
def check_network(network: nn.Module, data: Any, key: str) -> None:
    """Run a network on two blank samples and compare its classes with the data's.

    Nothing is checked for a datamodule that does not say `sample_shape` and `num_classes`.

    Raises:
        ConfigError: if the network cannot take the data or answers another number of classes.
    """
    shape, classes = getattr(data, "sample_shape", None), getattr(data, "num_classes", None)
    if shape is None or classes is None:
        return
    training = network.training
    network.eval()
    try:
        logits = Batch(torch.zeros(2, *shape)).run(network).logits
    except (RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{key}: {type(network).__name__} cannot take images of shape {tuple(shape)}: {error}"
        ) from error
    finally:
        network.train(training)
    if logits.shape != (2, classes):
        raise ConfigError(
            f"{key}: {type(network).__name__} answers {logits.shape[1]} classes, and the data "
            f"have {classes}"
        )


def check_objectives(
    student: nn.Module,
    teacher: nn.Module | None,
    label: Objective,
    features: Mapping[str, Objective],
    data: Any,
) -> None:
    """Set copies of the objectives up for copies of the networks and two blank samples.

    That layers fit is not checked for a datamodule that does not say `sample_shape`.

    Raises:
        ConfigError: if there is nothing to learn, no such layer, or if layers do not fit.
    """
    student, label, own = copy.deepcopy((student, label, dict(features)))
    module = DistillationModule(student, teacher, label, features=own)
    shape = getattr(data, "sample_shape", None)
    if shape is None or not any(map(looks_inside, (label, *own.values()))):
        return
    try:
        module.rehearse(Batch(torch.zeros(2, *shape)))
    except KdlitError as error:
        raise ConfigError(f"feature: {error}") from error
    except (RuntimeError, TypeError, ValueError) as error:
        names = ", ".join(features) or type(label).__name__
        raise ConfigError(f"feature: {names} cannot be set up for these layers: {error}") from error


def step_size_of(data: Any) -> int | None:
    """Return the samples of a step, where a datamodule of kdlit's gives the batches of many."""
    size: int | None = data.step_size if hasattr(data, "batches_at_once") else None
    return size


def check_optimizer(factory: Any, scheduler: Any, key: str) -> None:
    """Make an optimizer and a schedule of one number, so that bad settings fail at once.

    Raises:
        ConfigError: if one of them refuses its settings.
    """
    try:
        optimizer = factory([nn.Parameter(torch.zeros(1))])
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{key}optimizer: {error} ({_settings(factory)})") from error
    try:
        # A schedule that wants to know the number of steps is told any number.
        steps = {"total_steps": 100} if wants_total_steps(scheduler) else {}
        scheduler(optimizer, **steps)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{key}scheduler: {error} ({_settings(scheduler)})") from error


def _settings(factory: Any) -> str:
    keywords = getattr(factory, "keywords", {})
    return ", ".join(f"{name}={value}" for name, value in keywords.items())


def run_folder(config: DictConfig) -> Path:
    """Return the directory of the run that a command is to read, which may have a number as name.

    Raises:
        ConfigError: if none is named.
    """
    if OmegaConf.is_missing(config, "run") or config.run in (None, ""):
        raise ConfigError("name the run: run=<its directory>, such as outputs/soft-article/...")
    return Path(str(config.run))


def plain(node: Any) -> Any:
    """Return a node as plain dictionaries and lists, everything in it resolved."""
    return OmegaConf.to_container(node, resolve=True)
