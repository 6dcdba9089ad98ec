"""Many processes of the real command at once, and locks of processes that were killed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import REPOSITORY
from faults.saboteur import result
from small import SMALL

pytestmark = pytest.mark.slow

FEW = [*SMALL, "data.val_size=100", "trainer.limit_test_batches=2", "logger=[csv]"]
COMMAND = [sys.executable, str(REPOSITORY / "scripts" / "train.py")]


def start(place: Path, *words: str) -> subprocess.Popen:
    return subprocess.Popen(
        [*COMMAND, *FEW, f"cache_dir={place / 'cache'}", *words],
        cwd=place, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def told(process: subprocess.Popen) -> str:
    said, error = process.communicate(timeout=500)
    assert process.returncode == 0, error
    assert error == ""
    return said


def check_nothing_left(place: Path) -> None:
    """Check that there are files of the cache alone, and their locks."""
    for path in (place / "cache").rglob("*"):
        assert not path.name.startswith("."), path
        assert path.is_dir() or path.suffix in {".json", ".lock", ".npy", ".safetensors"}, path
    assert not list(place.rglob("*.tmp"))


def test_eight_processes_on_an_empty_cache(tmp_path, figures):
    processes = [start(tmp_path, f"hydra.run.dir=run{number}") for number in range(8)]
    said = [told(process) for process in processes]
    trained = sum("Training a teacher" in text for text in said)
    found = [result(tmp_path / f"run{number}") for number in range(8)]
    assert trained == 1
    assert all(one == found[0] for one in found)
    check_nothing_left(tmp_path)
    outputs = tmp_path / "cache" / "outputs"
    # Whoever waits for another's table spends no time on its own.
    summaries = [json.loads((tmp_path / f"run{n}" / "summary.json").read_text()) for n in range(8)]
    assert sorted(path.name.split("-")[0] for path in outputs.glob("*/")) == ["train", "val"]
    filled = sum(summary["outputs"]["seconds"] > 0 for summary in summaries)
    assert 1 <= filled <= 2
    alone = start(tmp_path, "hydra.run.dir=alone", f"cache_dir={tmp_path / 'own'}")
    told(alone)
    assert result(tmp_path / "alone") == found[0]
    figures("eight processes", {"teachers trained": trained, "right results": len(found)})


@pytest.mark.parametrize(
    ("at", "left"),
    [
        # The last thing that is done under the lock, and the first.
        (r"/\.mnist-mlp-seed0-\w+\.json\.", "*.safetensors"),
        (r"/\.mnist-mlp-seed0-\w+\.safetensors\.", "*.lock"),
        (r"/\.card\.json\.", "outputs/.train-*"),
        (r"/table/0\.npy$", "outputs/.train-*"),
    ],
    ids=["teacher's card", "teacher", "card", "outputs"],
)
def test_the_lock_of_a_killed_process_is_taken_over(tmp_path, at, left):
    words = ["train", *FEW, f"cache_dir={tmp_path / 'cache'}", "hydra.run.dir=run"]
    scenes = [{"name": "run", "fault": "killed", "at": at, "commands": [words]}]
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps({"folder": str(tmp_path / "disk"), "scenes": scenes}))
    driver = [sys.executable, Path(__file__).with_name("saboteur.py"), plan, tmp_path / "found"]
    killed = subprocess.run(driver, cwd=tmp_path, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert list((tmp_path / "cache").rglob("*.lock"))
    assert list((tmp_path / "cache").glob(left))
    said = told(start(tmp_path, "hydra.run.dir=run"))
    assert ("Training a teacher" in said) == ("mnist" in at)
    check_nothing_left(tmp_path)
    told(start(tmp_path, "hydra.run.dir=alone", f"cache_dir={tmp_path / 'own'}"))
    assert result(tmp_path / "run") == result(tmp_path / "alone")


def test_two_processes_of_one_sweep(tmp_path):
    words = ["-m", "seed=1,2,3", "hydra.sweep.dir=sweep"]
    both = [start(tmp_path, *words) for _ in range(2)]
    said = [told(process) for process in both]
    assert sum(text.count("Training a teacher") for text in said) == 1
    # Each run is done once: by one of them, while the other leaves it alone.
    assert sum(text.count("Written to") for text in said) == 3
    assert all(result(tmp_path / "sweep" / number) for number in "012")
    told(start(tmp_path, "seed=2", "hydra.run.dir=alone"))
    assert result(tmp_path / "sweep" / "1") == result(tmp_path / "alone")
    check_nothing_left(tmp_path)


def test_two_processes_in_one_directory(tmp_path):
    both = [start(tmp_path, "hydra.run.dir=run") for _ in range(2)]
    said = [process.communicate(timeout=500) for process in both]
    assert sorted(process.returncode for process in both) == [0, 1]
    (error,) = (error for _, error in said if error)
    assert "run is being run by another process, and is left to it" in error
    told(start(tmp_path, "hydra.run.dir=alone"))
    assert result(tmp_path / "run") == result(tmp_path / "alone")
