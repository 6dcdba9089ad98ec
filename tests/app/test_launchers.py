"""Hydra's launchers: the runs of a sweep in several processes, which share one teacher."""

import shlex
import subprocess
import sys

import pytest
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra

from app.conftest import SMALL, summary
from conftest import REPOSITORY
from kdlit.app.resume import SUMMARY_FILE

RUNS = [
    "label.alpha=0.5,2,0.7",
    "trainer.max_epochs=1",
    "logger=[]",
    "trainer.limit_test_batches=1",
]


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"], ["hydra/launcher=submitit_local"]],
    ids=" ".join,
)
def test_runs_in_several_processes(launcher, tmp_path):
    """The teacher is trained once, the error of one run ends no other, and the sweep goes on."""
    script = str(REPOSITORY / "scripts" / "train.py")

    def call(*more: str) -> str:
        done = subprocess.run(
            [sys.executable, "-W", "error", script, "-m", *SMALL, *RUNS, *launcher, *more],
            cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        told = [line for line in done.stderr.splitlines() if line.startswith("kdlit: ")]
        wrong = "label: `alpha` must lie in [0, 1], got 2"
        assert told == [f"kdlit: 1 run of the sweep failed. label.alpha=2: {wrong}"], done.stderr
        assert done.returncode == 1
        return done.stdout.splitlines()[-1]

    last = call()
    (sweep,) = (tmp_path / "sweeps").iterdir()
    report = REPOSITORY / "scripts" / "report.py"
    assert last == f"Compare these runs: python {report} sweeps/{sweep.name}"
    finished = sorted(sweep.glob(f"*/{SUMMARY_FILE}"))
    assert [path.parent.name for path in finished] == ["0", "2"]
    sources = [summary(path.parent)["teacher"]["source"] for path in finished]
    assert sorted(source.split(",")[0] for source in sources) == ["cached", "trained now"]
    assert len(list((tmp_path / "cache").glob("*.safetensors"))) == 1

    before = [path.stat().st_mtime_ns for path in finished]
    call("ckpt_path=last")
    assert [path.stat().st_mtime_ns for path in finished] == before
    assert list((tmp_path / "sweeps").iterdir()) == [sweep]


def test_the_page_on_sweeps_names_keys_that_there_are():
    """Its commands compose, those of SLURM too, which cannot run here."""
    page = (REPOSITORY / "docs" / "sweeps.md").read_text(encoding="utf-8")
    lines = page.replace("\\\n", " ").splitlines()
    commands = [
        line.partition("scripts/train.py")[2] for line in lines if "scripts/train.py" in line
    ]
    commands = [shlex.split(line) for line in commands if "hydra" in line]
    assert any("hydra/launcher=submitit_slurm" in words for words in commands)
    for words in commands:
        own = [word for word in words if "=" in word and "hydra" in word]
        GlobalHydra.instance().clear()
        with initialize_config_module("kdlit.conf", version_base="1.3"):
            compose("train", own, return_hydra_config=True)


def test_a_launcher_that_is_not_there_names_its_extra(refused, monkeypatch):
    from hydra.core.config_store import ConfigStore

    for name in ("joblib", "submitit_local"):
        monkeypatch.delitem(ConfigStore.instance().repo["hydra"]["launcher"], f"{name}.yaml")
        error = refused("-m", f"hydra/launcher={name}", "seed=0,1")
        assert error.endswith(f'it comes with pip install "kdlit[{name.split("_")[0]}]"')
