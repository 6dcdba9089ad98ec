import copy
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from conftest import PlainData, network, trainer
from kdlit import DistillationModule, SoftLabels
from kdlit.batch import Batch
from kdlit.errors import ConfigError, TeacherError
from kdlit.objectives import Hint
from kdlit.teachers import EMATeacher

ADAM = partial(torch.optim.Adam, lr=0.01)


def module_of(decay: float = 0.9, seed: int = 0, **options) -> DistillationModule:
    torch.manual_seed(seed)
    label = SoftLabels(temperature=1.0, alpha=0.5)
    return DistillationModule(network(), EMATeacher(decay), label, ADAM, **options)


def state_of(module: DistillationModule) -> dict[str, torch.Tensor]:
    return module.teacher.single_network.state_dict()


def same(one, two) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("decay", [0.0, 0.7, 0.999])
def test_it_is_the_average_of_the_weights(decay):
    student, teacher = network(), EMATeacher(decay)
    teacher.begin(student)
    expected = {name: value.double() for name, value in student.state_dict().items()}
    for step in range(1, 9):
        for tensor in student.state_dict().values():
            tensor.copy_(torch.randint(9, tensor.shape).to(tensor.dtype))
        teacher.after_step(student)
        a = min(decay, 1 - 1 / (step + 1))
        for name, value in student.state_dict().items():
            expected[name] = a * expected[name] + (1 - a) * value.double()
    found = teacher.single_network.state_dict()
    for name, value in found.items():
        if value.is_floating_point():
            assert torch.allclose(value.double(), expected[name], atol=1e-5), name
        else:  # the counter of batch norm is copied
            assert torch.equal(value, student.state_dict()[name])


def test_the_plain_mean_comes_first():
    student, teacher = nn.Linear(1, 1, bias=False), EMATeacher(0.999)
    values = [1.0, 5.0, 9.0, 13.0]
    nn.init.constant_(student.weight, values[0])
    teacher.begin(student)
    for value in values[1:]:
        nn.init.constant_(student.weight, value)
        teacher.after_step(student)
    assert teacher.single_network.weight.item() == pytest.approx(sum(values) / len(values))


def test_it_follows_the_student_and_is_no_part_of_the_module():
    module = module_of()
    fit = trainer(max_epochs=5)
    fit.fit(module, PlainData())
    assert all(name.startswith("student.") for name in module.state_dict())
    teacher = module.teacher.single_network
    assert teacher is not module.student
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert not any(part.training for part in module.teacher.modules())
    assert not same(state_of(module), module.student.state_dict())
    found = fit.test(module, PlainData(), verbose=False)[0]
    assert found["test/accuracy"] > 0.6
    assert found["test/teacher_accuracy"] > 0.6


def test_resumed_in_the_middle_is_the_uninterrupted_run_to_the_bit(tmp_path):
    whole = module_of()
    trainer(max_epochs=2).fit(whole, PlainData())
    half = trainer(max_epochs=1)
    half.fit(module_of(), PlainData())
    half.save_checkpoint(tmp_path / "half.ckpt")
    rest = module_of(seed=9)
    trainer(max_epochs=2).fit(
        rest, PlainData(), ckpt_path=tmp_path / "half.ckpt", weights_only=True
    )
    assert same(whole.student.state_dict(), rest.student.state_dict())
    assert same(state_of(whole), state_of(rest))
    one, two = (module.teacher.state_to_keep() for module in (whole, rest))
    assert same(one, two)
    assert one["steps"] == 8


def test_accumulated_gradients_count_as_one_step_also_after_a_resumption(tmp_path):
    whole = module_of()
    trainer(max_epochs=2, accumulate_grad_batches=2).fit(whole, PlainData())
    assert whole.teacher.state_to_keep()["steps"] == 4
    half = trainer(max_epochs=1, accumulate_grad_batches=2)
    half.fit(module_of(), PlainData())
    half.save_checkpoint(tmp_path / "half.ckpt")
    rest = module_of(seed=9)
    trainer(max_epochs=2, accumulate_grad_batches=2).fit(
        rest, PlainData(), ckpt_path=tmp_path / "half.ckpt", weights_only=True
    )
    assert same(whole.teacher.state_to_keep(), rest.teacher.state_to_keep())


def test_a_checkpoint_loads_with_the_average_or_without(tmp_path):
    module = module_of()
    fit = trainer()
    fit.fit(module, PlainData())
    fit.save_checkpoint(tmp_path / "run.ckpt")
    load = partial(
        DistillationModule.load_from_checkpoint, tmp_path / "run.ckpt", weights_only=True
    )
    assert same(state_of(load(student=network(), teacher=EMATeacher())), state_of(module))
    plain = load(student=network(), teacher=network())
    assert same(plain.student.state_dict(), module.student.state_dict())
    with pytest.raises(TeacherError, match="another student"):
        load(student=nn.Linear(6, 3), teacher=EMATeacher(), strict=False)


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_the_average_keeps_its_digits_in_half_precision(precision):
    module = module_of(0.999)
    module.student = nn.Linear(6, 3)
    trainer(precision=precision, max_epochs=2).fit(module, PlainData())
    kept = module.teacher.state_to_keep()["average.weight"]
    assert kept.dtype == (torch.float64 if precision == "64-true" else torch.float32)
    used = module.teacher.single_network.weight
    assert used.dtype == module.student.weight.dtype
    assert torch.equal(kept.to(used.dtype), used)


def test_objectives_may_ask_for_its_layers():
    module = module_of(features={"hint": Hint(weight=1.0)})
    trainer(max_epochs=2).fit(module, PlainData())
    assert module.teacher.state_to_keep()["steps"] == 8


def test_each_training_begins_anew_with_hooks_of_nobody():
    module = module_of(features={"hint": Hint(weight=1.0)})
    trainer().fit(module, PlainData())
    trainer().fit(module, PlainData())
    assert module.teacher.state_to_keep()["steps"] == 4
    for net in (module.student, module.teacher.single_network):
        assert not any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())


def test_before_a_training_there_is_nothing_to_ask():
    teacher = EMATeacher()
    assert teacher.single_network is None
    for ask in (
        lambda: teacher(Batch(torch.zeros(1, 6))),
        lambda: teacher.tap(["0"]),
        lambda: teacher.after_step(network()),
    ):
        with pytest.raises(TeacherError, match="no training has begun"):
            ask()
    with pytest.raises(ConfigError, match="decay"):
        EMATeacher(1.0)
    copy.deepcopy(teacher)


def test_two_processes_hold_the_same_average():
    here = Path(__file__).resolve()
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0",
         "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", str(here)],
        env={**os.environ, "PYTHONPATH": str(here.parent.parent), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    assert "same on both" in done.stdout


def _train_in_two_processes() -> None:
    from torch import distributed

    module = module_of()
    trainer(devices=2, strategy="ddp", limit_val_batches=0).fit(module, PlainData())
    kept = module.teacher.state_to_keep()
    # Each process has seen its own half: without care the statistics of batch norm would differ.
    assert "average.1.running_mean" in kept
    bits = torch.cat([value.double().flatten() for value in kept.values()])
    both = [torch.empty_like(bits) for _ in range(2)]
    distributed.all_gather(both, bits)
    assert torch.equal(*both), "the processes' averages differ"
    if distributed.get_rank() == 0:
        print("same on both", flush=True)
    distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    _train_in_two_processes()
