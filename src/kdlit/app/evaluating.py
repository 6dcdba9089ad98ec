"""An evaluation: a finished run's networks asked, measured and timed, and the results written."""

import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, ListConfig
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from torch import nn

from kdlit import checks
from kdlit.app.finished import FinishedRun
from kdlit.app.summary import describe_machine
from kdlit.batch import Batch
from kdlit.data.corruptions import CORRUPTIONS
from kdlit.errors import ConfigError, TeacherError
from kdlit.evaluation.answers import (
    Asked,
    ask,
    batches_of_test,
    corrupted_batches,
    first_samples,
    why_not_corruptible,
)
from kdlit.evaluation.backends import BACKENDS, Run, call
from kdlit.evaluation.comparison import compare
from kdlit.evaluation.cost import multiply_adds, parameters, tensor_bytes
from kdlit.evaluation.document import headline, markdown, show, tables
from kdlit.evaluation.latency import WARM_UP, latencies
from kdlit.evaluation.statistics import describe_answers
from kdlit.files import is_writable, write_atomically, write_json
from kdlit.teachers import TeacherSource

log = logging.getLogger("kdlit")

_DEVICES = ("auto", "cpu", "cuda")


def evaluate(config: DictConfig) -> dict[str, Any]:
    """Do what a composed `evaluate` configuration says, and return what was found.

    Raises:
        KdlitError: for whatever can be known to be wrong, before anything is measured.
    """
    device, backends, sizes = _check(config)
    finished = _finished(config)
    out = finished.folder if config.out is None else Path(config.out)
    if not is_writable(out):
        raise ConfigError(f"{out} cannot be written: out=<folder> names where the results go")
    student, teacher = finished.student.to(device), _teacher(finished, config)
    if teacher is not None:
        teacher.to(device)
    why_not = why_not_corruptible(finished.data) if config.corruptions else "corruptions=false"
    corruptions = CORRUPTIONS if why_not is None else ()
    sizes = sizes if backends else []
    machine = describe_machine(device)
    with _progress(1 + len(corruptions) + len(sizes)) as begin:
        begin("test set")
        first = next(batches_of_test(finished.data, device))
        found = {
            "run": None if config.run is None else str(config.run),
            "student_file": str(finished.student_file),
            **_on_test_set(finished, student, teacher, first, device),
            "why_no_teacher": _why_no_teacher(finished, config),
        }
        harder = []
        for corruption in corruptions:
            begin(f"{corruption.kind} {corruption.severity:g}")
            batches = corrupted_batches(finished.data, corruption, config.seed, device)
            told = {name: getattr(corruption, name) for name in ("kind", "severity", "unit")}
            harder.append(told | _briefly(*ask(_asked(student, teacher), batches)))
        found["corruptions"] = {"seed": config.seed, "why_not": why_not, "rows": harder}
        timed = []
        for size in sizes:
            begin(f"latency, batch {size}")
            inputs = first_samples(first, size)
            networks: dict[str, nn.Module | Run] = {"student": student}
            if teacher is not None:
                whole = teacher.single_network or _run(teacher, inputs)
                networks = {"teacher": whole, **networks}
            rows = latencies(networks, inputs, backends, config.rounds, config.seconds, device)
            timed += [{**row, "batch_size": size} for row in rows]
    found["latency"] = {"warm_up": WARM_UP, "rows": timed}
    found |= machine
    title, made = headline(found), tables(found)
    show(title, made, Console(file=sys.stdout))
    _write(found, markdown(title, made), out)
    return found


def _check(config: DictConfig) -> tuple[torch.device, list[str], list[int]]:
    """Check the settings; return the device, the backends and the batch sizes."""
    if config.device not in _DEVICES:
        raise ConfigError(f"device={config.device}: choose one of {', '.join(_DEVICES)}")
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device=cuda: torch finds no such device: choose device=cpu")
    for name, example in (("latency", "[eager]"), ("batch_sizes", "[1,64]")):
        if not isinstance(config[name], ListConfig):
            raise ConfigError(f"{name}={config[name]}: it must be a list, such as {example}")
    for backend in config.latency:
        if backend not in BACKENDS:
            raise ConfigError(f"latency=[{backend}]: {checks.did_you_mean(str(backend), BACKENDS)}")
    sizes = [checks.integer("batch_sizes", size) for size in config.batch_sizes]
    if config.latency and not sizes:
        raise ConfigError("batch_sizes=[]: name one, or choose latency=[]")
    for name in ("alone", "corruptions"):
        if not isinstance(config[name], bool):
            raise ConfigError(f"{name}={config[name]}: choose true or false")
    checks.integer("seed", config.seed, least=0)
    checks.integer("rounds", config.rounds)
    checks.positive("seconds", config.seconds)
    cuda = config.device != "cpu" and torch.cuda.is_available()
    backends = list(dict.fromkeys(str(backend) for backend in config.latency))
    return torch.device("cuda" if cuda else "cpu"), backends, list(dict.fromkeys(sizes))


def _finished(config: DictConfig) -> FinishedRun:
    """Read what the command line names."""
    moved = {"data.root": config.data.root, "cache_dir": config.cache_dir}
    if config.run is not None:
        if config.weights is not None or config.config is not None:
            raise ConfigError("run= and weights= with config= are two ways: leave one of them out")
        return FinishedRun.read(config.run, moved)
    if config.weights is None:
        raise ConfigError(
            "there is nothing to evaluate: run=<directory of a run>, or "
            "weights=<file.safetensors> config=<config.yaml>"
        )
    if config.config is None:
        raise ConfigError(
            f"weights={config.weights}: config=<config.yaml> must say which network and which data "
            "it belongs to"
        )
    return FinishedRun.of_files(config.weights, config.config, moved)


def _teacher(finished: FinishedRun, config: DictConfig) -> TeacherSource | None:
    """Return the teacher to compare with, if there is one and it is asked for."""
    if config.alone:
        return None
    try:
        return finished.teacher
    except TeacherError as error:
        raise TeacherError(f"{error}; alone=true measures the student without it") from error


def _why_no_teacher(finished: FinishedRun, config: DictConfig) -> str | None:
    """Return in words why there is no teacher to compare with; None if there is."""
    if config.alone:
        return "alone=true"
    if finished.teacher is not None:
        return None
    if not finished.summary:
        return "the configuration has none that could be asked"
    had = finished.summary["teacher"]
    return f"it was {had['source']}, and is gone" if had else "the student learned without one"


def _describe(network: nn.Module, file: Path | None, first: Batch) -> dict[str, Any]:
    """Return what a network is and costs."""
    single = getattr(network, "single_network", None) or network
    described = {
        "type": type(single).__name__,
        "parameters": parameters(network),
        "bytes": tensor_bytes(network) if file is None else file.stat().st_size,
        "bytes_of": "tensors" if file is None else "file",
        "multiply_adds": None,
    }
    try:
        described["multiply_adds"] = multiply_adds(_run(network, first_samples(first, 1)))
    except (RuntimeError, NotImplementedError, TypeError, ValueError) as error:
        told = str(error).strip().splitlines() or ["no message"]
        described["why_no_multiply_adds"] = f"{type(error).__name__}: {told[0]}"
    return described


def _run(network: nn.Module, inputs: Any) -> Run:
    if isinstance(network, TeacherSource):
        return partial(network, Batch(inputs))
    return partial(call, network, inputs)


def _asked(student: nn.Module, teacher: TeacherSource | None) -> dict[str, Asked]:
    asked: dict[str, Asked] = {"student": lambda batch: batch.run(student)}
    return asked if teacher is None else {**asked, "teacher": teacher}


def _on_test_set(
    finished: FinishedRun,
    student: nn.Module,
    teacher: TeacherSource | None,
    first: Batch,
    device: torch.device,
) -> dict[str, Any]:
    """Return all that can be said of the answers to the test set, and what the networks cost."""
    logits, target = ask(_asked(student, teacher), batches_of_test(finished.data, device))
    answers = {name: {"test": describe_answers(logits[name], target)} for name in logits}
    found = {
        "student": _describe(student, finished.student_file, first) | answers["student"],
        "teacher": None,
        "comparison": None,
    }
    if teacher is not None:
        prepared = finished.prepared_teacher
        file = prepared.weights if prepared is not None else None
        found["teacher"] = _describe(teacher, file, first) | answers["teacher"]
        found["comparison"] = compare(logits["student"], logits["teacher"], target)
    return found


def _briefly(logits: Mapping[str, torch.Tensor], target: torch.Tensor) -> dict[str, Any]:
    """Return what is kept of the answers to corrupted images."""
    kept = ("count", "right", "accuracy", "interval", "ece", "nll", "brier")
    found: dict[str, Any] = {}
    for name, answers in logits.items():
        described = describe_answers(answers, target)
        found[name] = {key: described[key] for key in kept}
    if "teacher" in logits:
        beside = compare(logits["student"], logits["teacher"], target)
        found |= {name: beside[name] for name in ("agreement", "kl_from_teacher")}
    return found


@contextmanager
def _progress(total: int) -> Iterator[Callable[[str], None]]:
    """Show a bar; what it yields is called at the beginning of each of the steps."""
    columns = (TextColumn("{task.description:20}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(file=sys.stdout), transient=True) as progress:
        task, begun = progress.add_task("", total=total), 0

        def begin(told: str) -> None:
            nonlocal begun
            progress.update(task, description=told, completed=begun)
            begun += 1

        yield begin


def _write(found: dict[str, Any], text: str, folder: Path) -> None:
    write_json(folder / "evaluation.json", found)
    write_atomically(folder / "evaluation.md", lambda path: path.write_text(text, encoding="utf-8"))
    log.info("Written to %s/: evaluation.json, evaluation.md", folder)
