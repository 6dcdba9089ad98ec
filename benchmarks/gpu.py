"""All that needs a GPU, in one command: tests on it, and seconds per epoch; see README.md."""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from contenders import COMMON, SOFT, TEACHER
from loops import PlainCNN, in_memory, plain_teacher, soft_loss, subset
from omegaconf import open_dict
from preparation import prepare
from runs import composed
from torch import Tensor
from torch.utils.data import DataLoader
from work import REPOSITORY, Work

from kdlit.app.run import run
from kdlit.files import write_atomically, write_json

TESTS = ("tests/test_distillation.py", "tests/test_steps.py", "tests/teachers")
SIZES = (64, 1024)
ON_GPU = ("data.on_device=true",)  # the accelerator is set below
RUNS: Mapping[str, tuple[str, ...]] = {
    "kdlit": (),
    "kdlit, bf16-mixed": ("trainer.precision=bf16-mixed",),
    "kdlit, compiled": ("compile=default",),
    "kdlit, CUDA graphs": ("compile=reduce-overhead",),
}
TARGETS = {"article": 0.10, "bare": 1.15}


class EpochClock(pl.Callback):
    """Times each epoch of training, up to the last kernel."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        torch.cuda.synchronize()
        self._start = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock."""
        torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - self._start)


CLOCKS: list[EpochClock] = []


def clock() -> EpochClock:
    """Return a new clock, and keep it; a configuration's `_target_`."""
    CLOCKS.append(EpochClock())
    return CLOCKS[-1]


def loop(work: Work, batches: Callable[[], Iterable[tuple[Tensor, Tensor]]], epochs: int) -> float:
    """Return the seconds of an epoch, without the first, of the article's networks on the GPU."""
    teacher, student = plain_teacher(work).cuda(), PlainCNN().cuda()
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-3)
    seconds = []
    for _ in range(epochs + 1):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for images, labels in batches():
            images, labels = images.cuda(), labels.cuda()
            logits = student(images)
            with torch.no_grad():
                answer = teacher(images)
            loss = soft_loss(logits, answer, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def article(work: Work, size: int, epochs: int) -> float:
    """The article's loop, its images transformed one by one."""
    loader = DataLoader(subset(work, 0), batch_size=size, shuffle=True)
    return loop(work, lambda: loader, epochs)


def bare(work: Work, size: int, epochs: int) -> float:
    """The same networks on images that lie on the GPU."""
    images, labels = (part.cuda() for part in in_memory(work, work.images(0)))

    def batches() -> Iterable[tuple[Tensor, Tensor]]:
        for chosen in torch.randperm(len(labels), device="cuda").split(size):
            yield images[chosen], labels[chosen]

    return loop(work, batches, epochs)


def kdlit(work: Work, size: int, epochs: int, extra: tuple[str, ...]) -> dict[str, Any]:
    """A full run; the first epoch, with what is compiled in it, is left out."""
    with tempfile.TemporaryDirectory() as folder:
        config = composed((*SOFT, *TEACHER, *ON_GPU, *extra), Path(folder), work.teachers, None)
        config.data.batch_size = size
        with open_dict(config):
            config.trainer.update(accelerator="gpu", max_epochs=epochs + 1)
            config.trainer.check_val_every_n_epoch = epochs + 1
            config.callbacks.clock = {"_target_": f"{__name__}.clock"}
        summary = run(config)
    return {
        "seconds": statistics.median(CLOCKS[-1].seconds[1:]),
        "accuracy": summary["student"]["test"]["accuracy"],
    }


def tests() -> bool:
    """Run the tests of teacher, steps and precision on the GPU; return whether they pass."""
    environment = {**os.environ, "KDLIT_TEST_ACCELERATOR": "gpu"}
    command = [sys.executable, "-m", "pytest", "-q", *TESTS]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, check=False)  # noqa: S603
    return done.returncode == 0


def main() -> None:
    """Do all of it, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=3, help="timed, behind a first one")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "cache" / "benchmarks")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "benchmarks" / "results")
    asked = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("there is no GPU that torch can use here")
    passed = tests()
    work = Work(asked.work.resolve())
    prepare(work, ["article", "bare-live"], None, 1)
    rows: list[dict[str, Any]] = []
    for size in SIZES:
        found: dict[str, dict[str, Any]] = {
            "article": {"seconds": article(work, size, asked.epochs)},
            "bare": {"seconds": bare(work, size, asked.epochs)},
        }
        for name, extra in RUNS.items():
            found[name] = kdlit(work, size, asked.epochs, extra)
        for name, told in found.items():
            ratios = {other: told["seconds"] / found[other]["seconds"] for other in TARGETS}
            rows.append({"name": name, "batch": size, **told, "ratios": ratios})
    results = {
        "date": f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC",
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "setting": list(COMMON),
        "tests_pass": passed,
        "rows": rows,
    }
    write_json(asked.out / "gpu.json", results)
    text = markdown(results)
    write_atomically(asked.out / "gpu.md", lambda path: path.write_text(text, encoding="utf-8"))
    print(text)
    sys.exit(0 if passed else 1)


def markdown(results: Mapping[str, Any]) -> str:
    """Return the results as a table."""
    lines = [
        f"# On {results['device']}",
        "",
        f"Written by `python benchmarks/gpu.py` on {results['date']}, torch {results['torch']}. "
        f"The tests on the GPU {'pass' if results['tests_pass'] else '**fail**'}. Targets for "
        f"kdlit: {TARGETS['article']:.2f} of the article's loop, {TARGETS['bare']:.2f} of the bare "
        "one.",
        "",
        "| | batch | seconds per epoch | / article | / bare | test accuracy, % |",
        "|---|---|---|---|---|---|",
    ]
    for row in results["rows"]:
        accuracy = f"{100 * row['accuracy']:.2f}" if "accuracy" in row else ""
        lines.append(
            f"| {row['name']} | {row['batch']} | {row['seconds']:.3f} | "
            f"{row['ratios']['article']:.3f} | {row['ratios']['bare']:.3f} | {accuracy} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
