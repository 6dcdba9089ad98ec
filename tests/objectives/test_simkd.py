"""SimKD: the network that is trained and shipped, and the teacher whose classifier is in it."""

import copy
from collections import OrderedDict
from functools import partial

import pytest
import torch
from torch import nn

from conftest import trainer
from kdlit import DistillationModule, TruthLabels, load_weights, save_weights
from kdlit.batch import Batch, Outputs
from kdlit.errors import ConfigError, TeacherError
from kdlit.models import ArticleCNN, ConvNet
from kdlit.objectives import DryRun, Hint, NoLabels, SimKD
from objectives.table import Ready, Tiny, samples, trained_teacher
from objectives.test_runs import Images

EITHER = pytest.mark.parametrize(
    "layers", [("penultimate", "penultimate"), ("block2", "block2"), ("block1", "block2")]
)


class Forked(nn.Module):
    """A network that is no nn.Sequential, and whose classifier lies deeper."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(64, 10)
        self.head = nn.ModuleDict({"drop": nn.Dropout(), "fc": nn.Linear(10, 5)})

    def forward(self, images):
        return self.head["fc"](self.head["drop"](torch.relu(self.stem(images.flatten(1)))))


def fitted(student: nn.Module, objective: SimKD, label=None, **features) -> DistillationModule:
    module = DistillationModule(
        student,
        trained_teacher(),
        NoLabels() if label is None else label,
        partial(torch.optim.Adam, lr=0.01),
        features={"simkd": objective, **features},
    )
    trainer().fit(module, Images())
    return module


@EITHER
def test_the_classifier_is_the_teachers_and_stays_so(layers):
    module = fitted(Tiny(), SimKD(*layers), TruthLabels())
    fresh, teacher = trained_teacher(), module.teacher.network
    state = fresh.state_dict()
    assert all(torch.equal(state[k], value) for k, value in teacher.state_dict().items())
    reused = module.student.classifier
    linear = [part for part in reused.head.modules() if isinstance(part, nn.Linear)][-1]
    assert torch.equal(linear.weight, teacher.classifier.weight)
    assert linear.weight is not teacher.classifier.weight
    trained = {id(p) for group in module.optimizers().param_groups for p in group["params"]}
    assert not trained & {id(p) for p in reused.head.parameters()}
    assert {id(p) for p in reused.projector.parameters()} <= trained


@EITHER
def test_every_trained_parameter_is_used(layers):
    """DDP refuses to train a network with parameters that get no gradient."""
    objective = SimKD(*layers)
    teacher = trained_teacher()
    student = objective.rebuild(Tiny(), teacher, samples(4).inputs)
    found = Ready(objective, student, teacher, samples(4))
    found.terms()["simkd"].backward()
    for name, parameter in student.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


@EITHER
@pytest.mark.parametrize("suffix", ["safetensors", "ckpt"])
def test_what_was_exported_loads_into_a_network_that_is_built_anew(layers, suffix, tmp_path):
    module = fitted(Tiny(), SimKD(*layers))
    path = tmp_path / f"student.{suffix}"
    if suffix == "ckpt":
        module.trainer.save_checkpoint(path)
    else:
        save_weights(path, module.student)
    student = SimKD(*layers).rebuild(Tiny(), Tiny(6, 8, 16), samples(2).inputs)
    load_weights(student, path)
    inputs = samples(16).inputs
    with torch.no_grad():
        assert torch.equal(student.eval()(inputs), module.student.eval()(inputs))


def test_layers_before_the_cut_keep_their_names_for_other_objectives():
    module = fitted(Tiny(), SimKD(), TruthLabels(), early=Hint("block1", "block1"), late=Hint())
    assert [name for name, _ in module.student.named_children()] == list(
        dict(Tiny().named_children())
    )
    # The new penultimate features are as wide as the teacher's.
    assert module.features["late"].projector.map.in_features == 16
    assert module.features["early"].projector.map.in_channels == 4


def test_any_network_can_be_cut_at_its_last_linear_layer():
    module = fitted(Forked(), SimKD())
    assert isinstance(module.student.head["fc"].projector, nn.Module)
    assert module.student(samples(3).inputs).shape == (3, 5)
    assert "head.fc.head.weight" in module.student.state_dict()


def test_a_head_with_dropout_and_batch_norm_works_as_in_evaluation():
    layers = {"fc": nn.Linear(64, 8), "norm": nn.BatchNorm1d(8), "drop": nn.Dropout()}
    teacher = nn.Sequential(
        OrderedDict({"flat": nn.Flatten(), **layers, "classifier": nn.Linear(8, 5)})
    )
    teacher(samples(64).inputs)
    student = SimKD("flatten", "fc").rebuild(Tiny(), teacher, samples(4).inputs)
    student.train()
    before = copy.deepcopy(student.classifier.head.state_dict())
    features = torch.randn(6, 96)
    one, two = student.classifier(features), student.classifier(features)
    assert torch.equal(one, two)
    after = student.classifier.head.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_copy_is_not_watched_by_what_watches_the_teacher():
    teacher = trained_teacher()
    seen = []
    teacher.classifier.register_forward_pre_hook(lambda *_: seen.append(1))
    student = SimKD().rebuild(Tiny(), teacher, samples(2).inputs)
    seen.clear()
    student(samples(2).inputs)
    assert not seen


def test_the_shipped_network_of_the_default_layers_is_smaller_than_the_teacher():
    student = SimKD("block2", "block2").rebuild(ArticleCNN(), ConvNet(), torch.zeros(2, 1, 28, 28))
    size, teacher = (sum(p.numel() for p in n.parameters()) for n in (student, ConvNet()))
    assert size < teacher
    assert student(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


@pytest.mark.parametrize(
    ("student", "layers", "message"),
    [
        (Tiny(), ("penultimate", "block2"), "must both give vectors"),
        (Tiny(), ("classifier", "penultimate"), "cannot cut Tiny after 'classifier'"),
        (Tiny(), ("hidden.0", "penultimate"), "cannot cut Tiny after 'hidden.0'"),
        (Forked(), ("stem", "penultimate"), "cannot cut Forked after 'stem'"),
    ],
)
def test_refuses_networks_that_it_cannot_cut(student, layers, message):
    with pytest.raises(ConfigError, match=message):
        fitted(student, SimKD(*layers))


def test_refuses_teachers_that_are_not_one_network():
    said = Outputs(torch.zeros(2, 5), {"penultimate": torch.zeros(2, 3)})
    with pytest.raises(TeacherError, match="must be one network"):
        SimKD().deployed(DryRun(said, said, Tiny(), None))


def test_refuses_a_factor_below_one():
    with pytest.raises(ConfigError, match="`factor` must be an integer >= 1, got 0"):
        SimKD(factor=0)


def test_nothing_to_learn_is_refused():
    with pytest.raises(ConfigError, match="NoLabels has no loss, and there is no feature"):
        DistillationModule(Tiny(), trained_teacher(), NoLabels())
    assert NoLabels()(Outputs(torch.zeros(1, 5)), None, Batch(None)) == {}
