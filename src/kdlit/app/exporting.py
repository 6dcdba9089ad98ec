"""A finished run's student in several formats: each is written, read again, compared, then kept."""

import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor

from kdlit import checks
from kdlit.app.build import run_folder
from kdlit.app.exportable import dataset_of, facts_of, student_of
from kdlit.app.finished import FinishedRun
from kdlit.errors import ConfigError, ExportError, KdlitError
from kdlit.export.card import model_card
from kdlit.export.check import Reference
from kdlit.export.files import ExportedFile
from kdlit.export.formats import FORMATS, Format, Student, formats_of
from kdlit.export.quiet import quiet
from kdlit.files import state_fingerprint, write_atomically, write_json
from kdlit.loading import StudentCard

log = logging.getLogger("kdlit")

EXPORT_FILE, CARD_FILE = "export.json", "README.md"
_PIXELS = {"false": None, "true": torch.uint8, "uint8": torch.uint8, "float32": torch.float32}


@dataclass(frozen=True)
class _Options:
    """The settings of the command, checked."""

    run: Path
    out: Path
    formats: list[Format]
    pixels: torch.dtype | None
    samples: int
    tolerance: float
    int8_tolerance: float
    calibration_samples: int

    @classmethod
    def of(cls, config: DictConfig) -> "_Options":
        run = run_folder(config)
        formats = formats_of(config.formats)
        word = str(config.preprocessing).lower()
        if word not in _PIXELS:
            raise ConfigError(
                f"preprocessing={config.preprocessing}: choose one of {', '.join(_PIXELS)}"
            )
        if _PIXELS[word] is not None and [found.name for found in formats] == ["safetensors"]:
            raise ConfigError(
                f"preprocessing={config.preprocessing}: a file of weights prepares nothing; add "
                "onnx, program or int8 to the formats"
            )
        return cls(
            run=run,
            out=run / "export" if config.out is None else Path(str(config.out)),
            formats=formats,
            pixels=_PIXELS[word],
            samples=checks.integer("samples", config.samples),
            tolerance=checks.non_negative("tolerance", config.tolerance),
            int8_tolerance=checks.non_negative("int8_tolerance", config.int8_tolerance),
            calibration_samples=checks.integer("calibration_samples", config.calibration_samples),
        )


def export(config: DictConfig) -> list[ExportedFile]:
    """Do what a composed configuration says, print the table, and return what is exported.

    Raises:
        KdlitError: for what can be known to be wrong before any work, and if a file does not
            answer as the student does. Such a file is not kept; those before it are.
    """
    options = _Options.of(config)
    run = FinishedRun.read(
        options.run, {"data.root": config.data.root, "cache_dir": config.cache_dir}
    )
    student, target = student_of(run, options.pixels, options.samples, options.calibration_samples)
    weights = state_fingerprint(student.network.state_dict())
    files = _before(options, weights)
    reference = Reference(student.network, student.images, target)
    console = Console(file=sys.stdout)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as shown:
        for kind in options.formats:
            files[kind.name] = _write(kind, student, reference, options, shown)
            # After each file, so that they always agree with what is there.
            known = [files[name] for name in FORMATS if name in files]
            _describe(options.out, run, student.card, weights, known)
    _print_table(known, console)
    log.info("Written to %s/", options.out)
    return known


# Files -------------------------------------------------------------------------------------


def _before(options: _Options, weights: str) -> dict[str, ExportedFile]:
    """Return what has been exported of this student before, by format.

    Raises:
        ConfigError: if the folder holds another student's files, or files that are no export's.
    """
    out = options.out
    path = out / EXPORT_FILE
    if not path.is_file():
        ours = (CARD_FILE, *(kind.file for kind in options.formats))
        others = [name for name in ours if (out / name).exists()]
        if others:
            raise ConfigError(
                f"{out} holds {' and '.join(others)}, which no export has written: choose another "
                "folder with out=<folder>"
            )
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        files = [ExportedFile(**entry) for entry in found["files"]]
        same = found["weights"] == weights
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{path} cannot be read: {error}; remove {out}") from error
    if not same:
        raise ConfigError(
            f"{out} holds files of a student with other weights: remove it, or choose another "
            "folder with out=<folder>"
        )
    return {file.format: file for file in files if (out / file.file).is_file()}


def _write(
    kind: Format, student: Student, reference: Reference, options: _Options, shown: Progress
) -> ExportedFile:
    """Write a file, compare it with the student, and put it into its place if it is good."""
    task = shown.add_task(kind.file, total=len(reference.parts) + 1)

    def parts() -> Iterable[Tensor]:
        for part in reference.parts:
            yield part
            shown.advance(task)

    takes, inputs = kind.takes(student)
    with _stage(options.out) as folder:
        staged = Path(folder, kind.file)
        try:
            with quiet():
                kind.write(student, staged)
                shown.advance(task)
                found = reference.compare(kind.read(student, staged), inputs, parts())
            kind.require(found, options.tolerance, options.int8_tolerance)
        except KdlitError as error:
            raise ExportError(f"{options.out / kind.file} is not written: {error}") from error
        except Exception as error:  # each exporter has its own types
            told = f"{type(error).__name__}: {error}".strip().splitlines()[0]
            raise ExportError(f"{options.out / kind.file} is not written: {told}") from error
        size = staged.stat().st_size
        os.replace(staged, options.out / kind.file)
    return ExportedFile(
        format=kind.name,
        file=kind.file,
        bytes=size,
        takes=takes,
        largest_difference=found.largest_difference,
        equal_decisions=found.equal_decisions,
        accuracy=found.accuracy,
        accuracy_of_student=found.accuracy_of_student,
        samples=found.samples,
        versions={package: version(package) for package in ("kdlit", "torch", *kind.needs)},
    )


@contextmanager
def _stage(out: Path) -> Iterator[str]:
    """Give a folder beside the files, for one that is not known to be good; then remove it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=out, prefix=".")
    except OSError as error:
        raise ConfigError(f"out={out} cannot be written: {error}") from error
    try:
        with folder as name:
            yield name
    finally:
        with suppress(OSError):  # there are files in it
            out.rmdir()


def _describe(
    out: Path, run: FinishedRun, card: StudentCard, weights: str, files: Sequence[ExportedFile]
) -> None:
    """Write `export.json` and the model card."""
    write_json(out / EXPORT_FILE, {"weights": weights, "files": [vars(file) for file in files]})
    text = model_card(
        name=run.summary["student"]["type"],
        dataset=dataset_of(run),
        facts=facts_of(run),
        card=card,
        files=files,
    )
    write_atomically(out / CARD_FILE, lambda path: path.write_text(text, encoding="utf-8"))


# The terminal ------------------------------------------------------------------------------


def _print_table(files: Sequence[ExportedFile], console: Console) -> None:
    # Without an edge it fits 80 columns.
    table = Table(show_edge=False, pad_edge=False)
    for title in ("format", "file"):
        table.add_column(title, no_wrap=True)
    for title in ("bytes", "largest difference", "equal decisions", "accuracy"):
        table.add_column(title, justify="right")
    for file in files:
        table.add_row(
            file.format,
            file.file,
            f"{file.bytes:,}",
            f"{file.largest_difference:.2g}",
            f"{100 * file.equal_decisions:.2f} %",
            f"{100 * file.accuracy:.2f} %",
        )
    console.print(table)
    samples = sorted({file.samples for file in files})
    console.print(
        f"compared with the student on {' or '.join(f'{n:,}' for n in samples)} test images",
        highlight=False,
    )
