"""The real command is sent signals: it stops at the next step and says how to go on."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from conftest import REPOSITORY
from faults.kills import settings_of

pytestmark = pytest.mark.slow
SCRIPT = str(REPOSITORY / "scripts" / "train.py")
LONG = ["trainer.max_epochs=40", "data.batches_at_once=1"]
TWO = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]


def start(folder: Path, *overrides: str, **options) -> subprocess.Popen:
    settings = settings_of("views, dropout, a schedule by steps")
    return subprocess.Popen(
        [sys.executable, SCRIPT, *settings, *LONG, f"cache_dir={folder / 'cache'}", *overrides],
        cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
    )  # fmt: skip


def finish(process: subprocess.Popen) -> tuple[str, str]:
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, out + error
    return out, error


def wait_for(path: Path, process: subprocess.Popen) -> None:
    while not path.exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)


def words_on(error: str) -> list[str]:
    """Return the command that the last line names, without the interpreter."""
    (told,) = re.findall(r"^kdlit: interrupted\. This goes on: python (.*)$", error, re.MULTILINE)
    return shlex.split(told)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
@pytest.mark.parametrize("processes", [1, 2])
def test_it_stops_at_the_next_step_and_goes_on_by_the_command_that_it_names(
    tmp_path, number, processes
):
    more = TWO if processes == 2 else []
    finish(start(tmp_path, *more, f"hydra.run.dir={tmp_path / 'whole'}"))
    run = tmp_path / "halves"
    process = start(tmp_path, *more, f"hydra.run.dir={run}")
    wait_for(run / "best.ckpt", process)
    process.send_signal(number)
    out, error = process.communicate(timeout=60)
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[number], error
    assert "stopping at the next step" in out
    kept = torch.load(run / "last.ckpt", weights_only=True)
    assert kept["global_step"] % (19 if processes == 1 else 10) > 0, "within an epoch"
    words = words_on(error)
    assert words[0] == SCRIPT
    done = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    one, two = (load_file(tmp_path / name / "student.safetensors") for name in ("whole", "halves"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert (run / "metrics.csv").read_text() == (tmp_path / "whole" / "metrics.csv").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_a_teacher_that_is_interrupted_leaves_nothing(tmp_path, number):
    process = start(
        tmp_path, "teacher.trainer.max_epochs=1000", f"hydra.run.dir={tmp_path / 'run'}"
    )
    cache = tmp_path / "cache"
    while not list(cache.glob("*.lock")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[number], error
    assert "ckpt_path" not in " ".join(words_on(error))
    assert [path.suffix for path in cache.iterdir()] == [".lock"]
