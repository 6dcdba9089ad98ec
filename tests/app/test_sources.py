"""Teachers that are not one trained network, and mixed images, in whole runs."""

import pytest
import torch

from app.conftest import summary
from app.test_config import composed
from app.test_run import rows, same_weights
from kdlit.app.build import build
from kdlit.mixup import Mixup


def test_an_ensemble_of_cached_teachers(command, capsys, tmp_path):
    cache = f"cache_dir={tmp_path / 'own'}"
    command("teacher.seed=1", cache, name="alone")
    first = command("teacher=ensemble", "teacher.seeds=[0,1]", cache, name="first")
    out = capsys.readouterr().out
    assert "EnsembleTeacher" in out
    found = summary(first)["teacher"]
    assert found["source"] == "trained now"
    assert found["training_samples"] == 2000
    assert found["parameters"] == 2 * (784 * 32 + 32 + 32 * 10 + 10)
    seeds = [card["recipe"]["seed"] for card in found["card"]["members"]]
    assert seeds == [card["recipe"]["data"]["seed"] for card in found["card"]["members"]] == [0, 1]
    # The member of seed 1 is the teacher of seed 1.
    assert len(list((tmp_path / "own").glob("*.safetensors"))) == 2
    single = [card["metrics"]["test/accuracy"] for card in found["card"]["members"]]
    assert found["test"]["accuracy"] > min(single)
    second = command("teacher=ensemble", "teacher.seeds=[0,1]", cache, name="second")
    assert summary(second)["teacher"]["source"].startswith("cached, ")
    assert same_weights(first, second)
    one = ("teacher=ensemble", "teacher.seeds=[1]", "teacher.average=logits", cache)
    assert same_weights(command(*one, name="one"), tmp_path / "alone")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("teacher.seed=3", ["teacher.seed=3", "teacher.seeds=[3,...]"]),
        ("teacher.seeds=[]", ["teacher.seeds", "one seed or more"]),
        ("teacher.seeds=[1,1]", ["teacher.seeds", "all be different", "[1, 1]"]),
        ("teacher.seeds=[-1]", ["teacher.seeds", ">= 0", "-1"]),
        ("teacher.weights=[1,2]", ["teacher.weights", "each of 3, got 2"]),
        ("teacher.weights=[1,-2,1]", ["teacher.weights", "-2"]),
        ("teacher.average=mean", ["teacher.average", "probabilities"]),
        ("task=teacher", ["task=teacher", "teacher=auto"]),
        ("feature=[hint]", ["gives logits alone", "penultimate"]),
    ],
)
def test_ensembles_that_cannot_be(refused, override, words):
    error = refused("teacher=ensemble", override)
    for word in words:
        assert word in error, error


def test_the_students_own_average(command, capsys):
    options = ("teacher=ema", "teacher.decay=0.9", "label.temperature=1")
    run = command(*options)
    found = summary(run)
    assert "with the student" in capsys.readouterr().out
    assert found["teacher"]["type"] == "EMATeacher"
    assert found["teacher"]["source"] == "the student's own average"
    assert found["teacher"]["parameters"] == found["student"]["parameters"]
    assert found["teacher"]["test"]["accuracy"] > 0.5
    assert found["student"]["test"]["accuracy"] > 0.5
    kept = torch.load(run / "last.ckpt", weights_only=True)
    assert kept["teacher_state"]["steps"] == kept["global_step"]


def test_an_average_goes_on_where_it_was_interrupted(command, monkeypatch):
    from kdlit.distillation import DistillationModule

    options = ("teacher=ema", "teacher.decay=0.9", "label.alpha=0.1", "student.dropout=0.3")
    whole = command(*options, name="whole")

    class InterruptedByTestError(RuntimeError):
        pass

    def stop(self):
        if self.current_epoch == 1:
            raise InterruptedByTestError
        start(self)

    start = DistillationModule.on_train_epoch_start
    monkeypatch.setattr(DistillationModule, "on_train_epoch_start", stop)
    with pytest.raises(SystemExit):
        command(*options, name="halves")
    monkeypatch.undo()
    monkeypatch.chdir(whole.parent)
    halves = command(*options, "ckpt_path=last", name="halves")
    assert same_weights(whole, halves)
    first, second = (
        torch.load(run / "last.ckpt", weights_only=True)["teacher_state"] for run in (whole, halves)
    )
    assert first.keys() == second.keys()
    assert first["steps"] == summary(whole)["steps"]
    assert not [name for name in first if not torch.equal(first[name], second[name])]


def test_mixed_images(command):
    run = command("mix=mixup", "label=matching", "data/augment=shift")
    assert summary(run)["student"]["test"]["accuracy"] > 0.5
    assert "train/soft" in rows(run)[0]
    assert "train/accuracy" not in rows(run)[0]
    again = command("mix=mixup", "label=soft", "label.alpha=1", "label.temperature=1",
                    "data/augment=shift", name="again")  # fmt: skip
    assert same_weights(run, again)


@pytest.mark.parametrize("label", ["soft", "truth", "smooth", "blend"])
def test_mixed_images_have_no_ground_truth(refused, label):
    assert "label=matching" in refused("mix=mixup", f"label={label}")


def test_the_patient_teacher():
    config = composed("experiment=patient")
    assert (config.label.alpha, config.label.temperature) == (1.0, 1.0)
    assert isinstance(build(config, "mix"), Mixup)
    assert config.data.augment._target_ == "kdlit.data.RandomShift"
    assert config.trainer.max_epochs > 100
    assert "alpha" not in composed("experiment=patient", "label=truth", "mix=none").label


@pytest.mark.parametrize(
    "options",
    [("feature=mutual", "feature.mutual.peers=[{_target_:kdlit.models.MLP,widths:[8]}]"),
     ("feature=self_distillation", "feature.self_distillation.student_layers=[hidden1]")],
)  # fmt: skip
def test_without_a_teacher_and_yet_distilled(command, options):
    run = command("teacher=none", "label=truth", *options)
    found = summary(run)
    assert found["teacher"] is None
    assert found["student"]["test"]["accuracy"] > 0.5
    assert found["student"]["parameters"] == 784 * 16 + 16 + 16 * 10 + 10
    assert not same_weights(run, command("teacher=none", "label=truth", name="alone"))
