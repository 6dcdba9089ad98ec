"""Processes that torchrun or SLURM start, on two machines: one run, the student of one process."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress

import pytest
import torch
from safetensors.torch import load_file

from app.conftest import SMALL, summary
from conftest import REPOSITORY

SCRIPT = str(REPOSITORY / "scripts" / "train.py")
TWO_NODES = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=1", "trainer.num_nodes=2"]
# To rounding the same for two processes as for one only with a step that does not blow it up.
SHARED = [
    "optimizer=sgd",
    "optimizer.lr=0.01",
    "optimizer.momentum=0",
    "scheduler=constant",
    "feature=[hint,crd]",
]
ALONE = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "TORCHELASTIC_"))}
ALONE["OMP_NUM_THREADS"] = "1"


def arguments(tmp_path, *overrides: str) -> list[str]:
    small = [line for line in SMALL if line != "trainer=cpu" and not line.startswith("optimizer")]
    return [SCRIPT, *small, f"cache_dir={tmp_path / 'cache'}", *overrides]


def finished(processes: list[subprocess.Popen]) -> list[str]:
    """Return what each process printed; kill all if one fails."""
    told = []
    try:
        for process in processes:
            out, _ = process.communicate(timeout=300)
            assert process.returncode == 0, out
            told.append(out)
    finally:
        for process in processes:
            process.kill()
    return told


def start(command: list[str], tmp_path, **variables: str) -> subprocess.Popen:
    return subprocess.Popen(
        command, cwd=tmp_path, env={**ALONE, **variables}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def slurm(rank: int, count: int = 2, job: int = 4242) -> dict[str, str]:
    """Return what srun tells a process, for one process on each of `count` nodes."""
    return {
        "SLURM_JOB_ID": str(job), "SLURM_JOB_NAME": "kdlit", "SLURM_NTASKS": str(count),
        "SLURM_NTASKS_PER_NODE": "1", "SLURM_NNODES": str(count), "SLURM_PROCID": str(rank),
        "SLURM_NODEID": str(rank), "SLURM_LOCALID": "0", "SLURM_NODELIST": "127.0.0.1",
    }  # fmt: skip


def is_the_run_of_one_process(tmp_path, told: list[str]) -> None:
    """Check that two processes made one run, and that it is what one process makes of it."""
    runs = list((tmp_path / "outputs").glob("*/*"))
    assert len(runs) == 1, "one directory for all processes"
    made = sum("Training a teacher" in text for text in told)
    assert made <= 1  # the second process says nothing if it is the one
    cards = list((tmp_path / "cache").glob("*.json"))
    assert len(cards) == 1, "one teacher"
    assert sum(text.count("measured on the test set") for text in told) == 1
    one = [sys.executable, *arguments(tmp_path, "trainer=cpu", "data.batch_size=16", *SHARED)]
    before = cards[0].read_bytes()
    finished([start([*one, f"hydra.run.dir={tmp_path / 'one'}"], tmp_path)])
    assert cards[0].read_bytes() == before, "the teacher was not trained again"
    ours, expected = (load_file(run / "student.safetensors") for run in (runs[0], tmp_path / "one"))
    for name, weights in expected.items():
        torch.testing.assert_close(ours[name], weights, rtol=1e-3, atol=1e-4, msg=name)
    two, alone = summary(runs[0]), summary(tmp_path / "one")
    assert two["student"]["test"] == pytest.approx(alone["student"]["test"], rel=1e-3)
    names = {path.name for path in runs[0].iterdir()}
    assert names == {path.name for path in (tmp_path / "one").iterdir()}


@contextmanager
def two_machines():
    """Two network namespaces that see nothing but each other: their names and the first's address.

    Everything that is made here lies within them and goes with them.
    """
    names = [f"kdlit{os.getpid()}{side}" for side in "ab"]

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    try:
        try:
            for name in names:
                ip("netns", "add", name)
            # Both ends are born inside, so that the machine's own network never sees them.
            ip("-n", names[0], "link", "add", "kdlit0", "type", "veth",
               "peer", "name", "kdlit0", "netns", names[1])  # fmt: skip
            for number, name in enumerate(names, start=1):
                ip("-n", name, "address", "add", f"10.77.0.{number}/24", "dev", "kdlit0")
                for device in ("lo", "kdlit0"):
                    ip("-n", name, "link", "set", device, "up")
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"network namespaces cannot be made here: {error}")
        yield names, "10.77.0.1"
    finally:
        for name in names:
            with suppress(OSError):
                subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


@pytest.mark.slow
def test_torchrun_on_two_machines(tmp_path):
    with two_machines() as (names, first):
        told = finished([
            start(
                ["ip", "netns", "exec", name, sys.executable, "-m", "torch.distributed.run",
                 "--nnodes=2", "--nproc-per-node=1", f"--node-rank={number}",
                 f"--master-addr={first}", "--master-port=29500",
                 *arguments(tmp_path, *TWO_NODES, *SHARED, "data.batch_size=8")],
                tmp_path, GLOO_SOCKET_IFNAME="kdlit0",
            )
            for number, name in enumerate(names)
        ])  # fmt: skip
    is_the_run_of_one_process(tmp_path, told)


@pytest.mark.slow
def test_srun_on_two_nodes(tmp_path):
    command = [sys.executable, *arguments(tmp_path, *TWO_NODES, *SHARED, "data.batch_size=8")]
    told = finished([start(command, tmp_path, **slurm(rank)) for rank in (0, 1)])
    is_the_run_of_one_process(tmp_path, told)


def fakes(tmp_path) -> str:
    """Return a PATH with a scontrol that notes what it is told, and an srun for one process."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, line in (
        ("scontrol", f'echo "$@" >> {tmp_path / "requeued"}'),
        ("srun", 'shift; exec "$@"'),
        ("kdlit-train", f'exec {sys.executable} {SCRIPT} "$@"'),
    ):
        (folder / name).write_text(f"#!/bin/sh\n{line}\n")
        (folder / name).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


LONG = ["trainer=cpu", "trainer.max_epochs=40", "trainer.check_val_every_n_epoch=1",
        "data.train_size=2000", "scheduler=constant"]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("way", ["script", "lightning"])
def test_a_job_that_slurm_ends_early_goes_on_when_it_is_queued_again(tmp_path, way):
    """By our script, from the last epoch; or by Lightning, if the signal reaches the process."""
    variables = {**slurm(0, count=1), "PATH": fakes(tmp_path)}
    run = tmp_path / "outputs" / "job-4242"
    if way == "script":
        sbatch = str(REPOSITORY / "examples" / "slurm" / "train.sbatch")
        command = ["bash", sbatch, *arguments(tmp_path, *LONG)[1:], "trainer.strategy=auto"]
    else:
        own = [f"hydra.run.dir={run}", "data.batches_at_once=1"]
        command = [sys.executable, *arguments(tmp_path, *LONG, *own)]
    first = start(command, tmp_path, **variables)
    try:
        until(lambda: (run / "last.ckpt").exists(), first)
        first.send_signal(signal.SIGUSR1)
        until(lambda: (tmp_path / "requeued").exists(), first)
        if way == "script":
            out, _ = first.communicate(timeout=60)
            assert first.returncode == 143, "not to be mistaken for a run that is done"
            assert "kdlit: interrupted" in out
    finally:
        first.kill()
        first.communicate()
    assert (tmp_path / "requeued").read_text() == "requeue 4242\n"
    assert not (run / "summary.json").exists()
    saved = run / ("last.ckpt" if way == "script" else "hpc_ckpt_1.ckpt")
    assert 0 < torch.load(saved, weights_only=True)["global_step"] < 40 * 125
    told = finished([start(command, tmp_path, **variables)])[0]
    assert ("Going on from" in told) == (way == "script")
    found = summary(run)
    assert found["epochs"] == 40
    assert not list(run.glob("hpc_ckpt*")), "the test would read it instead of the best weights"
    best = torch.load(run / "best.ckpt", weights_only=True)["state_dict"]
    for name, weights in load_file(run / "student.safetensors").items():
        assert torch.equal(weights, best[f"student.{name}"]), name


def until(there, process: subprocess.Popen) -> None:
    for _ in range(1200):
        if there():
            return
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)
    raise AssertionError("it did not come")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variables", "overrides", "told"),
    [
        (slurm(0), ["trainer=cpu"], "SLURM has started 2 processes, and trainer.num_nodes=1 with"),
        (slurm(0), ["-m", "seed=1,2"], "a sweep in 2 processes"),
        ({**slurm(0), "SLURM_NTASKS_PER_NODE": None}, [], "--ntasks-per-node=2"),
        ({}, TWO_NODES, "start the command on each machine with torchrun, or with srun"),
    ],
)
def test_processes_that_do_not_fit_are_refused(tmp_path, variables, overrides, told):
    variables = {name: value for name, value in variables.items() if value is not None}
    process = start([sys.executable, *arguments(tmp_path, *overrides)], tmp_path, **variables)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert out.startswith("kdlit: ")
    assert told in out
    assert "Traceback" not in out
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not left
