"""Images that a teacher's answers teach a generator to make: the datamodule and its training."""

import copy
import math
from functools import partial

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from conftest import trainer
from kdlit import DistillationModule, EMATeacher, SoftLabels
from kdlit.data import GeneratedImages
from kdlit.errors import ConfigError, TeacherError
from kdlit.models import ImageGenerator
from kdlit.objectives import Hint

SHAPE = (1, 8, 8)


class NoRealImages(pl.LightningDataModule):
    """Data of which only the test may be read, once a test has begun."""

    sample_shape, num_classes, class_names = SHAPE, 3, ["a", "b", "c"]

    def setup(self, stage):
        assert stage == "test"

    def train_dataloader(self):
        raise AssertionError("real images were asked for")

    val_dataloader = train_dataloader

    def test_dataloader(self):
        torch.manual_seed(3)
        images, labels = torch.randn(20, *SHAPE), torch.arange(20) % 3
        return torch.utils.data.DataLoader([*zip(images, labels, strict=True)], batch_size=10)


def network(width: int = 12) -> nn.Sequential:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 3)
    )


def teacher() -> nn.Module:
    torch.manual_seed(8)
    made = network(16)
    made(torch.randn(50, *SHAPE))
    return made.eval()


def data_of(**options) -> GeneratedImages:
    torch.manual_seed(1)
    made = {
        "generator": ImageGenerator(5, channels=(4, 4), shape=SHAPE),
        "noise": 5,
        "batch_size": 16,
        "steps_per_epoch": 4,
        "val_size": 25,
        "eval_batch_size": 20,
        "optimizer": partial(torch.optim.Adam, lr=0.01),
    }
    return GeneratedImages(NoRealImages(), **(made | options))


def fit(data, epochs=2, ckpt_path=None, label=None, features=None, own=None, **options):
    own = teacher() if own is None else own
    data.learn_from(own)
    torch.manual_seed(2)
    label = SoftLabels(temperature=2, alpha=1) if label is None else label
    module = DistillationModule(network(), own, label, features=features)
    runner = trainer(max_epochs=epochs, **options)
    runner.fit(module, data, ckpt_path=ckpt_path, weights_only=True)
    return runner, module


def bits(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_same(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_trains_without_a_real_image_and_leaves_the_teacher_as_it_was():
    data, own = data_of(adversarial=1.0), teacher()
    before, generator = bits(own), bits(data.lesson.generator)
    runner, module = fit(data, own=own)
    assert runner.global_step == 8
    assert 0 <= runner.callback_metrics["val/accuracy"] <= 1
    assert_same(bits(own), before)
    assert not any(p.requires_grad or p.grad is not None for p in own.parameters())
    assert not any(own_module.training for own_module in own.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in own.modules())
    now = data.lesson.generator.state_dict()
    assert all(
        not torch.equal(now[name], generator[name]) for name in ("linear.weight", "last.weight")
    )
    found = runner.test(module, data, verbose=False)[0]
    assert {"test/accuracy", "test/teacher_accuracy"} <= found.keys()


def test_the_student_gets_nothing_of_the_generators_step():
    """Neither gradients nor statistics: an adversarial step leaves it as it was."""
    data, student = data_of(adversarial=1.0), network()
    data.learn_from(teacher())
    data.lesson.tap()
    data.lesson.to(torch.device("cpu"))
    before = bits(student)
    data.lesson.step(data.lesson.draw(16, 0), student)
    assert_same(bits(student), before)
    assert all(p.grad is None for p in student.parameters())
    assert all(m.training for m in student.modules())


def test_a_step_is_that_of_the_papers_loss():
    """Against the loss written out, and plain gradient descent."""
    weights = {"one_hot": 0.7, "activation": 0.3, "entropy": 2.0, "adversarial": 0.5}
    data = data_of(optimizer=partial(torch.optim.SGD, lr=0.1), **weights)
    own, student = teacher(), network().eval()
    other = copy.deepcopy(data.lesson.generator)
    data.learn_from(own)
    data.lesson.tap()
    data.lesson.to(torch.device("cpu"))
    noise = data.lesson.draw(16, 0)
    images, target = data.lesson.step(noise, student)

    made = other(noise)
    hidden = own[:-1](made)
    logits = own[-1](hidden)
    mean = logits.softmax(1).mean(0)
    p, q = logits.softmax(1), student(made).softmax(1)
    jsd = (p * (2 * p / (p + q)).log() + q * (2 * q / (p + q)).log()).sum(1).mean() / 2
    loss = (
        0.7 * F.cross_entropy(logits, logits.argmax(1))
        - 0.3 * hidden.abs().mean()
        + 2.0 * (mean * mean.log()).sum()
        - 0.5 * jsd
    )
    loss.backward()
    torch.testing.assert_close(images, made.detach())
    assert not images.requires_grad
    assert torch.equal(target, logits.argmax(1))
    for stepped, plain in zip(data.lesson.generator.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(stepped, plain - 0.1 * plain.grad, rtol=1e-4, atol=1e-6)


def test_the_source_is_the_default():
    weights = data_of().lesson.weights
    assert weights == {
        "one_hot": 1.0, "activation": 0.1, "entropy": 5 / math.log(10), "adversarial": 0.0,
    }  # fmt: skip


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
@pytest.mark.parametrize("options", [{}, {"adversarial": 1.0, "student_steps": 2, "anneal": True}])
def test_a_run_that_goes_on_gets_the_same_bits(tmp_path, options):
    saves = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    own = {"enable_checkpointing": True, "callbacks": [saves]}
    whole, straight = fit(data_of(**options), epochs=3, **own)
    kept = torch.load(tmp_path / "epoch=0.ckpt", weights_only=True)["GeneratedImages"]
    assert set(kept) == {"generator", "optimizer", "loader"}
    data = data_of(**options)
    torch.nn.init.zeros_(data.lesson.generator.last.weight)  # whatever it begins with
    _, resumed = fit(data, epochs=3, ckpt_path=tmp_path / "epoch=0.ckpt", **own)
    assert_same(bits(resumed), bits(straight))
    assert_same(bits(data.lesson.generator), bits(whole.datamodule.lesson.generator))


def test_a_dry_run_takes_no_step_of_its_own():
    """An objective that looks into the networks asks for the first batch before training does."""
    plain, looking = data_of(), data_of()
    fit(plain, epochs=1)
    fit(looking, epochs=1, features={"hint": Hint("3", "3")})
    assert_same(bits(plain.lesson.generator), bits(looking.lesson.generator))


def test_several_batches_for_one_step_of_the_generator():
    data = data_of(student_steps=2)
    steps = []
    step = data.lesson.step
    data.lesson.step = lambda *a: steps.append(1) or step(*a)
    runner, _ = fit(data, epochs=1)
    assert (len(steps), runner.global_step) == (2, 4)


def test_the_learning_rate_of_the_generator_falls_over_the_training():
    data, rates = data_of(anneal=True, student_steps=2), []
    step = data.lesson.step
    data.lesson.step = lambda *a: (
        rates.append(data.lesson.optimizer.param_groups[0]["lr"]) or step(*a)
    )
    fit(data, epochs=2)
    assert rates == pytest.approx(
        [0.01 * (1 + math.cos(math.pi * number / 8)) / 2 for number in (0, 2, 4, 6)]
    )
    with pytest.raises(ConfigError, match="max_epochs"):
        fit(data_of(anneal=True), epochs=-1, max_steps=1)


def test_noise_is_a_transfer_set_without_a_lesson():
    generator = nn.Unflatten(1, SHAPE)
    data = data_of(generator=generator, noise=64)
    own = teacher()
    data.learn_from(own)
    data.lesson.to(torch.device("cpu"))
    images, target = data.lesson.step(data.lesson.draw(1000, 0))
    assert images.shape == (1000, *SHAPE)
    assert images.mean().abs() < 0.02
    assert images.std().item() == pytest.approx(1, abs=0.02)
    assert torch.equal(target, own(images).argmax(1))
    fit(data, epochs=1)


def test_bf16_trains_and_keeps_the_generator_in_float32():
    data = data_of(adversarial=1.0)
    fit(data, epochs=1, precision="bf16-mixed")
    assert {p.dtype for p in data.lesson.generator.parameters()} == {torch.float32}
    half = data_of()
    fit(half, epochs=1, precision="bf16-true")
    assert {p.dtype for p in half.lesson.generator.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 1}, "`batch_size` must be an integer >= 2, got 1"),
        ({"one_hot": -1.0}, "`one_hot`"),
        ({"one_hot": 0.0, "activation": 0.0, "entropy": 0.0}, "would learn nothing"),
        ({"noise": 7}, "`generator` cannot take 7 numbers"),
        ({"generator": nn.Unflatten(1, (1, 4, 4)), "noise": 16}, r"shape \(1, 4, 4\)"),
    ],
)
def test_refuses_bad_arguments(options, message):
    with pytest.raises(ConfigError, match=message):
        data_of(**options)


def test_says_from_whom_it_cannot_learn():
    data = data_of()
    with pytest.raises(TeacherError, match="one frozen network, there is none"):
        data.learn_from(None)
    with pytest.raises(TeacherError, match="got EMATeacher"):
        data.learn_from(EMATeacher(0.9))
    with pytest.raises(ConfigError, match="no layer 'nonsense'"):
        data_of(layer="nonsense").learn_from(teacher())
    with pytest.raises(TeacherError, match=r"call learn_from\(teacher\)"):
        trainer().fit(DistillationModule(network(), teacher()), data_of())
