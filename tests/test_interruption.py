"""Ctrl-C and SIGTERM: the training stops at the next step, and goes on there to the same bits."""

import copy
import signal
from contextlib import nullcontext
from functools import partial

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException

from conftest import network, trainer
from kdlit import Distillation, DistillationModule, SoftLabels
from kdlit.data import MNISTDataModule
from kdlit.interruption import StopAtNextStep
from kdlit.reproducibility import ReseedEachEpoch


class Signal(pl.Callback):
    """Sends signals when a batch of an epoch begins."""

    def __init__(self, *numbers: int, epoch: int = 1, batch: int = 2) -> None:
        self.numbers, self.epoch, self.batch = numbers, epoch, batch

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if (trainer.current_epoch, batch_idx) == (self.epoch, self.batch):
            for number in self.numbers:
                signal.raise_signal(number)


class Theirs(pl.LightningModule):
    """A module of somebody else's."""

    def __init__(self, net) -> None:
        super().__init__()
        self.net = net

    def training_step(self, batch, batch_idx):
        return torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.net(batch[0])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


def flat(dropout: float = 0.0) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Flatten(), network(784, 10, dropout=dropout))


def data_of(mnist_root, batches_at_once: int = 1) -> MNISTDataModule:
    return MNISTDataModule(
        mnist_root, batch_size=16, train_size=150, val_size=500, batches_at_once=batches_at_once
    )


def module_of(step_size: int | None) -> DistillationModule:
    torch.manual_seed(1)
    teacher, student = flat(), flat(dropout=0.3)
    cycle = partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.01)
    return DistillationModule(student, teacher, SoftLabels(), scheduler=cycle, step_size=step_size)


def fit(module, data, path, *callbacks, resume=None, epochs=3, **options):
    own = trainer(
        max_epochs=epochs,
        callbacks=[ReseedEachEpoch(), *callbacks, StopAtNextStep(path)],
        **options,
    )
    own.fit(module, data, ckpt_path=resume, weights_only=True)
    return own


def same(one, two) -> bool:
    first, second = one.state_dict(), two.state_dict()
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step_size", [None, 16])
def test_it_goes_on_within_the_epoch_to_the_same_bits(mnist_root, tmp_path, number, step_size):
    path, at_once = tmp_path / "last.ckpt", 1 if step_size is None else 2
    whole = module_of(step_size)
    told = fit(whole, data_of(mnist_root, at_once), path).callback_metrics
    assert not path.exists()
    with pytest.raises(SIGTERMException):
        fit(module_of(step_size), data_of(mnist_root, at_once), path, Signal(number))
    kept = torch.load(path, weights_only=True)
    assert (kept["epoch"], kept["global_step"]) == (1, 10 + 3 * at_once)
    halves = module_of(step_size)
    metrics = fit(halves, data_of(mnist_root, at_once), path, resume=path).callback_metrics
    assert same(whole, halves)
    assert {name: float(v) for name, v in metrics.items()} == {
        name: float(value) for name, value in told.items()
    }


def test_a_batch_before_a_validation_is_not_the_last(mnist_root, tmp_path):
    path = tmp_path / "last.ckpt"
    with pytest.raises(SIGTERMException):
        fit(module_of(None), data_of(mnist_root), path, Signal(signal.SIGTERM, epoch=0, batch=9))
    assert torch.load(path, weights_only=True)["global_step"] == 11
    path.unlink()
    with pytest.raises(SIGTERMException):  # nothing is left to do: the training's own are there
        fit(module_of(None), data_of(mnist_root), path, Signal(signal.SIGTERM, epoch=2, batch=9))
    assert not path.exists()


def test_accumulated_gradients_are_not_lost(mnist_root, tmp_path):
    path, options = tmp_path / "last.ckpt", {"accumulate_grad_batches": 3}
    whole, halves = module_of(None), module_of(None)
    fit(whole, data_of(mnist_root), path, **options)
    with pytest.raises(SIGTERMException):
        fit(module_of(None), data_of(mnist_root), path, Signal(signal.SIGINT, batch=3), **options)
    assert torch.load(path, weights_only=True)["global_step"] == 4 + 2
    fit(halves, data_of(mnist_root), path, resume=path, **options)
    assert same(whole, halves)


def test_a_second_interruption_stops_at_once(mnist_root, tmp_path):
    path = tmp_path / "last.ckpt"
    with pytest.raises(SystemExit) as stopped:
        fit(module_of(None), data_of(mnist_root), path, Signal(signal.SIGINT, signal.SIGINT))
    assert isinstance(stopped.value.__context__, KeyboardInterrupt)
    assert not path.exists()


@pytest.mark.parametrize("numbers", [(), (signal.SIGTERM,)])
def test_signals_are_given_back(mnist_root, tmp_path, numbers):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(SIGTERMException) if numbers else nullcontext():
        fit(module_of(None), data_of(mnist_root), tmp_path / "last.ckpt", Signal(*numbers))
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_module_of_somebody_elses_goes_on_with_its_teacher(mnist_root, tmp_path):
    path, teacher = tmp_path / "last.ckpt", flat()
    begun = Theirs(flat(dropout=0.3))
    whole, first, second = (copy.deepcopy(begun) for _ in range(3))

    def distil(module, *callbacks, **options):
        own = Distillation(teacher, SoftLabels(alpha=0.9), student="net")
        fit(module, data_of(mnist_root), path, own, *callbacks, **options)

    distil(whole)
    with pytest.raises(SIGTERMException):
        distil(first, Signal(signal.SIGTERM))
    distil(second, resume=path)
    assert same(whole, second)
