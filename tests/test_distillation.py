"""The contracts of the module, one test each."""

import copy
import re
from functools import partial

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from conftest import PlainData, network, trainer
from kdlit import (
    Distillation,
    DistillationModule,
    HardLabels,
    Objective,
    SoftLabels,
    TruthLabels,
)
from kdlit.batch import Batch
from kdlit.errors import ConfigError, NonFiniteError, TeacherError
from kdlit.objectives import SimilarityPreserving
from kdlit.objectives.base import logits_of

SGD = partial(torch.optim.SGD, lr=0.1)


def state_of(net: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def same(one: dict, two: dict) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.fixture
def teacher():
    return network(dropout=0.5)


@pytest.fixture
def module(teacher):
    return DistillationModule(network(), teacher, SoftLabels(), SGD)


# The teacher ---------------------------------------------------------------------------------


def test_the_teacher_is_bit_identical_after_fit_validate_test_and_train(module, teacher):
    before, student = state_of(teacher), state_of(module.student)
    fit = trainer(max_epochs=2)
    fit.fit(module, PlainData())
    fit.validate(module, PlainData(), verbose=False)
    fit.test(module, PlainData(), verbose=False)
    module.train()
    module.training_step_outputs = module(torch.randn(4, 6))
    assert same(before, state_of(teacher))
    assert not same(student, state_of(module.student))


def test_the_teacher_is_in_evaluation_mode_for_ever(module, teacher):
    module.train()
    module.train(True)
    assert not any(part.training for part in teacher.modules())
    assert all(part.training for part in module.student.modules())

    class Watch(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.modes = network(), set()

        def forward(self, x):
            self.modes |= {part.training for part in self.modules()}
            self.grad = torch.is_grad_enabled()
            return self.net(x)

    watch = Watch()
    trainer().fit(DistillationModule(network(), watch, SoftLabels(), SGD), PlainData())
    assert watch.modes == {False}
    assert not watch.grad


def test_the_student_is_in_train_mode_again_after_validation(module):
    modes = []
    module.student.register_forward_hook(lambda net, *_: modes.append(net.training))
    trainer(max_epochs=2).fit(module, PlainData(samples=32, batch_size=16))
    assert modes == [False, False] + 2 * [True, True, False, False]


def test_the_teacher_is_no_part_of_the_module(module, teacher):
    theirs = {id(tensor) for tensor in teacher.state_dict(keep_vars=True).values()}
    assert not theirs & {id(parameter) for parameter in module.parameters()}
    assert not theirs & {id(buffer) for buffer in module.buffers()}
    assert not any(part is teacher for part in module.modules())
    assert set(module.state_dict()) == {f"student.{name}" for name in module.student.state_dict()}
    optimizer = module.configure_optimizers()
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(parameter) for parameter in module.student.parameters()}
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_checkpoint_and_hyperparameters_hold_no_teacher(module, tmp_path):
    callback = ModelCheckpoint(tmp_path, save_last=True)
    trainer(enable_checkpointing=True, callbacks=[callback]).fit(module, PlainData())
    found = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert all(name.startswith("student.") for name in found["state_dict"])
    assert len(found["state_dict"]) == len(module.student.state_dict())
    assert "teacher" not in str(found.get("hyper_parameters", {}))
    assert not module.hparams


def test_a_checkpoint_restores_where_there_is_no_teacher(module, tmp_path):
    fit = trainer()
    fit.fit(module, PlainData())
    fit.save_checkpoint(tmp_path / "run.ckpt")
    restored = DistillationModule.load_from_checkpoint(
        tmp_path / "run.ckpt", student=network(), label=TruthLabels(), weights_only=True
    )
    assert same(state_of(restored.student), state_of(module.student))
    assert restored.teacher is None


@pytest.mark.parametrize(
    "move", [lambda m: m.to(torch.float64), lambda m: m.double(), lambda m: m.to("meta")]
)
def test_the_teacher_follows_to_devices_and_types(module, teacher, move):
    move(module)
    ours, theirs = (next(net.parameters()) for net in (module.student, teacher))
    assert (ours.dtype, ours.device) == (theirs.dtype, theirs.device)
    assert theirs.dtype == torch.float64 or theirs.device.type == "meta"


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true", "32-true"])
def test_precision_reaches_both_networks_and_the_loss_stays_in_float32(precision):
    class Watch(SoftLabels):
        def forward(self, student, teacher, batch):
            self.types = (student.logits.dtype, teacher.logits.dtype)
            self.autocast = torch.is_autocast_enabled("cpu")
            terms = super().forward(student, teacher, batch)
            self.loss = terms["soft"].dtype
            return terms

    label = Watch()
    plain = nn.Linear(6, 3), nn.Linear(6, 3)
    trainer(precision=precision).fit(DistillationModule(*plain, label, SGD), PlainData())
    expected = {"bf16-mixed": torch.bfloat16, "bf16-true": torch.bfloat16, "64-true": torch.float64}
    assert label.types == (expected.get(precision, torch.float32),) * 2
    assert label.loss == (torch.float64 if precision == "64-true" else torch.float32)
    assert not label.autocast


def test_a_teacher_that_is_assigned_later_is_frozen_and_kept_out_too(module):
    other = network()
    module.teacher = other
    assert module.teacher.network is other
    assert not other.training
    assert all(name.startswith("student.") for name in module.state_dict())
    module.teacher = None
    assert module.teacher is None


def test_a_copy_has_a_teacher_of_its_own(module):
    twin = copy.deepcopy(module)
    assert twin.teacher is not module.teacher
    assert same(state_of(twin.teacher), state_of(module.teacher))


# Batches and outputs -------------------------------------------------------------------------


class Wrapped(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, inputs):
        return type("Output", (), {"logits": self.net(inputs)})()


def collate(form):
    def make(samples):
        x, y = (torch.stack(part) for part in zip(*samples, strict=True))
        return form(x, y)

    return make


@pytest.mark.parametrize(
    "form",
    [
        lambda x, y: (x, y),
        lambda x, y: [x, y, torch.arange(len(x))],
        lambda x, y: {"pixel_values": x, "labels": y},
        lambda x, y: {"x": x, "label": y, "index": torch.arange(len(x))},
    ],
)
@pytest.mark.parametrize("wrap", [lambda net: net, Wrapped])
def test_every_form_of_batch_and_output_gives_the_same_student(form, wrap, teacher):
    def student(form, wrap):
        torch.manual_seed(3)
        net = network()
        module = DistillationModule(wrap(net), wrap(copy.deepcopy(teacher)), SoftLabels(), SGD)
        trainer().fit(module, PlainData(collate=collate(form)))
        return state_of(net)

    assert same(student(form, wrap), student(lambda x, y: (x, y), lambda net: net))


def test_both_networks_see_the_same_view(teacher):
    views = {"student": [], "teacher": []}
    student = network()
    student.register_forward_pre_hook(lambda net, args: views["student"].append(args[0].clone()))
    teacher.register_forward_pre_hook(lambda net, args: views["teacher"].append(args[0].clone()))

    class Noisy(PlainData):
        def on_after_batch_transfer(self, batch, dataloader_idx):
            return batch[0] + torch.randn_like(batch[0]), batch[1]

    trainer().fit(DistillationModule(student, teacher, SoftLabels(), SGD), Noisy())
    assert len(views["student"]) == len(views["teacher"]) > 0
    assert all(map(torch.equal, views["student"], views["teacher"]))


# The objective -------------------------------------------------------------------------------


class Projected(Objective):
    """An objective with a trainable part of its own."""

    needs_teacher = True

    def __init__(self):
        super().__init__()
        self.weights = {"projected": 1.0}
        self.projector = nn.Linear(3, 3)

    def forward(self, student, teacher, batch):
        gap = self.projector(student.logits.float()) - logits_of(teacher).float()
        return {"projected": gap.square().mean()}


def test_trainable_parts_of_an_objective_are_trained_saved_and_logged(teacher, tmp_path):
    label = Projected()
    module = DistillationModule(network(), teacher, label, SGD)
    before = state_of(label)
    fit = trainer()
    fit.fit(module, PlainData())
    assert not same(before, state_of(label))
    assert "train/projected_epoch" in fit.callback_metrics
    fit.save_checkpoint(tmp_path / "run.ckpt")
    other = Projected()
    DistillationModule.load_from_checkpoint(
        tmp_path / "run.ckpt", student=network(), teacher=teacher, label=other, weights_only=True
    )
    assert same(state_of(other), state_of(label))


def test_alpha_zero_is_truth_to_the_bit_and_runs_no_teacher_in_training(teacher):
    calls = []
    teacher.register_forward_hook(lambda *_: calls.append(1))

    def student(label):
        torch.manual_seed(3)
        module = DistillationModule(network(dropout=0.3), teacher, label, SGD)
        trainer(max_epochs=2, limit_val_batches=0).fit(module, PlainData())
        return state_of(module.student)

    truth = student(TruthLabels())
    assert same(truth, student(SoftLabels(alpha=0.0)))
    assert same(truth, student(HardLabels(alpha=0.0)))
    assert not calls
    assert not same(truth, student(SoftLabels()))
    assert calls


def test_evaluation_compares_with_the_teacher(module, teacher):
    fit = trainer()
    found = fit.test(module, PlainData(), verbose=False)[0]
    x, y = PlainData().data.tensors
    with torch.no_grad():
        ours, theirs = module.student.eval()(x), teacher(x)
    agreement = (ours.argmax(1) == theirs.argmax(1)).float().mean()
    assert found["test/agreement"] == pytest.approx(float(agreement))
    accuracy = (theirs.argmax(1) == y).float().mean()
    assert found["test/teacher_accuracy"] == pytest.approx(float(accuracy))
    assert found["test/kl_from_teacher"] > 0


def test_several_loaders_have_names_of_their_own(module):
    fit = trainer()
    data = PlainData()
    found = fit.test(
        module, [data.test_dataloader(), PlainData(32).test_dataloader()], verbose=False
    )
    names = {name for row in found for name in row}
    assert {"test/accuracy", "test_1/accuracy", "test_1/teacher_nll"} <= names


# Errors --------------------------------------------------------------------------------------


def test_different_numbers_of_classes_are_named(teacher):
    module = DistillationModule(network(classes=4), teacher, SoftLabels(), SGD)
    with pytest.raises(TeacherError, match="student has 4 classes and the teacher 3"):
        trainer().fit(module, PlainData())


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda net: DistillationModule(net, net), ConfigError, "share parameters"),
        (lambda net: DistillationModule(net, None), TeacherError, "SoftLabels needs a teacher"),
        (lambda net: DistillationModule(net, net, "soft"), ConfigError, "`label` .* got str"),
    ],
)
def test_refuses_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make(network())


def test_a_loss_that_is_not_finite_stops_with_its_step_and_keeps_the_last_good_checkpoint(
    teacher, tmp_path
):
    class Failing(TruthLabels):
        steps = 0

        def forward(self, student, teacher, batch):
            self.steps += 1
            terms = super().forward(student, teacher, batch)
            return {name: term / float(self.steps != 7) for name, term in terms.items()}

    callback = ModelCheckpoint(tmp_path, save_last=True, monitor="val/accuracy")
    module = DistillationModule(network(), teacher, Failing(), SGD)
    fit = trainer(
        max_epochs=3, enable_checkpointing=True, callbacks=[callback], log_every_n_steps=50
    )
    with pytest.raises(NonFiniteError, match=re.escape("not finite at step 6: loss=inf")):
        fit.fit(module, PlainData())
    kept = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert kept["global_step"] == 4
    assert all(torch.isfinite(tensor).all() for tensor in kept["state_dict"].values())


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    """The last step of an epoch spoils the weights: its loss was still finite."""
    callback = ModelCheckpoint(tmp_path, save_last=True)
    module = DistillationModule(network(), None, TruthLabels(), partial(torch.optim.SGD, lr=1e38))
    fit = trainer(
        enable_checkpointing=True, callbacks=[callback], limit_train_batches=1, max_epochs=3
    )
    with pytest.raises(NonFiniteError):
        fit.fit(module, PlainData())
    assert not list(tmp_path.iterdir())


def test_a_batch_without_labels_is_named(teacher):
    data = PlainData(collate=lambda samples: torch.stack([x for x, _ in samples]))
    module = DistillationModule(network(), teacher, SoftLabels(), SGD)
    with pytest.raises(ConfigError, match="no target"):
        trainer(limit_val_batches=0).fit(module, data)
    unlabelled = DistillationModule(network(), teacher, SoftLabels(alpha=1.0), SGD)
    fit = trainer(limit_val_batches=0)
    fit.fit(unlabelled, data)
    assert "train/accuracy" not in fit.callback_metrics
    assert Batch.of(next(iter(data.train_dataloader()))).target is None


@pytest.mark.parametrize("make", [partial(DistillationModule, network()), Distillation])
@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("label", "no objective can be named 'label'"),
        ("a.b", "no objective can be named 'a.b'"),
        ("values", "no objective can be named 'values'"),
        ("loss", "a term would be logged as 'loss'"),
        ("total", "a term would be logged as 'total'"),
        ("soft", "two terms would be logged as 'soft'"),
    ],
)
def test_features_have_names_of_their_own(teacher, make, name, problem):
    with pytest.raises(ConfigError, match=problem):
        make(teacher, features={name: SimilarityPreserving("0", "0")})
