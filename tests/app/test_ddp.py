"""Two processes: the metrics of one, and sweeps that do not replay themselves."""

import csv
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from app.conftest import SMALL, summary
from conftest import REPOSITORY

TWO = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]


def call(tmp_path, *overrides: str) -> str:
    flags = [line for line in overrides if line.startswith("-")]
    rest = [line for line in overrides if not line.startswith("-")]
    small = [line for line in SMALL if line != "trainer=cpu"]
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "scripts" / "train.py"), *flags, *small,
         f"cache_dir={tmp_path / 'cache'}", *rest],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def column(run, name: str) -> list[float]:
    with (run / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row[name]]


def test_two_processes_give_the_metrics_of_one(tmp_path):
    """At a learning rate of 0 the student does not change, whatever the batches are."""
    shared = ["optimizer=sgd", "optimizer.lr=0", "optimizer.momentum=0", "scheduler=constant",
              "data.val_size=501", "data.train_size=300", "trainer.max_epochs=1"]  # fmt: skip
    call(tmp_path, "trainer=cpu", *shared, f"hydra.run.dir={tmp_path / 'one'}")
    out = call(tmp_path, *TWO, *shared, f"hydra.run.dir={tmp_path / 'two'}")
    one, two = summary(tmp_path / "one"), summary(tmp_path / "two")
    for who in ("student", "teacher"):
        assert two[who]["test"] == pytest.approx(one[who]["test"], rel=1e-5)
        assert sum(entry["count"] for entry in two[who]["reliability"]) == 10_000
    assert two["selected"]["score"] == pytest.approx(one["selected"]["score"])
    for name in ("val/nll", "val/ece", "val/agreement", "train/loss_epoch"):
        values = [column(tmp_path / run, name) for run in ("one", "two")]
        assert values[1] == pytest.approx(values[0], rel=1e-5), name
    assert out.count("measured on the test set") == 1, "only the first process reports"


@pytest.mark.slow
def test_batches_of_many_steps_and_kept_outputs_change_nothing_on_two_processes(tmp_path):
    """Gradients are averaged at every step, and both processes fill the table."""
    shared = [*TWO, "trainer.max_epochs=2", "data.val_size=501"]
    call(tmp_path, *shared, "cache=none", "data.batches_at_once=1",
         f"hydra.run.dir={tmp_path / 'plain'}")  # fmt: skip
    call(tmp_path, *shared, "data.batches_at_once=4", f"hydra.run.dir={tmp_path / 'many'}")
    one, two = summary(tmp_path / "plain"), summary(tmp_path / "many")
    assert two["outputs"]["tables"]["train"]["samples"] == 300
    assert one["steps"] == two["steps"]
    first, second = (load_file(tmp_path / run / "student.safetensors") for run in ("plain", "many"))
    for name in first:
        # A matrix product of the teacher's may round otherwise for another number of rows.
        torch.testing.assert_close(first[name], second[name], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_sweep_over_two_processes_runs_each_job_once(tmp_path):
    call(tmp_path, "-m", *TWO, "label=soft,truth", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    found = {path.parent.name for path in (tmp_path / "sweep").rglob("summary.json")}
    assert found == {"0", "1"}
    assert {path.name for path in tmp_path.iterdir()} == {"cache", "sweep"}
    labels = [summary(tmp_path / "sweep" / job)["config"]["label"]["_target_"] for job in "01"]
    assert [label.rsplit(".", 1)[1] for label in labels] == ["SoftLabels", "TruthLabels"]
