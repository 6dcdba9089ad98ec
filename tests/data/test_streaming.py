"""A stream of shards trains as any other data, with and without a teacher's outputs beside it."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from conftest import network, trainer
from kdlit import CachedTeacher, DistillationModule, SoftLabels
from kdlit.data import StreamingDataModule, write_shards
from kdlit.errors import ConfigError, DataError, TeacherError

COUNT = 200


class Counting(nn.Module):
    """A network whose answer for a sample does not depend on the others, and that counts them."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.samples = nn.Linear(6, 3), 0

    def forward(self, x):
        self.samples += len(x)
        # Not a matrix product, whose rounding may depend on the number of rows.
        return (x[:, None, :] * self.layer.weight).sum(dim=2) + self.layer.bias


def teacher() -> Counting:
    torch.manual_seed(8)
    return Counting()


def write(root: Path, seed: int = 1) -> Path:
    generator = torch.Generator().manual_seed(seed)
    for name, count in (("train", COUNT), ("val", 45), ("test", 30)):
        x = torch.randint(256, (count, 6), dtype=torch.uint8, generator=generator)
        write_shards(root / name, [(x, x[:, :3].int().argmax(dim=1))], 16, "400B")
    return root


def halves(x):
    return x.float() / 128 - 1


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write(tmp_path_factory.mktemp("data"))


def data_of(root, size: int = 16, **options) -> StreamingDataModule:
    options = {"blocks_at_once": 4, "transform": halves, "seed": 5} | options
    return StreamingDataModule(root, size, **options)


def trained(
    root, source, epochs: int = 2, ckpt=None, callbacks=(), validated=1.0, schedule=True, **options
):
    data = data_of(root, **options)
    # It asks for the loader's length before anything is restored.
    one_cycle = partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.01)
    torch.manual_seed(3)
    module = DistillationModule(
        network(), source, SoftLabels(), partial(torch.optim.Adam, lr=0.01),
        one_cycle if schedule else None, step_size=data.step_size,
    )  # fmt: skip
    fit = trainer(max_epochs=epochs, callbacks=list(callbacks), limit_val_batches=validated)
    fit.fit(module, data, ckpt_path=ckpt, weights_only=True if ckpt else None)
    return module, fit


def same(one, two) -> bool:
    first, second = one.student.state_dict(), two.student.state_dict()
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_kept_outputs_train_as_the_teacher_itself_to_the_bit(root, tmp_path):
    live, asked = teacher(), teacher()
    one, fit_one = trained(root, live)
    two, fit_two = trained(root, CachedTeacher(asked, tmp_path, batch_size=33))
    assert same(one, two)
    assert fit_one.callback_metrics == fit_two.callback_metrics
    assert asked.samples < live.samples
    table = two.teacher.tables["train"]
    assert (table.samples, table.index) == (COUNT, None)
    assert not (table.place / "index.npy").exists()
    # Again: it is compared and not filled.
    again = teacher()
    three, _ = trained(root, CachedTeacher(again, tmp_path))
    assert same(one, three)
    assert again.samples < 100


@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_several_steps_of_a_batch_are_the_same_training(root):
    one, fit_one = trained(root, teacher())
    two, fit_two = trained(root, teacher(), batches_at_once=3)
    assert same(one, two)
    assert fit_one.global_step == fit_two.global_step == 2 * 13


@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_other_data_and_preparations_have_tables_of_their_own(root, tmp_path):
    trained(root, CachedTeacher(teacher(), tmp_path / "outputs"), epochs=1)
    asked = teacher()
    other = write(tmp_path / "other", seed=2)
    trained(other, CachedTeacher(asked, tmp_path / "outputs"), epochs=1)
    assert asked.samples > COUNT
    by = [partial(torch.mul, other=factor) for factor in (1.0, 2.0)]
    for transform in by:
        asked = teacher()
        kept = CachedTeacher(asked, tmp_path / "outputs")
        trained(root, kept, epochs=1, transform=transform)
        assert asked.samples > COUNT
    # The name is the same, and what it does is not: only the comparison notices.
    first, second = (lambda x, by=by: x.float() * by for by in (0.01, 0.02))
    trained(root, CachedTeacher(teacher(), tmp_path / "outputs"), epochs=1, transform=first)
    with pytest.raises(TeacherError, match="are not what the teacher says"):
        trained(root, CachedTeacher(teacher(), tmp_path / "outputs"), epochs=1, transform=second)


class SaveWithinEpoch(pl.Callback):
    """Saves in the middle of the second epoch, and notes what is seen behind it."""

    def __init__(self, path) -> None:
        self.path, self.seen = path, []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.seen.append((trainer.current_epoch, batch_idx, batch[2].tolist()))

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if self.path and (trainer.current_epoch, batch_idx) == (1, 1):
            trainer.save_checkpoint(self.path)
            self.seen = []


@pytest.mark.filterwarnings("ignore:The number of training batches")
@pytest.mark.parametrize("schedule", [True, False])
@pytest.mark.parametrize(("workers", "at_once"), [(0, 3), (2, 1)])
def test_goes_on_within_an_epoch_to_the_bit(root, tmp_path, workers, at_once, schedule):
    options = {"num_workers": workers, "batches_at_once": at_once, "schedule": schedule}
    whole, rest = SaveWithinEpoch(tmp_path / "some.ckpt"), SaveWithinEpoch(None)
    source = teacher() if workers else CachedTeacher(teacher(), tmp_path)
    one, _ = trained(root, source, 3, callbacks=[whole], **options)
    two, _ = trained(root, source, 3, tmp_path / "some.ckpt", [rest], **options)
    assert rest.seen == whole.seen
    assert len(rest.seen) == 2 * -(-COUNT // (16 * at_once)) - 2
    assert same(one, two)
    size = 16 * at_once
    wrong = f"batch_size {size // 2} where it was {size}, blocks_at_once 2 where it was "
    with pytest.raises(ConfigError, match=wrong):
        trained(root, source, 3, tmp_path / "some.ckpt", size=8, blocks_at_once=2, **options)


@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_goes_on_behind_an_epoch_to_the_bit(root, tmp_path):
    class Save(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module) -> None:
            if trainer.current_epoch == 0:
                trainer.save_checkpoint(tmp_path / "end.ckpt")

    one, _ = trained(root, teacher(), 2, callbacks=[Save()])
    seen = SaveWithinEpoch(None)
    two, _ = trained(root, teacher(), 2, tmp_path / "end.ckpt", [seen])
    assert len(seen.seen) == 13
    assert same(one, two)


def test_evaluation_is_every_sample_in_order(root):
    data = data_of(root, eval_batch_size=7)
    data.setup()
    for name, count in (("val", 45), ("test", 30)):
        for workers in (0, 2):
            data.num_workers = workers
            batches = list(getattr(data, f"{name}_dataloader")())
            assert torch.cat([index for *_, index in batches]).tolist() == list(range(count))


@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_a_folder_is_needed_when_its_split_is(root, tmp_path):
    (tmp_path / "train").symlink_to(root / "train")
    kept = CachedTeacher(teacher(), tmp_path / "outputs")
    module, fit = trained(tmp_path, kept, epochs=1, validated=0)
    assert set(module.teacher.tables) == {"train"}
    with pytest.raises(DataError, match=r"val is no folder of shards.*limit_val_batches=0"):
        trained(tmp_path, kept)
    with pytest.raises(DataError, match=r"test is no folder of shards.*write_shards"):
        fit.test(module, data_of(tmp_path))
    with pytest.raises(DataError, match=r"train is no folder of shards"):
        data_of(tmp_path / "nowhere").setup("fit")
    with pytest.raises(ConfigError, match="`transform` must be a function, got 3"):
        data_of(root, transform=3)


@pytest.mark.slow
def test_two_processes_fill_one_table_and_share_the_samples(tmp_path):
    here = Path(__file__).resolve()
    write(tmp_path / "data")
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0",
         "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", str(here), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(here.parent.parent), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    assert "each half" in done.stdout


def _train_in_two_processes(folder: Path) -> None:
    from torch import distributed

    seen, own = SaveWithinEpoch(None), teacher()
    data = data_of(folder / "data")
    module = DistillationModule(network(), CachedTeacher(own, folder / "outputs"), SoftLabels())
    fit = trainer(devices=2, strategy="ddp", callbacks=[seen])
    fit.fit(module, data)
    both = [None, None]
    numbers = sorted(number for *_, batch in seen.seen for number in batch)
    distributed.all_gather_object(both, (numbers, own.samples))
    (first, asked_first), (second, asked_second) = both
    assert sorted(first + second) == list(range(COUNT))
    assert len(first) == len(second) == COUNT // 2
    assert module.teacher.tables["train"].samples == COUNT
    # Half of 245 each, with examples for the shapes and what is compared.
    assert max(asked_first, asked_second) < 245
    if fit.is_global_zero:
        print("each half", flush=True)
    distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    _train_in_two_processes(Path(sys.argv[1]))
