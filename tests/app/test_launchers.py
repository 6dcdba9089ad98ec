"""Hydra's launchers: the runs of a sweep in several processes, which share one teacher."""

import subprocess
import sys

import pytest

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
    """The teacher is trained once, and the error of one run ends no other."""
    script = str(REPOSITORY / "scripts" / "train.py")
    done = subprocess.run(
        [sys.executable, "-W", "error", script, "-m", *SMALL, *RUNS, *launcher],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    (sweep,) = (tmp_path / "sweeps").iterdir()
    told = [line for line in done.stderr.splitlines() if line.startswith("kdlit: ")]
    wrong = "label: `alpha` must lie in [0, 1], got 2"
    assert told == [f"kdlit: 1 run of the sweep failed. label.alpha=2: {wrong}"], done.stderr
    assert done.returncode == 1
    last = done.stdout.splitlines()[-1]
    report = REPOSITORY / "scripts" / "report.py"
    assert last == f"Compare these runs: python {report} sweeps/{sweep.name}"
    finished = sorted(path.parent.name for path in sweep.glob(f"*/{SUMMARY_FILE}"))
    assert finished == ["0", "2"]
    sources = [summary(sweep / name)["teacher"]["source"] for name in finished]
    assert sorted(source.split(",")[0] for source in sources) == ["cached", "trained now"]
    assert len(list((tmp_path / "cache").glob("*.safetensors"))) == 1


def test_a_launcher_that_is_not_there_names_its_extra(refused, monkeypatch):
    from hydra.core.config_store import ConfigStore

    for name in ("joblib", "submitit_local"):
        monkeypatch.delitem(ConfigStore.instance().repo["hydra"]["launcher"], f"{name}.yaml")
        error = refused("-m", f"hydra/launcher={name}", "seed=0,1")
        assert error.endswith(f'it comes with pip install "kdlit[{name.split("_")[0]}]"')
