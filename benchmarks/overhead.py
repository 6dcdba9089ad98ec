"""What kdlit adds to a step, measured in turns within one process; see README.md."""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from contenders import LEARNING_RATE, SETTINGS
from loops import PlainCNN, in_memory, shuffled, train
from omegaconf import open_dict
from preparation import prepare
from runs import composed
from torch import Tensor, nn
from work import REPOSITORY, Work

from kdlit.app.run import run
from kdlit.files import write_atomically, write_json
from kdlit.models import ArticleCNN

NAMES = ("kdlit-truth", "kdlit")


class Turns(pl.Callback):
    """Behind each of the loader's batches does as many steps of other loops, and times both.

    What is timed of kdlit is all that happens between two such interruptions: its steps, and
    everything that Lightning and it do around a batch.
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self._images, self._labels = images, labels
        self._loops: dict[str, tuple[nn.Module, torch.optim.Optimizer]] = {}
        for name, network, fused in (("bare", ArticleCNN(), True), ("plain", PlainCNN(), False)):
            optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE, fused=fused)
            self._loops[name] = (network, optimizer)
        self.seconds: dict[str, list[float]] = {"kdlit": [], **{name: [] for name in self._loops}}
        self._steps, self._start = 0, 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._steps, self._start = trainer.global_step, time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        """Stop the clock, let the others have their turn, and start it again."""
        steps = trainer.global_step - self._steps
        self.seconds["kdlit"].append((time.perf_counter() - self._start) / steps)
        for name, (network, optimizer) in self._loops.items():
            batches = islice(shuffled(self._images, self._labels), steps)
            seconds, done = train(network, None, batches, optimizer)
            self.seconds[name].append(seconds / done)
        self._steps, self._start = trainer.global_step, time.perf_counter()


def measure(work: Work, name: str) -> dict[str, list[float]]:
    """Return the seconds a step of each turn but the first, of kdlit's run and of the loops."""
    turns = Turns(*in_memory(work, work.images(0)))
    with tempfile.TemporaryDirectory() as folder:
        config = composed(SETTINGS[name], Path(folder), work.cache(name, 0, None), None)
        with open_dict(config):
            config.callbacks.turns = {"_target_": f"{__name__}.given"}
        GIVEN.append(turns)
        run(config)
    return {who: seconds[1:] for who, seconds in turns.seconds.items()}


GIVEN: list[Turns] = []


def given() -> Turns:
    """Return the callback of the run that is measured; a configuration's `_target_`."""
    return GIVEN[-1]


def row(name: str, seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Return medians, and the quartiles of the ratios of turns that followed one another."""
    told: dict[str, Any] = {"name": name, "turns": len(seconds["kdlit"])}
    for who, values in seconds.items():
        told[f"{who}, ms"] = 1e3 * statistics.median(values)
    for other in ("bare", "plain"):
        ratios = [a / b for a, b in zip(seconds["kdlit"], seconds[other], strict=True)]
        told[f"ratio to {other}"] = statistics.quantiles(ratios, n=4)
    return told


def markdown(rows: Sequence[dict[str, Any]], date: str) -> str:
    """Return the rows as a table."""
    lines = [
        "# What kdlit adds to a step",
        "",
        f"Written by `python benchmarks/overhead.py` on {date}, torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads. Medians, with the quartiles of neighbouring turns' "
        "ratios.",
        "",
        "| run | turns of 32 steps | kdlit, ms a step | the same network bare | the plain network "
        "bare | kdlit / same | kdlit / plain |",
        "|---|---|---|---|---|---|---|",
    ]
    for told in rows:
        low, mid, high = told["ratio to bare"]
        least, middle, most = told["ratio to plain"]
        lines.append(
            f"| `{told['name']}` | {told['turns']} | {told['kdlit, ms']:.2f} | "
            f"{told['bare, ms']:.2f} | {told['plain, ms']:.2f} | {mid:.3f} [{low:.3f}, {high:.3f}] "
            f"| {middle:.3f} [{least:.3f}, {most:.3f}] |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "cache" / "benchmarks")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "benchmarks" / "results")
    asked = parser.parse_args()
    work = Work(asked.work.resolve())
    prepare(work, ["article", "kdlit"], None, 1)
    found: dict[str, dict[str, list[float]]] = {}
    for number in range(asked.rounds):
        for name in NAMES:
            print(f"round {number + 1}/{asked.rounds}: {name}", file=sys.stderr)
            for who, seconds in measure(work, name).items():
                found.setdefault(name, {}).setdefault(who, []).extend(seconds)
    rows = [row(name, seconds) for name, seconds in found.items()]
    date = f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC"
    text = markdown(rows, date)
    write_json(asked.out / "overhead.json", {"date": date, "rows": rows})
    write_atomically(
        asked.out / "overhead.md", lambda temporary: temporary.write_text(text, encoding="utf-8")
    )
    print(text)


if __name__ == "__main__":
    main()
