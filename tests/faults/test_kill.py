"""Runs that are killed at random moments, and go on: the bits are those of a run that was not."""

import json
import os
import subprocess
import sys

import pytest

from conftest import REPOSITORY
from faults.kills import RUNS


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_is_killed_goes_on_to_the_same_bits(name, tmp_path, figures):
    kills = RUNS[name][0]
    told = tmp_path / "told.json"
    done = subprocess.run(
        [sys.executable, "-m", "faults.kills", name, str(tmp_path), str(kills), str(told)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY / "tests")},
        capture_output=True, text=True, timeout=1800, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    found = json.loads(told.read_text())
    assert sum(found["killed in"].values()) == kills
    assert found["unlike"] == []
    figures(f"kill: {name}", found)
