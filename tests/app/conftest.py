"""Runs of the real command, with networks and data small enough for a second each."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from kdlit.app.train import main
from small import SMALL


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    """Teachers are shared by all runs of the session."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def command(tmp_path, cache, monkeypatch):
    """Call `kdlit-train` in this process; returns the run's directory."""
    monkeypatch.chdir(tmp_path)

    def call(*overrides: str, name: str = "run", directory: bool = True) -> Path:
        where = [f"hydra.run.dir={tmp_path / name}"] if directory and "-m" not in overrides else []
        small = SMALL
        if {"teacher=checkpoint", "teacher=none"} & set(overrides):
            small = [
                line for line in SMALL if not line.startswith(("teacher.trainer", "teacher.d"))
            ]
        if {"teacher=born_again", "experiment=born_again"} & set(overrides):
            # Its network is the student's.
            small = [line for line in SMALL if not line.startswith(("teacher/n", "teacher.n"))]
        if {"teacher=none", "teacher=ema"} & set(overrides):
            small = [line for line in small if not line.startswith("teacher")]
        flags = [line for line in overrides if line.startswith("-")]
        overrides = tuple(line for line in overrides if not line.startswith("-"))
        arguments = [*flags, *small, f"cache_dir={cache}", *where, *overrides]
        monkeypatch.setattr(sys, "argv", ["kdlit-train", *arguments])
        GlobalHydra.instance().clear()
        main()
        return tmp_path / name

    return call


@pytest.fixture(scope="session")
def _finished_once() -> dict[tuple[str, ...], Path]:
    return {}


@pytest.fixture
def finished(command, tmp_path, tmp_path_factory, _finished_once):
    """Return the directory of a short run: a copy, of a run that is made once in a session."""

    def call(*options: str) -> Path:
        if options not in _finished_once:
            run = command("trainer.max_epochs=1", "logger=[]", *options, name="original")
            _finished_once[options] = run.rename(tmp_path_factory.mktemp("finished") / "run")
        return Path(shutil.copytree(_finished_once[options], tmp_path / "finished"))

    return call


@pytest.fixture
def refused(command, capsys, tmp_path):
    """Call the command, expect one line of error, and return it."""

    def call(*overrides: str, **options) -> str:
        before = set(tmp_path.rglob("*"))
        with pytest.raises(SystemExit) as stopped:
            command(*overrides, **options)
        assert stopped.value.code == 1
        error = capsys.readouterr().err.strip()
        assert error.startswith("kdlit: ")
        assert "\n" not in error
        assert "Traceback" not in error
        assert set(tmp_path.rglob("*")) == before, "something was left behind"
        return error

    return call


def summary(run: Path) -> dict:
    return json.loads((run / "summary.json").read_text())
