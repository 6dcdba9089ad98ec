"""Measure how cost grows: with samples, teacher, batch, classes, processes; see README.md."""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from limit import median_seconds, multiply_adds, physical_limit, where_the_time_goes
from torch import nn
from work import REPOSITORY

from kdlit import CachedTeacher, DistillationModule, FrozenTeacher, SoftLabels
from kdlit.batch import Outputs
from kdlit.data import MNISTDataModule
from kdlit.files import write_atomically, write_json
from kdlit.models import ArticleCNN, ConvNet
from kdlit.teachers.table import Table, TableWriter

Row = Mapping[str, Any]
SAMPLES = (10_000, 30_000, 100_000, 300_000, 600_000)
BATCHES = (16, 64, 256, 1024)
CLASSES = (10, 1_000, 10_000, 100_000)
TOP_K = 10
# The student's own network, and wider ones.
TEACHERS: Mapping[str, Callable[[], nn.Module]] = {
    "ArticleCNN": ArticleCNN,
    "ConvNet 16-32-64": partial(ConvNet, channels=[16, 32, 64]),
    "ConvNet 64-128-256": partial(ConvNet, channels=[64, 128, 256]),
    "ConvNet 160-320-640": partial(ConvNet, channels=[160, 320, 640]),
    "ConvNet 280-560-1120": partial(ConvNet, channels=[280, 560, 1120]),
}


class RandomImages(MNISTDataModule):
    """As many images of MNIST's form as one likes; what they show does not matter for the time."""

    def __init__(self, samples: int, batch_size: int = 64) -> None:
        super().__init__(batch_size=batch_size, batches_at_once=32, index=True)
        self.samples = samples

    def prepare_data(self) -> None:
        """Nothing is downloaded."""

    def setup(self, stage: str | None = None) -> None:
        """Draw images and labels."""
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(256, (self.samples, 28, 28), dtype=torch.uint8, generator=generator)
        labels = torch.randint(10, (self.samples,), generator=generator)
        self.train_data = self._dataset(images, labels, torch.arange(self.samples))


class EpochClock(pl.Callback):
    """Times each epoch of training."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._start = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock."""
        self.seconds.append(time.perf_counter() - self._start)


def distil(
    teacher: nn.Module, data: RandomImages, epochs: int, folder: Path | None
) -> dict[str, Any]:
    """Return the seconds of an epoch, the median of several, and of filling the table in `folder`.

    Without a folder the teacher is asked in every step.
    """
    torch.manual_seed(0)
    source = FrozenTeacher(teacher) if folder is None else CachedTeacher(teacher, folder)
    module = DistillationModule(
        ArticleCNN(), source, SoftLabels(), partial(torch.optim.Adam, lr=1e-3, fused=True),
        step_size=data.step_size,
    )  # fmt: skip
    clock = EpochClock()
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=epochs, limit_val_batches=0, logger=False, callbacks=[clock],
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, data)
    told = {"epoch": statistics.median(clock.seconds), "steps": trainer.global_step // epochs}
    if isinstance(source, CachedTeacher):
        told |= {"fill": source.seconds, "bytes": source.tables["train"].bytes}
    return told


def by_samples(counts: Sequence[int]) -> list[Row]:
    """One epoch, and the filling before it, for numbers of samples."""
    rows = []
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            told = distil(ArticleCNN(), RandomImages(count), 1, Path(folder))
        rows.append({
            "samples": count,
            "filling, s": told["fill"],
            "epoch, s": told["epoch"],
            "epoch, µs a sample": 1e6 * told["epoch"] / count,
            "table, MB": told["bytes"] / 1e6,
        })  # fmt: skip
    return rows


def by_teacher(samples: int) -> list[Row]:
    """A step with a live teacher and with its outputs kept, for teachers of many sizes."""
    own = multiply_adds(ArticleCNN())
    rows = []
    for name, make in TEACHERS.items():
        with tempfile.TemporaryDirectory() as folder:
            live = distil(make(), RandomImages(samples), 1, None)
            kept = distil(make(), RandomImages(samples), 3, Path(folder))
        rows.append({
            "teacher": name,
            "multiply-adds / the student's": multiply_adds(make()) / own,
            "live, ms a step": 1e3 * live["epoch"] / live["steps"],
            "kept, ms a step": 1e3 * kept["epoch"] / kept["steps"],
            "filling, ms a step of one epoch": 1e3 * kept["fill"] / kept["steps"],
        })  # fmt: skip
    return rows


def by_batch(samples: int) -> list[Row]:
    """An epoch for batch sizes."""
    rows = []
    for size in BATCHES:
        with tempfile.TemporaryDirectory() as folder:
            told = distil(ArticleCNN(), RandomImages(samples, size), 3, Path(folder))
        rows.append({
            "batch": size,
            "ms a step": 1e3 * told["epoch"] / told["steps"],
            "µs a sample": 1e6 * told["epoch"] / samples,
        })  # fmt: skip
    return rows


def by_classes(samples: int) -> list[Row]:
    """What is kept of a sample, and looking up a batch of 64, for numbers of classes."""
    rows = []
    for classes in CLASSES:
        row: dict[str, Any] = {"classes": classes}
        said = Outputs(torch.randn(samples, classes))
        for title, top_k in (("all", None), (f"top {TOP_K}", TOP_K)):
            with tempfile.TemporaryDirectory() as folder:
                new, place = Path(folder, "new"), Path(folder, "table")
                new.mkdir()
                writer = TableWriter(
                    new, torch.arange(samples), 1, said, "float32", top_k, create=True
                )
                writer.write(0, 0, said)
                writer.flush()
                writer.finish(place, {}, 0.0)
                table = Table(place, {})
                row[f"{title}, bytes a sample"] = table.bytes / samples
                row[f"{title}, ms a batch of 64"] = 1e3 * median_seconds(
                    lambda table=table: table.outputs(torch.randint(samples, (64,)), 0),
                    30,
                )
        rows.append(row)
    return rows


def by_processes(samples: int) -> list[Row]:
    """The command on one process and on two, with as many threads in all as there are cores."""
    cores = os.cpu_count() or 1
    rows = []
    for processes in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            trainer = (
                ["trainer=cpu"]
                if processes == 1
                else ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
            )
            threads = {"OMP_NUM_THREADS": str(max(cores // processes, 1))}
            subprocess.run(  # noqa: S603
                [sys.executable, str(REPOSITORY / "scripts" / "train.py"), *trainer,
                 "teacher=article", "teacher.trainer.max_epochs=1", "teacher.data.train_size=1000",
                 f"data.train_size={samples}", f"data.batch_size={64 // processes}",
                 f"data.root={REPOSITORY / 'data'}", "trainer.max_epochs=2",
                 f"cache_dir={folder}/cache", f"hydra.run.dir={folder}/run"],
                check=True, env={**os.environ, **threads}, stdout=subprocess.DEVNULL,
            )  # fmt: skip
            summary = json.loads(Path(folder, "run", "summary.json").read_text(encoding="utf-8"))
        rows.append({
            "processes": processes,
            "threads in each": int(threads["OMP_NUM_THREADS"]),
            "filling, s": summary["outputs"]["seconds"],
            "fit of 2 epochs without filling, s": summary["seconds"]["fit"]
            - summary["outputs"]["seconds"],
            "test accuracy, %": 100 * summary["student"]["test"]["accuracy"],
        })  # fmt: skip
    return rows


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a trial: hundreds of samples")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "benchmarks" / "results")
    parser.add_argument(
        "--only", nargs="+", metavar="TITLE", help="measure these parts anew, and keep the others"
    )
    asked = parser.parse_args()
    few = asked.quick
    parts: Mapping[str, Callable[[], list[Row]]] = {
        "Samples": lambda: by_samples((500, 1_000) if few else SAMPLES),
        "Teacher": lambda: by_teacher(128 if few else 1_024),
        "Batch size": lambda: by_batch(1_024 if few else 10_240),
        "Classes": lambda: by_classes(64 if few else 500),
        "Processes": lambda: by_processes(500 if few else 30_000),
        "Physical limit": lambda: physical_limit(20 if few else 300),
        "Where a step's time goes": lambda: where_the_time_goes(20 if few else 200),
    }
    unknown = set(asked.only or ()) - set(parts)
    if unknown:
        parser.error(f"--only: there is no {unknown.pop()!r}; choose of {', '.join(parts)}")
    path = asked.out / f"{'growth-trial' if few else 'growth'}.json"
    results: dict[str, Any] = {}
    if asked.only and path.is_file():
        results = json.loads(path.read_text(encoding="utf-8"))
    for title, measure in parts.items():
        if asked.only and title not in asked.only:
            continue
        print(f"{title} ...", file=sys.stderr)
        results[title] = {
            "rows": measure(),
            "date": f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC",
            "machine": {
                "cpu": platform.processor() or platform.machine(),
                "cores": os.cpu_count(),
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
            },
        }
    results = {title: results[title] for title in parts if title in results}
    write_json(path, results)
    text = markdown(results)
    write_atomically(
        path.with_suffix(".md"), lambda temporary: temporary.write_text(text, encoding="utf-8")
    )
    print(f"Written to {path} and .md")


def markdown(results: Mapping[str, Any]) -> str:
    """Return the tables as Markdown."""
    parts = [
        "# How cost grows\n\nWritten by `python benchmarks/growth.py`. One run of each; README.md "
        "says what is measured."
    ]
    for title, part in results.items():
        rows, machine = part["rows"], part["machine"]
        names = list(rows[0])
        lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
        lines += [f"| {' | '.join(_cell(row[name]) for name in names)} |" for row in rows]
        told = (
            f"{part['date']}: {machine['cpu']}, {machine['cores']} cores, {machine['threads']} "
            f"threads, torch {machine['torch']}."
        )
        parts.append(f"## {title}\n\n{told}\n\n" + "\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _cell(value: object) -> str:
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    main()
