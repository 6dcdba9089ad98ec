"""Runs as they lie on disk, without having been run."""

import json
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")


def summary(seed: int, accuracy: float, target: str = "Soft", data: str = "MNIST", **label) -> dict:
    run_dir = f"runs/{target}{seed}-{label}"
    bins = [
        {"confidence": (n + 0.5) / 15, "accuracy": n / 15, "count": 10 * (n > 5)} for n in range(15)
    ]
    return {
        "task": "distil",
        "seed": seed,
        "config": {
            "seed": seed,
            "data": {
                "_target_": f"kdlit.data.{data}DataModule",
                "seed": seed,
                "train_size": 600,
            },
            "run_dir": run_dir,
            "callbacks": {"checkpoint": {"dirpath": run_dir}},
            "label": {"_target_": f"kdlit.objectives.{target}Labels", **label},
        },
        "selected": {"checkpoint": "best.ckpt"},
        "student": {
            "parameters": 1000,
            "test": {"accuracy": accuracy, "ece": 0.01, "nll": 0.1},
            "reliability": bins,
        },
        "teacher": {
            "parameters": 5000,
            "test": {"accuracy": 0.99, "ece": 0.002, "nll": 0.03},
            "reliability": bins,
        },
    }


def put(folder: Path, found: dict, *, history: bool = True) -> Path:
    """Write a run as `train.py` leaves it, as far as a report reads it."""
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps(found))
    (folder / "config.yaml").write_text("{}")
    if history:
        rows = [
            f"{step},{step // 2},{'' if step % 2 == 0 else 1 / (step + 1)},{0.5 + step / 100}"
            for step in range(8)
        ]
        text = "\n".join(["step,epoch,train/loss_epoch,val/accuracy", *rows, ""])
        (folder / "metrics.csv").write_text(text)
    return folder


def put_all(folder: Path, *accuracies: tuple[str, list[float], dict]) -> None:
    """Write the runs of some settings: label, accuracy for each seed, settings of the label."""
    for number, (target, values, label) in enumerate(accuracies):
        for seed, value in enumerate(values):
            put(folder / f"{number}-{seed}", summary(seed, value, target, **label))
