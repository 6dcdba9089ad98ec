"""Objectives that need more of the command than their own loss: indices, another student."""

import pytest
import torch
from safetensors.torch import load_file

from app.conftest import summary
from kdlit import load_weights
from kdlit.models import MLP
from kdlit.objectives import SimKD

CRD = ["feature=crd", "feature.crd.negatives=64"]
SIMKD = [
    "feature=simkd",
    "label=none",
    "feature.simkd.student_layer=penultimate",
    "feature.simkd.teacher_layer=penultimate",
]


def test_crd_is_given_the_samples_indices_and_is_repeatable(command):
    one, two, other = (
        command(*CRD, f"seed={seed}", name=name)
        for seed, name in ((0, "one"), (0, "two"), (1, "other"))
    )
    assert summary(one)["student"]["test"]["accuracy"] > 0.5
    weights = [load_file(run / "student.safetensors") for run in (one, two, other)]
    same = [all(torch.equal(weights[0][k], w[k]) for k in weights[0]) for w in weights[1:]]
    assert same == [True, False]
    memory = torch.load(one / "last.ckpt", weights_only=True)["state_dict"]
    assert memory["features.crd.count"] == 300


def test_crd_with_too_small_a_memory(refused_in_training):
    error = refused_in_training(*CRD, "feature.crd.samples=1000")
    assert "1000 entries" in error
    assert "60000 for MNIST" in error


def test_simkd_ships_a_student_that_can_be_built_and_loaded(command):
    run = command(*SIMKD)
    found = summary(run)
    assert found["student"]["test"]["accuracy"] > 0.3
    student = SimKD().rebuild(MLP(widths=[16]), MLP(widths=[32]), torch.zeros(2, 1, 28, 28))
    assert found["student"]["parameters"] == sum(p.numel() for p in student.parameters())
    load_weights(student, run / "student.safetensors")
    best = SimKD().rebuild(MLP(widths=[16]), MLP(widths=[32]), torch.zeros(2, 1, 28, 28))
    load_weights(best, run / "best.ckpt")
    inputs = torch.randn(5, 1, 28, 28)
    with torch.no_grad():
        assert torch.equal(student.eval()(inputs), best.eval()(inputs))


def test_simkd_where_the_student_cannot_be_cut(refused_in_training):
    error = refused_in_training("feature=simkd", "label=none")
    assert "MLP has no layer 'block2'" in error


def test_no_label_and_no_feature(refused_in_training):
    assert "nothing would be learned" in refused_in_training("label=none")


@pytest.fixture
def refused_in_training(command, capsys):
    """Expect one line of error from what can only be known once there are networks and data."""

    def call(*overrides: str) -> str:
        with pytest.raises(SystemExit) as stopped:
            command(*overrides)
        assert stopped.value.code == 1
        return capsys.readouterr().err.strip().splitlines()[-1]

    return call
