"""`data=generated`: the real command, without a real image in training or selection."""

import json
import sys

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

from app.conftest import summary
from conftest import REPOSITORY
from kdlit import load_student
from kdlit.app.finished import FinishedRun
from kdlit.app.train import main
from kdlit.data import MNISTDataModule

SMALL = [
    "data=generated",
    "callbacks=last",
    f"data.root={REPOSITORY / 'data'}",
    "data.real.val_size=500",
    "data.batch_size=32",
    "data.steps_per_epoch=6",
    "data.val_size=50",
    "data.generator.channels=[8,4]",
    "label=soft",
    "label.alpha=1",
    "student=lenet",
    "student.channels=[3,8,20]",
    "student.hidden=10",
    "teacher/network=mlp",
    "teacher.network.widths=[32]",
    "teacher.trainer.max_epochs=1",
    "teacher.data.train_size=2000",
    "trainer=cpu",
    "logger=[]",
]


@pytest.fixture
def train(tmp_path, cache, monkeypatch):
    """Call `kdlit-train`; returns the run's directory."""
    monkeypatch.chdir(tmp_path)

    def call(*overrides: str, name: str = "run"):
        where = [f"cache_dir={cache}", f"hydra.run.dir={tmp_path / name}"]
        monkeypatch.setattr(sys, "argv", ["kdlit-train", *SMALL, *where, *overrides])
        GlobalHydra.instance().clear()
        main()
        return tmp_path / name

    return call


def test_only_the_final_test_reads_real_images(train, monkeypatch, cache):
    train("trainer.max_epochs=1", name="first")  # trains the teacher, which may see them
    before = {path: path.read_bytes() for path in cache.glob("*.safetensors")}
    stages = []

    def setup(self, stage=None):
        stages.append(stage)
        assert stage == "test"
        return original(self, stage)

    def never(self):
        raise AssertionError("real images were asked for")

    original = MNISTDataModule.setup
    monkeypatch.setattr(MNISTDataModule, "setup", setup)
    monkeypatch.setattr(MNISTDataModule, "train_dataloader", never)
    monkeypatch.setattr(MNISTDataModule, "val_dataloader", never)
    # The teacher is in the cache, and its check would set its own data up only where it is not.
    run = train("trainer.max_epochs=2")
    assert stages == ["test"]
    assert {path: path.read_bytes() for path in cache.glob("*.safetensors")} == before
    found = summary(run)
    assert found["selected"]["monitor"] is None
    assert found["outputs"]["kept"] is False
    assert found["steps"] == 12
    assert found["teacher"]["training_samples"] == 2000
    assert found["teacher"]["card"]["weights"]
    last = torch.load(run / "last.ckpt", weights_only=True)["state_dict"]
    shipped = load_student(run).state_dict()
    assert all(torch.equal(last[f"student.{name}"], value) for name, value in shipped.items())


def test_the_teacher_is_the_one_that_real_data_make(train, cache, command):
    """Its recipe says nothing of generated images, so that others share it."""
    train("trainer.max_epochs=1")
    count = len(list(cache.glob("mnist-mlp-*.safetensors")))
    train("trainer.max_epochs=1", "data.adversarial=1", "seed=3", name="other")
    assert len(list(cache.glob("mnist-mlp-*.safetensors"))) == count
    command("data.val_size=500", "label=truth", "logger=[]", "trainer.max_epochs=1", name="real")
    assert len(list(cache.glob("mnist-mlp-*.safetensors"))) == count


def test_a_finished_run_is_asked_about_real_images(train, tmp_path):
    folder = train("trainer.max_epochs=1")
    moved = tmp_path / "moved"
    moved.symlink_to(REPOSITORY / "data")
    run = FinishedRun.read(folder, {"data.root": str(moved)})
    assert isinstance(run.data, MNISTDataModule)
    assert run.data.root == moved
    assert len(run.data.test_data) == 10_000
    assert run.teacher is not None
    card = json.loads((run.folder / "summary.json").read_text())
    assert card["student"]["training_samples"] is None


def test_an_interrupted_run_goes_on_to_the_same_bits(train):
    straight = train("trainer.max_epochs=2", "data.adversarial=1", "scheduler=constant", name="a")
    train("trainer.max_epochs=1", "data.adversarial=1", "scheduler=constant", name="b")
    config = (straight.parent / "b" / "config.yaml").read_text()
    (straight.parent / "b" / "config.yaml").write_text(
        config.replace("max_epochs: 1\n  check", "max_epochs: 2\n  check")
    )
    (straight.parent / "b" / "summary.json").unlink()
    resumed = train(
        "trainer.max_epochs=2", "data.adversarial=1", "scheduler=constant", "ckpt_path=last",
        name="b",
    )  # fmt: skip
    one, other = (load_student(run).state_dict() for run in (straight, resumed))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.layer=nonsense"], "no layer 'nonsense'"),
        (["data.noise=0"], "`noise` must be an integer >= 1, got 0"),
        (["data.generator.shape=[1,32,32]"], "makes images of shape (1, 32, 32)"),
    ],
)
def test_refuses_early(train, capsys, tmp_path, overrides, message):
    with pytest.raises(SystemExit):
        train(*overrides)
    error = capsys.readouterr().err
    assert error.startswith("kdlit: ")
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "run" / "config.yaml").exists()
