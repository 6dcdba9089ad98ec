"""A teacher that is asked once: the same training as with the teacher itself."""

import random
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from conftest import network, trainer
from kdlit import CachedTeacher, DistillationModule, Mixup, SoftLabels, TruthLabels
from kdlit.data import Indexed
from kdlit.errors import ConfigError, TeacherError
from kdlit.objectives import Hint
from kdlit.reproducibility import ReseedEachEpoch
from kdlit.teachers import EMATeacher, EnsembleTeacher

# Of 40 samples every other one is compared when a table is opened, and 8 at the first batch of
# each epoch of training and validation, and of the sanity check.
COMPARED = 20


class Counting(nn.Module):
    """A network whose answer for a sample does not depend on the others, and that counts them."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.layer, self.samples = nn.Linear(6, 3), 0
        self.scale = scale

    def forward(self, x):
        self.samples += len(x)
        # Not a matrix product, whose rounding may depend on the number of rows.
        said = (x[:, None, :] * self.layer.weight).sum(dim=2) + self.layer.bias
        return self.scale * said


class Shaken:
    """A data set of somebody else's, with random augmentation of its own."""

    def __init__(self, amount: float = 1.0) -> None:
        generator = torch.Generator().manual_seed(1)
        self.inputs, self.amount = torch.randn(40, 6, generator=generator), amount

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, position):
        x = self.inputs[position]
        return x + self.amount * random.random() * torch.rand(6), int(x[:3].argmax())


class Foreign(pl.LightningDataModule):
    """A datamodule of somebody else's, whose data sets were wrapped."""

    def __init__(self, train, val=None, workers: int = 0, batch_size: int = 8) -> None:
        super().__init__()
        self.train, self.val, self.workers, self.batch_size = train, val, workers, batch_size

    def train_dataloader(self):
        # A generator of its own: the global one belongs to the networks.
        return DataLoader(
            self.train, self.batch_size, num_workers=self.workers, generator=torch.Generator()
        )

    def val_dataloader(self):
        return DataLoader(self.val or self.train, self.batch_size)


def plain(**options) -> Indexed:
    return Indexed(Shaken(0.0), **options)


def trained(teacher, data, epochs: int = 4, label=None, ckpt=None, callbacks=(), **parts):
    torch.manual_seed(3)
    module = DistillationModule(
        network(dropout=0.3), teacher, label or SoftLabels(), partial(torch.optim.Adam, lr=0.01),
        **parts,
    )  # fmt: skip
    fit = trainer(
        max_epochs=epochs,
        callbacks=[ReseedEachEpoch(0), *callbacks],
        enable_checkpointing=bool(callbacks),
    )
    fit.fit(module, data, ckpt_path=ckpt, weights_only=True if ckpt else None)
    return module, fit


def same(one, two) -> bool:
    first, second = one.student.state_dict(), two.student.state_dict()
    return all(torch.equal(first[name], second[name]) for name in first)


def teacher(scale: float = 1.0) -> Counting:
    torch.manual_seed(8)
    return Counting(scale)


@pytest.mark.parametrize(
    ("views", "workers", "step_size"), [(None, 0, None), (3, 0, 8), (3, 2, None), (None, 2, 8)]
)
@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_trains_as_the_teacher_itself_to_the_bit(tmp_path, views, workers, step_size):
    dataset = Indexed(Shaken(), views=views) if views else plain()
    size = 16 if step_size else 8
    live, asked = teacher(), teacher()
    one, fit_one = trained(live, Foreign(dataset, plain(), workers, size), step_size=step_size)
    two, fit_two = trained(
        CachedTeacher(asked, tmp_path, batch_size=7),
        Foreign(dataset, plain(), workers, size),
        step_size=step_size,
    )
    assert same(one, two)
    assert fit_one.callback_metrics == fit_two.callback_metrics
    assert live.samples > 4 * 80
    # Each view and each validation sample once; and examples for the shapes, and comparisons.
    compared = COMPARED * (3 if views else 2) + 8 * (2 * 4 + 1)
    assert asked.samples <= 40 * ((views or 1) + 1) + 2 * 2 + compared


def test_is_asked_once_for_all_runs_and_again_for_anything_else(tmp_path):
    def asked(data=None, scale=1.0, **options) -> int:
        counting = teacher(scale)
        trained(CachedTeacher(counting, tmp_path, **options), data or Foreign(plain()), epochs=1)
        return counting.samples

    assert asked() > 80
    assert asked() == 2 * COMPARED + 3 * 8
    for other in (
        {"data": Foreign(plain(version="2"))},
        {"data": Foreign(Indexed(Shaken(0.0), views=1, seed=1))},
        {"dtype": "float16"},
        {"top_k": 2},
    ):
        assert asked(**other) > 80, other
    torch.manual_seed(9)
    weights = Counting()
    trained(CachedTeacher(weights, tmp_path), Foreign(plain()), epochs=1)
    assert weights.samples > 80


def test_layers_that_objectives_tap_are_kept_too(tmp_path):
    def features():
        return {"hint": Hint("0", "layer.0")}

    class Deep(Counting):
        def __init__(self):
            super().__init__()
            self.layer = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).double()

        def forward(self, x):
            self.samples += len(x)
            return self.layer(x.double()).float()

    torch.manual_seed(8)
    one = Deep()
    live, _ = trained(one, Foreign(plain()), epochs=8, features=features())
    torch.manual_seed(8)
    two = Deep()
    kept, _ = trained(CachedTeacher(two, tmp_path), Foreign(plain()), epochs=8, features=features())
    assert one.samples > 8 * 40 > two.samples
    for name, value in live.student.state_dict().items():
        torch.testing.assert_close(kept.student.state_dict()[name], value, rtol=1e-4, atol=1e-5)


def test_an_ensemble_is_a_teacher_like_any_other(tmp_path):
    members = [teacher(), teacher(2.0)]
    live, _ = trained(EnsembleTeacher(members), Foreign(plain()))
    kept, _ = trained(CachedTeacher(EnsembleTeacher(members), tmp_path), Foreign(plain()))
    assert same(live, kept)


def test_the_truth_needs_the_validation_samples_alone(tmp_path):
    cached = CachedTeacher(teacher(), tmp_path)
    _, fit = trained(cached, Foreign(Shaken(0.0), plain()), label=TruthLabels())
    assert set(cached.tables) == {"val"}
    assert fit.callback_metrics["val/agreement"] > 0


def test_the_test_set_asks_the_teacher(tmp_path):
    counting = teacher()
    module, fit = trained(CachedTeacher(counting, tmp_path), Foreign(plain()), epochs=1)
    before = counting.samples
    other = DataLoader(TensorDataset(torch.randn(10, 6), torch.zeros(10, dtype=torch.long)), 5)
    fit.test(module, other, verbose=False)
    assert counting.samples == before + 10


def test_data_that_are_validated_later_ask_the_teacher(tmp_path):
    counting = teacher()
    module, fit = trained(CachedTeacher(counting, tmp_path), Foreign(plain()), epochs=1)
    before = counting.samples
    other = Shaken(0.0)
    other.inputs = -other.inputs
    found = fit.validate(module, DataLoader(Indexed(other), 8), verbose=False)[0]
    assert counting.samples == before + 40
    with torch.no_grad():
        alike = module.student.eval()(other.inputs).argmax(1) == counting(other.inputs).argmax(1)
    assert found["val/agreement"] == pytest.approx(float(alike.float().mean()))


def test_one_data_set_with_views_for_training_and_validation(tmp_path):
    both = Indexed(Shaken(), views=2)
    live, fit_live = trained(teacher(), Foreign(both, both))
    cached = CachedTeacher(teacher(), tmp_path)
    kept, fit_kept = trained(cached, Foreign(both, both))
    assert set(cached.tables) == {"train"}
    assert same(live, kept)
    assert fit_live.callback_metrics == fit_kept.callback_metrics


def test_a_schedule_that_asks_for_the_loader_early_sees_the_right_view(tmp_path):
    def run(source):
        data = Foreign(Indexed(Shaken(), views=3), plain(), workers=2)
        cycle = partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.1)
        return trained(source, data, scheduler=cycle)[0]

    assert same(run(teacher()), run(CachedTeacher(teacher(), tmp_path)))


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_goes_on_with_the_view_of_its_epoch(tmp_path):
    def data():
        return Foreign(Indexed(Shaken(), views=3), plain())

    saving = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    whole, _ = trained(CachedTeacher(teacher(), tmp_path), data(), epochs=5, callbacks=[saving])
    half = tmp_path / "epoch=1.ckpt"
    on, _ = trained(
        CachedTeacher(teacher(), tmp_path), data(), epochs=5, ckpt=half, callbacks=[saving]
    )
    assert same(whole, on)
    with pytest.raises(ConfigError, match="set num_workers to 0, got 1"):
        trained(
            CachedTeacher(teacher(), tmp_path), Foreign(Indexed(Shaken(), views=3), workers=1), 5,
            ckpt=half, callbacks=[saving],
        )  # fmt: skip


@pytest.mark.parametrize("damage", ["card", "array"])
def test_what_is_damaged_or_unfinished_is_made_anew(tmp_path, damage, caplog):
    trained(CachedTeacher(teacher(), tmp_path), Foreign(plain()), epochs=1)
    place = next(
        path for path in tmp_path.iterdir() if path.name.startswith("train-") and path.is_dir()
    )
    if damage == "card":
        (place / "card.json").unlink()
    else:
        path = place / "0.npy"
        path.write_bytes(path.read_bytes()[:-3] + b"xxx")
    counting = teacher()
    trained(CachedTeacher(counting, tmp_path), Foreign(plain()), epochs=1)
    assert counting.samples > 40 + 2 * COMPARED + 3 * 8
    assert "computed anew" in caplog.text
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    counting = teacher()
    trained(CachedTeacher(counting, tmp_path), Foreign(plain()), epochs=1)
    assert counting.samples == 2 * COMPARED + 3 * 8


def test_a_table_that_tells_of_other_data_is_refused_with_the_reason(tmp_path):
    """A data set that draws random numbers nobody has fixed."""
    with pytest.raises(TeacherError, match=r"are not what the teacher says.*`views`"):
        trained(CachedTeacher(teacher(), tmp_path), Foreign(Indexed(Shaken())), epochs=1)
    # Workers draw their random numbers from a seed of the loader's.
    with pytest.raises(TeacherError, match="are not what the teacher says"):
        trained(CachedTeacher(teacher(), tmp_path), Foreign(Indexed(Shaken()), workers=1), epochs=1)
    # Not one of the samples of which the fingerprint is made.
    data = Shaken(0.0)
    trained(CachedTeacher(teacher(), tmp_path), Foreign(Indexed(data)), epochs=1)
    data.inputs[4] += 1
    with pytest.raises(TeacherError, match="differ by"):
        trained(CachedTeacher(teacher(), tmp_path), Foreign(Indexed(data)), epochs=1)


def test_eight_at_once_make_one_table(tmp_path):
    """Threads here; the lock is the one that processes take."""
    from lightning.pytorch.strategies import SingleDeviceStrategy

    from kdlit.batch import Batch
    from kdlit.teachers.surroundings import Split, Surroundings

    inputs = torch.randn(40, 6)
    asked = []

    def batches(positions, view, size):
        asked.append((len(positions), size))
        for start in range(positions.start, positions.stop, size):
            index = torch.arange(start, min(start + size, positions.stop))
            yield Batch(inputs[index], None, index)

    split = Split("train", torch.arange(40), 1, {"data": "x"}, batches)
    around = Surroundings(
        lambda: [split], "32-true", torch.device("cpu"), SingleDeviceStrategy("cpu")
    )
    teachers = [CachedTeacher(teacher(), tmp_path) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda cached: cached.remember(around), teachers))
    said = [cached.tables["train"].outputs(torch.arange(40), 0).logits for cached in teachers]
    assert all(torch.equal(said[0], other) for other in said)
    assert sum(positions == 40 for positions, _ in asked) == 1, "one filled it"
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 1


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda f: CachedTeacher(EMATeacher(), f), ConfigError, "EMATeacher changes in training"),
        (lambda f: CachedTeacher(teacher(), f, dtype="int8"), ConfigError, "`dtype` .* got 'int8'"),
        (lambda f: CachedTeacher(teacher(), f, top_k=0), ConfigError, "`top_k` .* got 0"),
        (lambda f: CachedTeacher(teacher(), f, batch_size=0), ConfigError, "`batch_size`"),
        (
            lambda f: trained(CachedTeacher(teacher(), f), Foreign(Shaken())),
            TeacherError,
            "wrap its data set in kdlit.data.Indexed, got Shaken",
        ),
        (
            lambda f: trained(
                CachedTeacher(teacher(), f), Foreign(plain()), label=SoftLabels(alpha=1.0),
                mix=Mixup(),
            ),
            ConfigError,
            "mixes samples",
        ),
        (
            lambda f: trained(CachedTeacher(teacher(), "/proc/none"), Foreign(plain())),
            TeacherError,
            "cannot be kept in /proc/none",
        ),
    ],
)  # fmt: skip
def test_refuses_what_cannot_work(tmp_path, make, error, message):
    with pytest.raises(error, match=message):
        make(tmp_path)


def test_a_fast_trial_of_a_batch_asks_the_teacher_and_makes_no_table(tmp_path):
    asked = teacher()
    module = DistillationModule(network(), CachedTeacher(asked, tmp_path))
    trainer(fast_dev_run=True).fit(module, Foreign(plain()))
    assert 0 < asked.samples < 40
    assert not list(tmp_path.iterdir())
