"""Sweeps: what is finished is skipped, what was begun goes on, and nothing is written over."""

import json
import subprocess
import sys

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file

from app.conftest import SMALL, summary
from conftest import REPOSITORY
from kdlit.app.cli import _sweep_dir
from kdlit.app.resume import SUMMARY_FILE
from kdlit.app.sweeps import LOCK_FILE

QUICK = ["trainer.max_epochs=1", "logger=[]", "trainer.limit_test_batches=1"]
SHORT = ["-m", "label=truth", "teacher=none", "optimizer.lr=0.01,0.02", *QUICK]


def times(sweep) -> dict[str, int]:
    """Return when each run was finished, by the run's number."""
    return {path.parent.name: path.stat().st_mtime_ns for path in sweep.glob(f"*/{SUMMARY_FILE}")}


def test_the_same_command_goes_on_with_the_newest_such_sweep(command, tmp_path, capsys):
    command(*SHORT)
    command(*SHORT, "data.batch_size=20")  # newer, and another
    sweep, other = sorted((tmp_path / "sweeps").iterdir())
    before, others = times(sweep), times(other)
    (sweep / "1" / SUMMARY_FILE).unlink()
    capsys.readouterr()
    command(*SHORT, "ckpt_path=last")
    out = capsys.readouterr().out
    assert f"sweeps/{sweep.name}/0/ is finished: skipped" in out
    assert f"/1/{'last.ckpt'}" in out, "it goes on from its checkpoint"
    assert out.splitlines()[-1] == f"Compare these runs: kdlit-report sweeps/{sweep.name}"
    after = times(sweep)
    assert after["0"] == before["0"]
    assert after["1"] > before["1"]
    assert times(other) == others
    assert len(list((tmp_path / "sweeps").iterdir())) == 2


def test_a_run_that_another_process_is_at_is_left_to_it(command, tmp_path, capsys):
    """As jobs go on whose command was stopped."""
    runs = [tmp_path / "sweep" / number for number in "01"]
    for run in runs:
        run.mkdir(parents=True)
    with FileLock(runs[0] / LOCK_FILE), FileLock(runs[1] / LOCK_FILE):
        command(*SHORT, f"hydra.sweep.dir={tmp_path / 'sweep'}")
    out = capsys.readouterr().out
    for run in runs:
        assert f"sweep/{run.name}/ is being run by another process: left to it" in out
        assert not (run / "config.yaml").exists()


def test_the_value_of_a_flag_is_no_override(tmp_path, monkeypatch):
    """`-m --config-dir conf label=a,b ~x` goes on with the sweep of `label=a,b ~x`."""
    sweep = tmp_path / "sweeps" / "one"
    sweep.mkdir(parents=True)
    (sweep / "multirun.yaml").write_text("hydra: {overrides: {task: ['label=a,b', '~x']}}")
    words = ["-m", "--config-dir", "conf", "label=a,b", "~x", "hydra/launcher=joblib"]
    monkeypatch.setattr(sys, "argv", ["kdlit-train", *words, "ckpt_path=last"])
    assert _sweep_dir("last", str(tmp_path / "sweeps")) == str(sweep)


def test_going_on_with_a_sweep_that_is_not_there(refused):
    error = refused(*SHORT, "ckpt_path=last")
    assert "there is no sweep of this command in sweeps" in error


def test_another_sweep_is_never_written_over(command, refused, tmp_path):
    sweep = tmp_path / "sweep"
    where = f"hydra.sweep.dir={sweep}"
    command(*SHORT, where)
    before = {path: path.read_bytes() for path in sweep.rglob("*") if path.is_file()}
    # The numbers of the runs would be others.
    error = refused(*SHORT, "seed=0,1", where)
    assert "there is another sweep in it" in error
    assert "optimizer.lr=0.01,0.02" in error
    assert {path: path.read_bytes() for path in sweep.rglob("*") if path.is_file()} == before


def test_a_directory_that_holds_another_configuration_is_left_as_it_is(command, tmp_path, capsys):
    sweep = tmp_path / "sweep"
    where = f"hydra.sweep.dir={sweep}"
    command(*SHORT, where)
    # As if the files of `conf/` were others than at the first time.
    written = sweep / "0" / "config.yaml"
    text = written.read_text()
    assert "  lr: 0.01" in text
    written.write_text(text.replace("  lr: 0.01", "  lr: 0.03"))
    before = times(sweep)
    capsys.readouterr()
    with pytest.raises(SystemExit):
        command(*SHORT, where)
    error = capsys.readouterr().err
    assert "kdlit: 1 run of the sweep failed. optimizer.lr=0.01: " in error
    assert "optimizer.lr=0.01 where it was 0.03. It is left as it is" in error
    assert times(sweep) == before
    # Without a summary it is no less somebody's.
    (sweep / "0" / SUMMARY_FILE).unlink()
    with pytest.raises(SystemExit):
        command(*SHORT, where)
    assert "where it was 0.03" in capsys.readouterr().err
    written.write_text(text)
    command(*SHORT, where)
    assert set(times(sweep)) == {"0", "1"}
    assert not list(sweep.rglob("failed.json"))


def test_what_failed_is_run_again(command, tmp_path, capsys, monkeypatch):
    from kdlit.distillation import DistillationModule

    class FailedByTestError(RuntimeError):
        pass

    def fail_at_first(self):
        monkeypatch.undo()
        monkeypatch.chdir(tmp_path)
        raise FailedByTestError

    where = f"hydra.sweep.dir={tmp_path / 'sweep'}"
    monkeypatch.setattr(DistillationModule, "on_train_epoch_start", fail_at_first)
    with pytest.raises(SystemExit):
        command(*SHORT, where)
    error = capsys.readouterr().err
    assert "1 run of the sweep failed. optimizer.lr=0.01: FailedByTestError" in error
    told = json.loads((tmp_path / "sweep" / "0" / "failed.json").read_text())
    assert "optimizer.lr=0.01" in told["overrides"]
    assert set(times(tmp_path / "sweep")) == {"1"}
    command(*SHORT, where)
    assert set(times(tmp_path / "sweep")) == {"0", "1"}


# The command, which is sent SIGINT in the middle of its second run.
INTERRUPTED = """
import os, signal, sys
from pathlib import Path
from kdlit import DistillationModule
from kdlit.app.train import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
begin = DistillationModule.on_train_epoch_start
def on_train_epoch_start(self):
    begin(self)
    if self.current_epoch == 10 and Path(self.trainer.default_root_dir).name == "1":
        os.kill(os.getpid(), signal.SIGINT)
DistillationModule.on_train_epoch_start = on_train_epoch_start
sys.argv = sys.argv[1:]
main()
"""


def test_a_sweep_that_is_interrupted_and_started_again_is_the_whole_one(command, cache, tmp_path):
    """Ctrl-C in the middle of the second run."""
    long = [*QUICK, "trainer.max_epochs=20", "trainer.check_val_every_n_epoch=1"]
    whole = command(*long, "seed=1")
    script = str(REPOSITORY / "scripts" / "train.py")
    process = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, script, "-m", *SMALL, f"cache_dir={cache}", *long,
         "seed=0,1"],
        cwd=tmp_path, text=True, capture_output=True, check=False,
    )  # fmt: skip
    error = process.stderr
    assert process.returncode == 130, error
    (told,) = [line for line in error.splitlines() if line.startswith("kdlit: ")]
    assert told.startswith(f"kdlit: interrupted. This goes on: python {script} -m ")
    assert told.endswith(" ckpt_path=last")
    (sweep,) = (tmp_path / "sweeps").iterdir()
    before = times(sweep)
    assert set(before) == {"0"}
    command("-m", *long, "seed=0,1", "ckpt_path=last")
    after = times(sweep)
    assert set(after) == {"0", "1"}
    assert after["0"] == before["0"]
    one, two = (load_file(run / "student.safetensors") for run in (whole, sweep / "1"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert summary(sweep / "1")["student"] == summary(whole)["student"]
