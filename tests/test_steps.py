"""A loader's batch that is many steps: the same training as with a batch for each step."""

import csv
from functools import partial

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from conftest import PlainData, network, trainer
from kdlit import DistillationModule, Mixup, SoftLabels, SupervisedModule
from kdlit.errors import ConfigError, NonFiniteError
from kdlit.loggers import CSVMetricsLogger
from kdlit.objectives import CRD, Hint
from kdlit.teachers import EMATeacher

# Advice that counts the loader's batches.
pytestmark = pytest.mark.filterwarnings("ignore:The number of training batches")

SAMPLES, STEP = 56, 8  # seven steps an epoch
SCHEDULES = {
    "none": None,
    "steps": partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.1),
    "epochs": partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5),
}


def indexed(samples):
    x, y, index = (torch.stack(part) for part in zip(*samples, strict=True))
    return {"x": x, "labels": y, "index": index}


class IndexedData(PlainData):
    def __init__(self, **options) -> None:
        super().__init__(SAMPLES, collate=indexed, **options)
        x, y = self.data.tensors
        self.data = torch.utils.data.TensorDataset(x, y, torch.arange(len(x)))

    def val_dataloader(self):
        return torch.utils.data.DataLoader(self.data, batch_size=SAMPLES, collate_fn=indexed)


def trained(tmp_path, step_size, batch_size, schedule=None, epochs=3, **parts):
    torch.manual_seed(3)
    module = DistillationModule(
        network(dropout=0.3),
        parts.pop("teacher", None) or network(),
        parts.pop("label", None) or SoftLabels(),
        partial(torch.optim.Adam, lr=0.01),
        schedule,
        step_size=step_size,
        **parts,
    )
    logger = CSVMetricsLogger(tmp_path / f"{step_size}.csv")
    fit = trainer(max_epochs=epochs, logger=logger, log_every_n_steps=2)
    fit.fit(module, IndexedData(batch_size=batch_size))
    with logger.path.open() as file:
        return module, fit, list(csv.DictReader(file))


def same(one, two) -> bool:
    first, second = one.state_dict(), two.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


@pytest.mark.parametrize("batch_size", [2 * STEP, 3 * STEP, 100])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_weights_metrics_and_steps_are_the_same(tmp_path, schedule, batch_size):
    one, fit_one, rows_one = trained(tmp_path, None, STEP, SCHEDULES[schedule])
    many, fit_many, rows_many = trained(tmp_path, STEP, batch_size, SCHEDULES[schedule])
    assert same(one.student, many.student)
    assert fit_one.global_step == fit_many.global_step == 21
    assert rows_one == rows_many
    rates = [row["train/learning_rate"] for row in rows_many if row["train/learning_rate"]]
    assert len(rates) == 10
    assert (len(set(rates)) > 2) == (schedule != "none")


@pytest.mark.parametrize(
    "parts",
    [
        lambda: {"label": SoftLabels(alpha=1.0), "mix": Mixup()},
        lambda: {"features": {"crd": CRD(SAMPLES, 4, feature_dim=8), "hint": Hint("0", "0")}},
        lambda: {"teacher": EMATeacher(0.9)},
    ],
)
def test_so_is_what_objectives_and_teachers_do_after_a_step(tmp_path, parts):
    one, _, rows_one = trained(tmp_path, None, STEP, **parts())
    many, _, rows_many = trained(tmp_path, STEP, 3 * STEP, **parts())
    assert same(one, many)
    assert rows_one == rows_many


def test_the_most_steps_are_kept_to():
    module = SupervisedModule(network(), step_size=STEP)
    fit = trainer(max_epochs=-1, max_steps=10, limit_val_batches=0)
    fit.fit(module, IndexedData(batch_size=3 * STEP))
    assert fit.global_step == 10


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"max_epochs": -1, "max_steps": 10}, 10),
        ({"max_epochs": 2, "max_steps": 3}, 3),
        ({"max_epochs": 2, "max_steps": 100}, 14),
        ({"max_epochs": 3, "limit_train_batches": 2}, 18),
    ],
)
def test_a_schedule_over_steps_knows_how_many_there_will_be(limits, expected):
    module = SupervisedModule(
        network(),
        scheduler=partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.1),
        step_size=STEP,
    )
    fit = trainer(limit_val_batches=0, **limits)
    fit.fit(module, IndexedData(batch_size=3 * STEP))  # 3, 3 and 1 steps
    assert fit.global_step == module.lr_schedulers().total_steps == expected


def test_a_checkpoint_within_an_epoch_is_not_written_of_a_loss_that_is_not_finite(tmp_path):
    callback = ModelCheckpoint(tmp_path, every_n_train_steps=1, save_top_k=-1)
    module = SupervisedModule(network(), partial(torch.optim.SGD, lr=1e30))
    fit = trainer(enable_checkpointing=True, callbacks=[callback], limit_val_batches=0)
    with pytest.raises(NonFiniteError, match="not finite at step"):
        fit.fit(module, IndexedData(batch_size=STEP))
    for path in tmp_path.iterdir():
        assert torch.load(path, weights_only=True)["global_step"] < 7


def test_a_loss_that_is_not_finite_is_named_with_its_step():
    module = SupervisedModule(network(), partial(torch.optim.SGD, lr=1e30), step_size=STEP)
    with pytest.raises(NonFiniteError, match=r"not finite at step [1-6]"):
        trainer().fit(module, IndexedData(batch_size=100))


def test_refuses_what_it_cannot_do():
    data = IndexedData(batch_size=100)
    with pytest.raises(ConfigError, match="`step_size` must be an integer >= 1, got 0"):
        SupervisedModule(network(), step_size=0)
    with pytest.raises(MisconfigurationException, match="clipping"):
        trainer(gradient_clip_val=1.0).fit(SupervisedModule(network(), step_size=STEP), data)
    plateau = partial(torch.optim.lr_scheduler.ReduceLROnPlateau)
    with pytest.raises(ConfigError, match="leave `step_size` out"):
        trainer().fit(SupervisedModule(network(), scheduler=plateau, step_size=STEP), data)
    odd = PlainData(collate=lambda samples: ([x for x, _ in samples], torch.zeros(len(samples))))
    with pytest.raises(ConfigError, match="'inputs' is list"):
        trainer(limit_val_batches=0).fit(SupervisedModule(network(), step_size=STEP), odd)


@pytest.mark.parametrize("step_size", [None, 16])
def test_a_step_on_the_cpu_does_not_search_for_gpus(monkeypatch, step_size):
    asked = []
    found = torch.cuda.is_available()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: asked.append(None) or found)

    class Counting(pl.Callback):
        def on_train_epoch_start(self, *_):
            asked.clear()

        def on_train_epoch_end(self, *_):
            asked.append("end")

    module = DistillationModule(network(), network(), step_size=step_size)
    trainer(accelerator="cpu", limit_val_batches=0, callbacks=[Counting()]).fit(module, PlainData())
    assert asked[: asked.index("end")] == []


@pytest.mark.parametrize(("before", "after"), [(None, STEP), (STEP, None)])
def test_a_training_does_not_go_on_with_another_way_of_counting_steps(tmp_path, before, after):
    first = DistillationModule(network(), network(), step_size=before)
    first_trainer = trainer()
    first_trainer.fit(first, PlainData(SAMPLES))
    first_trainer.save_checkpoint(tmp_path / "last.ckpt", weights_only=False)
    module = DistillationModule(network(), network(), step_size=after)
    with pytest.raises(ConfigError, match=f"step_size={before}, .* step_size={after}"):
        trainer(max_epochs=2).fit(module, PlainData(SAMPLES), ckpt_path=tmp_path / "last.ckpt")
    trainer().test(module, PlainData(SAMPLES), ckpt_path=tmp_path / "last.ckpt", verbose=False)
