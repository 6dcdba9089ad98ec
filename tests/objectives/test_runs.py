"""Every objective within Lightning: resumed in the middle, and in two processes."""

import copy
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from conftest import trainer
from kdlit import DistillationModule, TruthLabels
from objectives.every import CASES
from objectives.table import Case, samples, trained_teacher

ALL = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


class Images(pl.LightningDataModule):
    """Samples with their index, in an order that depends on nothing."""

    def __init__(self, target=lambda classes: classes) -> None:
        super().__init__()
        batch = samples(48)
        self.data = TensorDataset(batch.inputs, target(batch.target), batch.index)

    def _loader(self) -> DataLoader:
        return DataLoader(self.data, batch_size=8)

    train_dataloader = val_dataloader = _loader


def module_of(case: Case, seed: int = 0) -> DistillationModule:
    """Return a module that is trained with this objective and nothing else that distils."""
    torch.manual_seed(seed)
    student = trained_teacher().requires_grad_(True) if case.equal_networks else case.student()
    objective = case.make()
    is_label = not (objective.student_layers or objective.teacher_layers)
    return DistillationModule(
        student,
        trained_teacher(),
        objective if is_label else TruthLabels(),
        partial(torch.optim.Adam, lr=0.01),
        features={} if is_label else {"own": objective},
    )


@ALL
def test_resumed_in_the_middle_is_the_uninterrupted_run_to_the_bit(case, tmp_path):
    whole = module_of(case)
    trainer(max_epochs=2).fit(whole, Images(case.target))
    half = trainer(max_epochs=1)
    half.fit(module_of(case), Images(case.target))
    path = tmp_path / "half.ckpt"
    half.save_checkpoint(path)
    rest = module_of(case, seed=9)
    trainer(max_epochs=2).fit(rest, Images(case.target), ckpt_path=path, weights_only=True)
    one, two = whole.state_dict(), rest.state_dict()
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


@ALL
def test_a_checkpoint_gives_the_student_without_the_objective(case, tmp_path):
    module = module_of(case)
    fit = trainer()
    fit.fit(module, Images(case.target))
    fit.save_checkpoint(tmp_path / "run.ckpt")
    student = copy.deepcopy(module.student)
    for value in student.state_dict().values():
        value.zero_()
    found = DistillationModule.load_from_checkpoint(
        tmp_path / "run.ckpt", student=student, label=TruthLabels(), weights_only=True
    )
    trained = module.student.state_dict()
    assert all(torch.equal(trained[name], v) for name, v in found.student.state_dict().items())


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
@ALL
def test_trains_in_half_precision(case, precision):
    module = module_of(case)
    fit = trainer(precision=precision, limit_train_batches=2, limit_val_batches=0)
    fit.fit(module, Images(case.target))
    assert all(torch.isfinite(value).all() for value in module.state_dict().values())


def test_two_processes_train_the_same_student_and_the_same_parts():
    """One launch for all rows: each process trains every row on its own half of the samples."""
    here = Path(__file__).resolve()
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0",
         "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", str(here)],
        env={**os.environ, "PYTHONPATH": str(here.parent.parent), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    assert done.stdout.count("same on both") == len(CASES), done.stdout


def _train_in_two_processes() -> None:
    from torch import distributed

    for name, case in CASES.items():
        module = module_of(case)
        trainer(devices=2, strategy="ddp").fit(module, Images(case.target))
        bits = torch.cat([v.detach().double().flatten() for v in module.state_dict().values()])
        both = [torch.empty_like(bits) for _ in range(2)]
        distributed.all_gather(both, bits)
        assert torch.isfinite(bits).all(), name
        assert torch.equal(*both), f"{name}: the processes' states differ"
        if distributed.get_rank() == 0:
            print(name, "same on both", flush=True)
    # One process must not leave while the other still talks to it.
    distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    _train_in_two_processes()
