"""What a run leaves behind: `summary.json`, and one table on the terminal."""

import platform
import sys
from collections.abc import Iterator, Sized
from importlib.metadata import version
from typing import Any

import lightning.pytorch as pl
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

PACKAGES = ("kdlit", "torch", "torchvision", "lightning", "torchmetrics", "hydra-core", "numpy")
_METRICS = ("accuracy", "ece", "nll")


def describe_network(network: nn.Module | None) -> dict[str, Any] | None:
    """Return a network's type, its number of parameters, and the bytes of its weights."""
    if network is None:
        return None
    state = network.state_dict().values()
    return {
        "type": type(network).__name__,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "bytes": sum(tensor.numel() * tensor.element_size() for tensor in state),
    }


def training_samples(trainer: pl.Trainer) -> int | None:
    """Return how many samples a trainer has been fitted to, where the data set can say."""
    dataset = getattr(trainer.train_dataloader, "dataset", None)
    return len(dataset) if isinstance(dataset, Sized) else None


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Return the versions that a result may depend on, and the device."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "device": {"type": device.type, "name": name, "threads": torch.get_num_threads()},
        "versions": {"python": platform.python_version()}
        | {package: version(package) for package in PACKAGES},
    }


def split_metrics(found: dict[str, float], stage: str = "test") -> dict[str, dict[str, float]]:
    """Sort `test/...` values into the student's and the teacher's.

    >>> split_metrics({"test/accuracy": 0.9, "test/teacher_accuracy": 1.0, "val/nll": 0.3})
    {'student': {'accuracy': 0.9}, 'teacher': {'accuracy': 1.0}}
    """
    sorted_: dict[str, dict[str, float]] = {"student": {}, "teacher": {}}
    for name, value in found.items():
        prefix, _, metric = name.partition("/")
        if prefix == stage:
            who = "teacher" if metric.startswith("teacher_") else "student"
            sorted_[who][metric.removeprefix("teacher_")] = value
    return sorted_


def print_table(summary: dict[str, Any]) -> None:
    """Print teacher against student."""
    console = Console(file=sys.stdout)
    label = summary["config"]["label"]["_target_"].rsplit(".", 1)[-1]
    told = ", ".join(in_words(summary["config"]["label"]))
    # Not the table's own title, which would be broken to the table's width.
    console.print(f"{label}{f' ({told})' if told else ''}, seed {summary['seed']}", highlight=False)
    if summary["teacher"] and "teacher" in summary["teacher"]["card"]:
        console.print(f"chain: {_chain(summary)}", highlight=False)
    table = Table(caption="measured on the test set", caption_justify="left")
    table.add_column("")
    teacher, student = summary["teacher"], summary["student"]
    columns = [column for column in (teacher, student) if column is not None]
    for column in columns:
        table.add_column("student" if column is student else "teacher", justify="right")

    def row(title: str, *cells: str) -> None:
        table.add_row(title, *cells)

    row("network", *(column["type"] for column in columns))
    row("parameters", *(f"{column['parameters']:,}" for column in columns))
    row("size", *(_bytes(column["bytes"]) for column in columns))
    row("training images", *(_count(column.get("training_samples")) for column in columns))
    row("accuracy", *(f"{100 * column['test']['accuracy']:.2f} %" for column in columns))
    row("calibration error", *(f"{100 * column['test']['ece']:.2f} %" for column in columns))
    row("log-likelihood loss", *(f"{column['test']['nll']:.4f}" for column in columns))
    if teacher is not None:
        row("agreement", "", f"{100 * student['test']['agreement']:.2f} %")
        row("KL from the teacher", "", f"{student['test']['kl_from_teacher']:.4f}")
    seconds = summary["seconds"]
    row("training", *([_teacher_time(teacher)] if teacher else []), f"{seconds['fit']:.0f} s")
    console.print(table)


def _chain(summary: dict[str, Any]) -> str:
    """Return the student and every teacher before it with its accuracy, the first teacher first."""
    told, member = [], summary["student"]
    before = summary["teacher"]
    while member is not None:
        told.append(f"{member['type']} {100 * member['test']['accuracy']:.2f} %")
        member, before = before, before and before["card"].get("teacher")
    return ", ".join(reversed(told))


def in_words(node: dict[str, Any]) -> Iterator[str]:
    """Yield a node's settings in words, and a node within it by its class and settings.

    >>> label = {"_target_": "kdlit.SoftLabels", "alpha": 0.9, "transform": None}
    >>> list(in_words(label))
    ['alpha 0.9']
    >>> list(in_words({**label, "transform": {"_target_": "kdlit.objectives.TopK", "k": 5}}))
    ['alpha 0.9', 'TopK (k 5)']
    """
    for name, value in node.items():
        if name.startswith("_") or value is None:
            continue
        if isinstance(value, dict) and "_target_" in value:
            inner = ", ".join(in_words(value))
            yield value["_target_"].rsplit(".", 1)[-1] + (f" ({inner})" if inner else "")
        else:
            yield f"{name} {value}"


def _teacher_time(teacher: dict[str, Any]) -> str:
    trained = teacher["card"].get("seconds")
    if trained is None:
        return str(teacher["card"].get("training", "from a file"))
    return f"{trained:.0f} s" + ("" if teacher["source"] == "trained now" else ", cached")


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _bytes(count: int) -> str:
    """Return a size for people.

    >>> _bytes(87360)
    '87 kB'
    """
    return f"{count / 1e3:.0f} kB" if count < 1e6 else f"{count / 1e6:.1f} MB"
