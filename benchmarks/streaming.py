"""Measure the memory of a training on data that need not fit into it; see README.md."""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import litdata
import torch
from torch import Tensor, nn
from work import REPOSITORY

from kdlit import CachedTeacher, DistillationModule, SoftLabels
from kdlit.data import InMemoryDataset, StreamingDataModule, write_shards
from kdlit.data.loading import as_it_is
from kdlit.files import write_atomically, write_json

MILLION = 1_000_000
SIZES = (1, 2, 5, 10)
FEATURES, CLASSES, BATCH = 16, 10, 1024
WRITTEN_AT_ONCE = 100_000
EVERY = 0.05
"""Seconds between two looks at the memory."""


def rule() -> nn.Linear:
    """Return the map whose largest output is a sample's label; it is the teacher too."""
    generator = torch.Generator().manual_seed(0)
    linear = nn.Linear(FEATURES, CLASSES)
    with torch.no_grad():
        linear.weight.copy_(torch.randn(linear.weight.shape, generator=generator))
        linear.bias.zero_()
    return linear


def scaled(inputs: Tensor) -> Tensor:
    """Map bytes to [-2, 2]."""
    return inputs.float().div_(63.75).sub_(2)


@torch.no_grad()
def samples(count: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches of random bytes and their labels."""
    linear, generator = rule(), torch.Generator().manual_seed(seed)
    for start in range(0, count, WRITTEN_AT_ONCE):
        shape = (min(WRITTEN_AT_ONCE, count - start), FEATURES)
        inputs = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
        yield inputs, linear(scaled(inputs)).argmax(dim=1).to(torch.uint8)


class Watch:
    """Looks at the process's own memory again and again, and notes how far the work is.

    What counts is `RssAnon`: pages that belong to no file. Pages of a mapped file (`RssFile`) are
    the kernel's cache, which it takes back when memory is short.
    """

    def __init__(self) -> None:
        self.phase, self.samples = "starting", 0
        self.looks: list[tuple[str, int, float, float, float]] = []
        self._begun = time.perf_counter()
        self._thread = threading.Thread(target=self._look_again_and_again, daemon=True)
        self._thread.start()

    def begin(self, phase: str) -> None:
        """Name what comes next; look at least at its beginning and its end."""
        self._look()
        self.phase, self.samples = phase, 0
        self._look()

    def _look_again_and_again(self) -> None:
        while True:
            self._look()
            time.sleep(EVERY)

    def _look(self) -> None:
        told = dict(
            line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines()
        )
        anonymous, files = (int(told[name].split()[0]) for name in ("RssAnon", "RssFile"))
        now = time.perf_counter() - self._begun
        self.looks.append((self.phase, self.samples, now, anonymous / 1024, files / 1024))

    def told(self) -> dict[str, Any]:
        """Return each phase's seconds and peaks in MiB, and the peaks up to each million."""
        self._look()
        found: dict[str, Any] = {}
        for phase in dict.fromkeys(look[0] for look in self.looks):
            own = [look for look in self.looks if look[0] == phase]
            found[phase] = {
                "seconds": own[-1][2] - own[0][2],
                "samples": own[-1][1],
                "anonymous": max(look[3] for look in own),
                "files": max(look[4] for look in own),
                "anonymous by million": {
                    size: max(look[3] for look in own if look[1] <= size * MILLION)
                    for size in SIZES
                    if size * MILLION <= own[-1][1] * 1.01
                },
            }
        return found


class Counting(nn.Module):
    """The teacher, telling the watch how many samples it has seen."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.layer, self._watch = rule(), watch

    def forward(self, inputs: Tensor) -> Tensor:
        """Answer a batch."""
        self._watch.samples += len(inputs)
        logits: Tensor = self.layer(inputs)
        return logits


class Progress(pl.Callback):
    """Tells the watch how far the training is."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The teacher's outputs are there."""
        self._watch.begin("training")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count."""
        self._watch.samples += len(batch[2])

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The epoch is over."""
        if not trainer.sanity_checking:
            self._watch.begin("validation")


class InMemory(StreamingDataModule):
    """The same samples as tensors in memory: what is compared with."""

    def setup(self, stage: str | None = None) -> None:
        """Read all shards."""
        super().setup(stage)
        for name, data in self.splits.items():
            parts = [
                data.__getitems__(range(start, min(start + WRITTEN_AT_ONCE, len(data))))
                for start in range(0, len(data), WRITTEN_AT_ONCE)
            ]
            whole = InMemoryDataset(*map(torch.cat, zip(*parts, strict=True)))
            self.splits[name] = whole  # type: ignore[assignment]

    def train_dataloader(self) -> Any:
        """Shuffle as torch does."""
        return torch.utils.data.DataLoader(
            self.splits["train"], self.batch_size * self.batches_at_once, shuffle=True,
            collate_fn=as_it_is, generator=torch.Generator().manual_seed(0),
        )  # fmt: skip


def one(root: Path, *, in_memory: bool) -> dict[str, Any]:
    """Fill a table and train an epoch, in this process; return what the watch saw."""
    watch = Watch()
    kind = InMemory if in_memory else StreamingDataModule
    data = kind(root, BATCH, batches_at_once=8, eval_batch_size=8192, transform=scaled, seed=0)
    teacher = CachedTeacher(
        Counting(watch), root / f"outputs-{in_memory}", dtype="float16", batch_size=8192
    )
    torch.manual_seed(0)
    student = nn.Sequential(nn.Linear(FEATURES, 32), nn.ReLU(), nn.Linear(32, CLASSES))
    module = DistillationModule(
        student, teacher, SoftLabels(temperature=1.0),
        partial(torch.optim.Adam, lr=3e-3, fused=True), step_size=data.step_size,
    )  # fmt: skip
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, callbacks=[Progress(watch)],
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        num_sanity_val_steps=0,
    )  # fmt: skip
    watch.begin("filling")
    trainer.fit(module, data)
    return {
        **watch.told(),
        "steps": trainer.global_step,
        "table, MB": teacher.tables["train"].bytes / 1e6,
        "accuracy": trainer.callback_metrics["val/accuracy"].item(),
    }


def write(root: Path, count: int) -> dict[str, Any]:
    """Write the shards in this process; return what the watch saw."""
    watch = Watch()
    watch.begin("writing")
    write_shards(root / "train", samples(count, seed=1))
    write_shards(root / "val", samples(10_000, seed=2))
    return watch.told()


def _apart(*arguments: str) -> dict[str, Any]:
    """Run a part of this command in a process of its own."""
    done = subprocess.run(  # noqa: S603
        [sys.executable, __file__, *arguments], check=True, stdout=subprocess.PIPE, text=True
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measure(count: int, *, compared: bool) -> dict[str, Any]:
    """Write a data set, train on it as a stream, and if `compared` in memory too."""
    with tempfile.TemporaryDirectory(prefix="kdlit-streaming-") as folder:
        told = {"samples": count, "writing": _apart("--write", folder, str(count))["writing"]}
        files = [path for path in Path(folder, "train").iterdir() if path.is_file()]
        told["shards, MB"] = sum(path.stat().st_size for path in files) / 1e6
        told["streaming"] = _apart("--one", folder)
        if compared:
            told["in memory"] = _apart("--one", folder, "--in-memory")
    return told


def main() -> None:
    """Measure everything, and write it down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--millions", type=float, nargs="+", default=SIZES)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "benchmarks" / "results")
    parser.add_argument("--name", default="streaming", help="of the files")
    parser.add_argument("--write", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--in-memory", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        print(json.dumps(write(Path(options.write[0]), int(options.write[1]))))
        return
    if options.one:
        print(json.dumps(one(Path(options.one), in_memory=options.in_memory)))
        return
    counts = [int(size * MILLION) for size in options.millions]
    rows = []
    for count in counts:
        rows.append(measure(count, compared=count in (min(counts), max(counts))))
        print(json.dumps(rows[-1]), flush=True)
    results = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"litdata {litdata.__version__}",
        "when": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "load": os.getloadavg()[2],
        "rows": rows,
    }
    write_json(options.out / f"{options.name}.json", results)
    text = markdown(results)
    write_atomically(
        options.out / f"{options.name}.md", lambda path: path.write_text(text, encoding="utf-8")
    )


def markdown(results: Mapping[str, Any]) -> str:
    """Return the tables."""
    rows: Sequence[Mapping[str, Any]] = results["rows"]
    last = rows[-1]
    lines = [
        "# Data larger than memory",
        "",
        "Written by `python benchmarks/streaming.py`. One run of each; README.md says what is "
        "measured.",
        f"{results['when']}: {results['machine']}; load of the last 15 minutes at the end "
        f"{results['load']:.1f}.",
        "",
        "## Peak anonymous memory, MiB",
        "",
        "| samples | shards, MB | table, MB | writing | imported | filling | training | validation "
        "| in memory: filling | training |",
        "|---" * 10 + "|",
    ]
    for row in rows:
        stream, other = row["streaming"], row.get("in memory")
        phases = ("starting", "filling", "training", "validation")
        peaks = [row["writing"], *(stream[name] for name in phases)]
        peaks += [other[name] for name in ("filling", "training")] if other else [None, None]
        cells = [
            f"{row['samples']:,}", f"{row['shards, MB']:.0f}", f"{stream['table, MB']:.0f}",
            *("" if peak is None else f"{peak['anonymous']:.1f}" for peak in peaks),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        f"## Within the run of {last['samples']:,} samples: peak up to here, MiB",
        "",
        "| samples | filling | training |",
        "|---|---|---|",
    ]
    filling, training = (
        last["streaming"][name]["anonymous by million"] for name in ("filling", "training")
    )
    lines += [
        f"| {int(float(size) * MILLION):,} | {filling[size]:.1f} | {training[size]:.1f} |"
        for size in training
        if size in filling
    ]
    lines += [
        "",
        "## Seconds",
        "",
        "| samples | writing | filling | training | steps | validation accuracy |",
        "|---" * 6 + "|",
    ]
    for row in rows:
        stream = row["streaming"]
        lines.append(
            f"| {row['samples']:,} | {row['writing']['seconds']:.1f} | "
            f"{stream['filling']['seconds']:.1f} | {stream['training']['seconds']:.1f} | "
            f"{stream['steps']:,} | {stream['accuracy']:.4f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
