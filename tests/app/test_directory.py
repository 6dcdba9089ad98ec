"""A run's directory: one run at a time, and no run over another."""

import hashlib
from pathlib import Path

import pytest
from filelock import FileLock

from app.conftest import summary


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(
    ("left", "options", "told"),
    [
        ({}, [], "holds a run that is finished, and is left as it is: ckpt_path=last goes on"),
        ({}, ["seed=1"], "holds a run that is finished"),
        ({}, ["seed=1", "ckpt_path=last"], "was run with another configuration"),
        ({"summary.json"}, [], "holds a run that was begun"),
        ({"summary.json"}, ["label=hard"], "holds a run that was begun"),
        ({"summary.json", "last.ckpt"}, [], "holds a run that was begun"),
        ({"last.ckpt", "best.ckpt"}, [], "hydra.run.dir=<directory>"),
    ],
)
def test_a_directory_that_holds_a_run_is_left_untouched(refused, finished, left, options, told):
    run = finished()
    for name in left:
        (run / name).unlink()
    before = contents(run)
    assert told in refused("trainer.max_epochs=1", "logger=[]", *options, name=run.name)
    assert contents(run) == before


def test_another_directorys_checkpoint_does_not_go_over_a_run(refused, finished, tmp_path):
    run = finished()
    other = (run / "last.ckpt").rename(tmp_path / "other.ckpt")
    before = contents(run)
    words = ["trainer.max_epochs=1", "logger=[]", f"ckpt_path={other}"]
    assert "holds a run that is finished" in refused(*words, name=run.name)
    assert contents(run) == before


def test_a_directory_that_holds_only_a_failed_start_is_used(command, tmp_path, capsys):
    run = tmp_path / "run"
    with pytest.raises(SystemExit):
        command("teacher.trainer.max_epochs=3", "teacher.optimizer.lr=1e30")
    assert "loss is not finite" in capsys.readouterr().err
    assert (run / "config.yaml").is_file()
    assert summary(command("trainer.max_epochs=1", "logger=[]"))["epochs"] == 1


def test_a_directory_in_which_a_run_is_going_on_is_left_untouched(refused, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    with FileLock(run / ".lock"):
        assert "run is being run by another process, and is left to it" in refused()
    assert [path.name for path in run.iterdir()] == [".lock"]


def test_what_a_killed_process_has_left_is_removed(command, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / ".best.ckpt.abcd_123.tmp").write_text("half")
    command("trainer.max_epochs=1", "logger=[]")
    assert not list(run.glob("*.tmp"))


def test_best_alone_is_gone_on_from(command, finished):
    run = finished()
    for name in ("summary.json", "last.ckpt", "student.safetensors"):
        (run / name).unlink()
    before = (run / "best.ckpt").read_bytes()
    command("trainer.max_epochs=1", "logger=[]", "ckpt_path=last", name=run.name)
    assert (run / "best.ckpt").read_bytes() == before
    assert summary(run)["epochs"] == 1


@pytest.mark.parametrize("name", ["best.ckpt", "summary.json", "metrics.csv", "config.yaml"])
def test_a_folder_where_a_file_is_to_be(refused, tmp_path, name):
    (tmp_path / "run" / name).mkdir(parents=True)
    assert f"{name} in it is a folder" in refused()


def test_files_where_folders_are_to_be(refused, tmp_path):
    (tmp_path / "run").touch()
    assert "hydra.run.dir=" in refused()
    (tmp_path / "outputs").touch()
    error = refused(directory=False)
    assert "outputs/soft-mlp" in error
    assert "cannot be written: name another with hydra.run.dir=<directory>" in error
    (tmp_path / "file").touch()
    assert "Set `cache_dir` to a folder" in refused(f"cache_dir={tmp_path / 'file'}", name="new")


def test_a_file_where_outputs_are_to_be_kept(command, tmp_path, capsys):
    own = tmp_path / "own"
    own.mkdir()
    (own / "outputs").touch()
    with pytest.raises(SystemExit):
        command(f"cache_dir={own}")
    error = capsys.readouterr().err
    assert error.startswith("kdlit: a teacher's outputs cannot be kept in")
    assert error.count("\n") == 1
