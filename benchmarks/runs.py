"""Full runs of kdlit, as its command does them, in this process."""

import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, ClassVar

import lightning.pytorch as pl
from contenders import COMMON, FILLED, FILLING, SETTINGS
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, open_dict
from work import REPOSITORY, Work

from kdlit.app.cli import CONFIG_MODULE, register_resolvers
from kdlit.app.run import run


class StepClock(pl.Callback):
    """Says how much of a fit is training: from its first step to the validation behind its last.

    Attributes:
        seconds: of the last epoch that was trained in this process.
    """

    seconds: ClassVar[float | None] = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._start = time.perf_counter()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock."""
        StepClock.seconds = time.perf_counter() - self._start


def composed(
    overrides: tuple[str, ...], run_dir: Path, cache_dir: Path, images: int | None, seed: int = 0
) -> DictConfig:
    """Return the configuration that kdlit's command would compose.

    Args:
        overrides: beside `COMMON`.
        run_dir: where the run's files go.
        cache_dir: where teachers, and their outputs, are kept.
        images: training images; None is all of them.
        seed: of the student.
    """
    register_resolvers()
    with initialize_config_module(CONFIG_MODULE, version_base="1.3"):
        config = compose("train", [*COMMON, *overrides, f"seed={seed}"])
    # Set, not overridden: paths may hold what the grammar of overrides reads otherwise.
    config.run_dir, config.cache_dir = str(run_dir), str(cache_dir)
    config.data.root = str(REPOSITORY / "data")
    config.data.train_size = images
    return config


def run_once(name: str, work: Work, seed: int, images: int | None) -> dict[str, Any]:
    """Do one run and return its summary; its files are deleted."""
    cache = work.cache(name, seed, images)
    with tempfile.TemporaryDirectory() as folder:
        config = composed(SETTINGS[name], Path(folder), cache, images, seed)
        with open_dict(config):
            config.callbacks.clock = {"_target_": f"{__name__}.StepClock"}
        return run(config)


def empty_cache(name: str, work: Work, seed: int, images: int | None) -> None:
    """Give a run a cache folder with the trained teachers and nothing else."""
    folder = work.cache(name, seed, images)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(work.teachers, folder)


def measure(name: str, work: Work, seed: int) -> dict[str, Any]:
    """Do one run and return what the benchmark keeps of its summary."""
    images = json.loads(work.prepared.read_text(encoding="utf-8"))["images"]
    if name not in FILLED:
        empty_cache(name, work, seed, images)
    summary = run_once(name, work, seed, images)
    outputs = summary["outputs"]
    _check(name, outputs)
    return {
        "seconds": summary["seconds"]["fit"],
        "steps": summary["steps"],
        "training_seconds": StepClock.seconds,
        "fill_seconds": outputs.get("seconds"),
        "accuracy": summary["student"]["test"]["accuracy"],
        "phases": summary["seconds"],
        "outputs": outputs,
    }


def _check(name: str, outputs: dict[str, Any]) -> None:
    """Check that the teacher's outputs came from where the contender's name says.

    Raises:
        RuntimeError: if they did not.
    """
    found = outputs["kept"] and not outputs["seconds"]
    filled = outputs["kept"] and outputs["seconds"] > 0
    if found != (name in FILLED) or filled != (name in FILLING):
        raise RuntimeError(f"{name} had its teacher's outputs from elsewhere: {outputs}")
