"""Runs that are killed at random moments, and go on: the bits are those of a run that was not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import REPOSITORY
from faults.kills import RUNS

pytestmark = pytest.mark.slow


def call(kind: str, kills: int, folder: Path) -> dict:
    told = folder / "told.json"
    done = subprocess.run(
        [sys.executable, "-m", "faults.kills", kind, str(folder), str(kills), str(told)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY / "tests")},
        capture_output=True, text=True, timeout=1800, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads(told.read_text())


@pytest.mark.parametrize("kind", RUNS)
def test_a_run_that_is_killed_goes_on_to_the_same_bits(kind, tmp_path, figures):
    kills = RUNS[kind][0]
    found = call(kind, kills, tmp_path)
    figures(f"kill: {kind}", found)
    assert sum(found["killed in"].values()) == kills
    assert found["unlike"] == []


def test_a_sweep_that_is_killed_again_and_again_becomes_the_whole_one(tmp_path, figures):
    found = call("sweep", 8, tmp_path)
    figures("kill: sweep", found)
    assert found["alike"]
    assert found["finished after each kill"][-1] >= 1, "the kills come at more than one run"
