import copy
import math
from functools import partial

import pytest
import torch
from torch import nn

from conftest import PlainData, network, trainer
from kdlit import DistillationModule, SoftLabels
from kdlit.batch import Batch
from kdlit.errors import ConfigError, TeacherError
from kdlit.teachers import EMATeacher, EnsembleTeacher, FrozenTeacher

BATCH = Batch(torch.randn(32, 6))
SGD = partial(torch.optim.SGD, lr=0.1)


class Constant(nn.Module):
    """Answers the same logits for every sample."""

    def __init__(self, *logits: float, dtype=torch.float32):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits, dtype=dtype))

    def forward(self, inputs):
        return self.logits.expand(len(inputs), -1)


def answer(*networks, **options):
    return EnsembleTeacher(list(networks), **options)(BATCH).logits


def test_an_ensemble_of_one_is_that_teacher():
    one = network().eval()
    alone = FrozenTeacher(one)(BATCH).logits
    assert torch.equal(answer(one, average="logits"), alone)
    assert torch.allclose(answer(one).softmax(dim=1), alone.softmax(dim=1), atol=1e-6)


@pytest.mark.parametrize("weights", [None, [1, 1, 1], [3, 1, 0]])
def test_it_is_the_weighted_mean(weights):
    networks = [network().eval() for _ in range(3)]
    logits = [FrozenTeacher(net)(BATCH).logits for net in networks]
    shares = [w / sum(weights or [1, 1, 1]) for w in weights or [1, 1, 1]]
    arithmetic = sum(w * z.softmax(dim=1) for w, z in zip(shares, logits, strict=True))
    geometric = sum(w * z for w, z in zip(shares, logits, strict=True))
    found = answer(*networks, weights=weights)
    assert torch.allclose(found.exp(), arithmetic, atol=1e-6)
    assert torch.allclose(found.softmax(dim=1), arithmetic, atol=1e-6)
    assert torch.allclose(answer(*networks, weights=weights, average="logits"), geometric)


def test_the_two_means_differ_as_they_should():
    sure, unsure = Constant(math.log(0.99), math.log(0.01)), Constant(math.log(0.5), math.log(0.5))
    assert answer(sure, unsure).exp()[0, 0].item() == pytest.approx(0.745)
    odds = math.sqrt(99)
    geometric = answer(sure, unsure, average="logits").softmax(dim=1)[0, 0].item()
    assert geometric == pytest.approx(odds / (1 + odds))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_it_is_finite_at_the_extremes_and_computed_in_float32(dtype, average):
    one, two = Constant(1e4, -1e4, 0, dtype=dtype), Constant(-1e4, 1e4, 0, dtype=dtype)
    found = answer(one, two, average=average)
    assert found.dtype == torch.float32
    assert torch.isfinite(found).all()
    if average == "probabilities":
        assert found[0].exp().tolist() == [0.5, 0.5, 0.0]


def test_it_stays_frozen_and_a_student_learns_from_it():
    members = [network(dropout=0.5) for _ in range(2)]
    before = [copy.deepcopy(member.state_dict()) for member in members]
    teacher = EnsembleTeacher(members)
    student = network()
    module = DistillationModule(student, teacher, SoftLabels(alpha=1.0), SGD)
    module.train()
    assert not any(part.training for part in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert all(name.startswith("student.") for name in module.state_dict())
    fit = trainer(max_epochs=10)
    first = fit.validate(module, PlainData(), verbose=False)[0]
    fit.fit(module, PlainData())
    last = fit.validate(module, PlainData(), verbose=False)[0]
    assert last["val/kl_from_teacher"] < 0.5 * first["val/kl_from_teacher"]
    for member, state in zip(members, before, strict=True):
        assert all(torch.equal(state[name], value) for name, value in member.state_dict().items())


@pytest.mark.parametrize(
    ("teachers", "options", "message"),
    [
        ([], {}, "one network or more"),
        (nn.Sequential(nn.Linear(6, 3)), {}, "must be a list"),
        ([EMATeacher()], {}, "must be networks, got EMATeacher"),
        (["resnet"], {}, "must be networks, got str"),
        ([nn.Linear(6, 3)], {"weights": [1, 2]}, "one number for each of 1, got 2"),
        ([nn.Linear(6, 3)], {"weights": [0]}, "not be 0 for all"),
        ([nn.Linear(6, 3)] * 2, {"weights": [2, -1]}, "`weights` must be .* >= 0, got -1"),
        ([nn.Linear(6, 3)], {"average": "logit"}, "did you mean logits"),
    ],
)
def test_refused(teachers, options, message):
    with pytest.raises(ConfigError, match=message):
        EnsembleTeacher(teachers, **options)


def test_members_with_other_classes_are_refused():
    with pytest.raises(
        TeacherError, match=r"same classes, got logits of shapes \(32, 3\), \(32, 4"
    ):
        answer(nn.Linear(6, 4), nn.Linear(6, 3))


def test_it_has_no_layers():
    with pytest.raises(TeacherError, match="EnsembleTeacher gives logits alone"):
        EnsembleTeacher([network()]).tap(["penultimate"])
