"""Networks of torchvision and timm by their names, as student and as teacher, with their layers."""

import re
import sys

import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from torch import nn

from app.conftest import SMALL, summary
from kdlit import load_student
from kdlit.app.build import build
from kdlit.app.train import main
from kdlit.errors import ConfigError
from kdlit.models import MLP

HINT = ["feature=hint", "label=soft"]
TINY = ["data.train_size=32", "data.val_size=32", "trainer.max_epochs=1", "cache=none",
        "teacher.data.train_size=32"]  # fmt: skip


def layers(student: str, teacher: str) -> list[str]:
    return [f"feature.hint.student_layer={student}", f"feature.hint.teacher_layer={teacher}"]


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Run the command with networks of somebody's, on few images."""
    monkeypatch.chdir(tmp_path)

    def call(*overrides: str):
        ours = ("data.train", "data.val", "trainer.max", "teacher.data", "student", "teacher/")
        small = [line for line in SMALL if not line.startswith((*ours, "teacher.network"))]
        where = [f"cache_dir={tmp_path / 'cache'}", f"hydra.run.dir={tmp_path / 'run'}"]
        monkeypatch.setattr(sys, "argv", ["kdlit-train", *small, *TINY, *where, *overrides])
        GlobalHydra.instance().clear()
        main()
        return tmp_path / "run"

    return call


@pytest.mark.slow
def test_a_student_and_a_teacher_of_torchvision(own):
    run = own(
        "student=torchvision", "student.name=mobilenet_v3_small",
        "teacher/network=torchvision", "teacher.network.name=resnet18",
        *HINT, *layers("features.4", "layer3"),
    )  # fmt: skip
    found = summary(run)
    assert found["teacher"]["type"] == "ResNet"
    assert found["student"]["type"] == "MobileNetV3"
    student = load_student(run)
    assert student.classifier[3].out_features == 10
    assert student.features[0][0].in_channels == 1


@pytest.mark.slow
def test_a_student_and_a_teacher_of_timm(own):
    pytest.importorskip("timm")
    run = own(
        "student=timm", "student.model_name=test_resnet",
        "teacher/network=timm", "teacher.network.model_name=test_resnet",
        *HINT, *layers("layer3", "layer4"),
    )  # fmt: skip
    assert load_student(run).conv1 is not None


@pytest.mark.parametrize("option", ["name=vgg11", "in_channels=3"])
def test_a_network_that_cannot_take_the_images_is_named(option, own, capsys):
    with pytest.raises(SystemExit):
        own("student=torchvision", f"student.{option}", "teacher/network=mlp")
    error = capsys.readouterr().err
    assert re.search(r"student: (VGG|ResNet) cannot take images of shape \(1, 28, 28\)", error)


def composed(*overrides: str):
    GlobalHydra.instance().clear()
    with initialize_config_module("kdlit.conf", version_base="1.3"):
        return compose("train", [*overrides, "run_dir=x"])


def test_a_teacher_is_found_under_the_attribute_that_held_it(tmp_path):
    theirs = nn.ModuleDict({"online": MLP(widths=[4]), "average": MLP(widths=[4])})
    torch.save({"state_dict": theirs.state_dict()}, tmp_path / "their.ckpt")
    options = ["teacher=checkpoint", f"teacher.path={tmp_path / 'their.ckpt'}",
               "teacher/network=mlp", "teacher.network.widths=[4]"]  # fmt: skip
    teacher = build(composed(*options, "teacher.prefix=average"), "teacher").loaded
    assert torch.equal(teacher.classifier.weight, theirs["average"].classifier.weight)
    with pytest.raises(ConfigError, match=r"teacher.path: .*`prefix` which of average, online"):
        build(composed(*options), "teacher")
