"""Kill runs of some kinds at random moments, let them go on, and compare: for test_kill.py.

python -m faults.kills KIND FOLDER KILLS JSON
"""

import contextlib
import csv
import json
import os
import random
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from conftest import REPOSITORY
from faults import dying

SMALL = [
    f"data.root={REPOSITORY / 'data'}",
    "data.val_size=500",
    "data.eval_batch_size=250",
    "optimizer.lr=0.003",
    "teacher/network=mlp",
    "teacher.network.widths=[32]",
    "teacher.trainer.max_epochs=2",
    "teacher.data.train_size=1000",
    "cache.batch_size=100",
    "trainer=cpu",
    "trainer.max_epochs=8",
    "trainer.log_every_n_steps=2",
    "trainer.limit_test_batches=4",
]
STUDENT = [
    "data.train_size=300",
    "data.batch_size=16",
    "student=mlp",
    "student.widths=[16]",
    "student.dropout=0.3",
]
# What has a state of its own: name, the overrides, and how many of its runs are killed.
RUNS = {
    "views, dropout, a schedule by steps": (
        30,
        [*STUDENT, "data/augment=shift", "data.views=2", "data.batches_at_once=1"],
    ),
    "many steps in a batch": (10, [*STUDENT, "data.batches_at_once=4", "scheduler=cosine"]),
    "CRD": (
        10,
        [*STUDENT, "feature=[crd]", "data.batches_at_once=1", "feature.crd.negatives=32"],
    ),
    "a moving average as teacher": (
        10,
        [*STUDENT, "teacher=ema", "label.temperature=1", "data.batches_at_once=1"],
    ),
    "generated images": (
        10,
        [
            *STUDENT[2:],
            "data=generated",
            "callbacks=last",
            "label.alpha=1",
            "data.batch_size=16",
            "data.steps_per_epoch=10",
            "data.val_size=100",
            "data.real.val_size=500",
        ],
    ),
}
# What no two runs have alike: times, places, and how a teacher came to be there.
UNLIKE = ("seconds", "run_dir", "ckpt_path", "source")


def settings_of(name: str) -> list[str]:
    small = SMALL
    if "teacher=ema" in RUNS[name][1]:
        small = [line for line in SMALL if not line.startswith("teacher")]
    if "data=generated" in RUNS[name][1]:
        small = [line for line in SMALL if "data.val_size" not in line]
    return [*small, *RUNS[name][1]]


def result_of(run_dir: Path, cache: Path) -> dict:
    """Return all that must be the same: weights, metrics, summary."""
    summary = _without_places(
        json.loads((run_dir / "summary.json").read_text()), (str(run_dir), str(cache))
    )
    weights = load_file(run_dir / "student.safetensors")
    return {
        "weights": {name: tensor.numpy().tobytes() for name, tensor in weights.items()},
        "metrics": (run_dir / "metrics.csv").read_text(),
        "summary": summary,
        "files": sorted(
            path.name for path in run_dir.rglob("*") if not path.name.startswith("events.")
        ),
    }


def _without_places(value, places: tuple[str, ...]):
    if isinstance(value, dict):
        return {k: _without_places(v, places) for k, v in value.items() if k not in UNLIKE}
    if isinstance(value, list):
        return [_without_places(item, places) for item in value]
    if isinstance(value, str):
        for place in places:
            value = value.replace(place, ".")
    return value


def check_whole(folder: Path) -> int:
    """Read every file that is not a temporary one; return how many there were."""
    count = 0
    for path in folder.rglob("*"):
        if not path.is_file() or path.name.startswith(".") or _is_hidden(path, folder):
            continue
        count += 1
        match path.suffix:
            case ".json":
                json.loads(path.read_text())
            case ".safetensors":
                load_file(path)
            case ".ckpt":
                torch.load(path, weights_only=True)
            case ".csv":
                with path.open(newline="") as file:
                    rows = list(csv.DictReader(file))
                assert all(None not in row and None not in row.values() for row in rows)
            case _:
                count -= 1
    return count


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


SWEEP = ["label=soft,truth", "seed=0,1", "data.batches_at_once=1"]


def kill_sweep(folder: Path, kills: int, told: Path) -> None:
    """Kill a sweep again and again at random events, go on with it, and write down what came."""
    os.chdir(folder)
    dying.ready()
    settings = ["-m", *SMALL, *STUDENT, *SWEEP]

    def arguments(name: str, cache: str) -> list[str]:
        return [*settings, f"cache_dir={folder / cache}", f"hydra.sweep.dir={folder / name}"]

    def results(name: str, cache: str) -> list[dict]:
        runs = sorted((folder / name).glob("[0-9]"))
        return [result_of(run, folder / cache) for run in runs]

    counts = dying.run(arguments("whole", "cache"), folder / "whole.log")
    whole = results("whole", "cache")
    chance, log = random.Random(0), folder / "killed.log"
    finished = []
    for _ in range(kills):
        # Few events are left towards the end: one that does not come lets the sweep end.
        at = ("step", chance.randint(1, counts["step"] // len(whole)))
        dying.run(arguments("killed", "killed_cache"), log, at=at)
        finished.append(len(list((folder / "killed").glob("*/summary.json"))))
    dying.run([*arguments("killed", "killed_cache"), "ckpt_path=last"], log)
    found = {
        "kills": kills,
        "runs": len(whole),
        "finished after each kill": finished,
        "alike": results("killed", "killed_cache") == whole,
    }
    told.write_text(json.dumps(found))


def kill_runs(name: str, folder: Path, kills: int, told: Path) -> None:
    """Kill runs of a kind, let them go on, and write down what came of it."""
    os.chdir(folder)
    dying.ready()
    settings = settings_of(name)

    def arguments(run: str, cache: str) -> list[str]:
        return [*settings, f"cache_dir={folder / cache}", f"hydra.run.dir={folder / run}"]

    counts = dying.run(arguments("whole", "cache"), folder / "whole.log")
    whole = result_of(folder / "whole", folder / "cache")
    chance = random.Random(name)
    killed: dict[str, int] = dict.fromkeys((p for p in dying.PHASES if counts.get(p)), 0)
    unlike, files = [], 0
    for number in range(kills):
        # Every phase in turn, at a random event of it; the first kills have no teacher yet.
        phase = list(killed)[number % len(killed)]
        event = chance.randint(1, counts[phase])
        run, cache = f"run{number}", f"cache{number}"
        log = folder / f"{run}.log"
        dying.run(arguments(run, cache), log, at=(phase, event))
        killed[phase] += 1
        files += check_whole(folder / run) + check_whole(folder / cache)
        on = ["ckpt_path=last"] if any((folder / run).glob("[a-z]*.ckpt")) else []
        dying.run([*arguments(run, cache), *on], log)
        files += check_whole(folder / run) + check_whole(folder / cache)
        found = result_of(folder / run, folder / cache)
        differ = [key for key in whole if whole[key] != found[key]]
        if differ:
            unlike.append(f"{phase} {event}: {', '.join(differ)}")
    with contextlib.suppress(FileNotFoundError):
        told.unlink()
    found = {"killed in": killed, "events": counts, "files read": files, "unlike": unlike}
    told.write_text(json.dumps(found))


if __name__ == "__main__":
    kind, where, times, result = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    if kind == "sweep":
        kill_sweep(where, times, result)
    else:
        kill_runs(kind, where, times, result)
