"""Every public objective: parity, properties, gradients."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kdlit.batch import Batch, Outputs
from kdlit.errors import TeacherError
from objectives.every import CASES, PUBLIC
from objectives.table import CLASSES, Case, Ready, distilling, prepare

ALL = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def test_the_table_is_complete():
    assert set(CASES) == PUBLIC


def test_the_teacher_is_not_always_right_in_these_tests():
    ready = prepare(CASES["HardLabels"])
    decided = ready.outputs()[1].logits.argmax(dim=1)
    assert 0 < (decided == ready.batch.target).sum() < len(decided)


@ALL
def test_parity_with_an_independent_implementation(case: Case):
    ready = prepare(case)
    student, teacher = ready.outputs()
    expected = case.reference(ready.objective, student, teacher, ready.batch)
    found = ready.terms()
    assert found.keys() == expected.keys() == ready.objective.weights.keys()
    for name, value in found.items():
        assert value.shape == ()
        assert value.item() == pytest.approx(expected[name].item(), rel=1e-5, abs=1e-6), name


@ALL
def test_says_whether_it_needs_the_teacher(case: Case):
    ready = prepare(case)
    student, _ = ready.outputs()
    if ready.objective.needs_teacher:
        with pytest.raises(TeacherError, match="needs a teacher"):
            ready.objective(student, None, ready.batch)
    else:
        assert all(map(torch.isfinite, ready.objective(student, None, ready.batch).values()))


@ALL
def test_is_not_negative_unless_the_paper_says_so(case: Case):
    for name, value in prepare(case, count=32).terms().items():
        assert name in case.signed or value >= -1e-6, name


@ALL
def test_vanishes_where_student_and_teacher_say_the_same(case: Case):
    assert set(case.zero_when_equal) <= set(distilling(case.make()))
    if not case.zero_when_equal:
        pytest.skip("nothing of it does")
    ready = prepare(case, equal=True)
    for name, value in ready.terms().items():
        if name in case.zero_when_equal:
            assert value.item() == pytest.approx(0, abs=2e-6), name


def leaves(ready: Ready, dtype: torch.dtype) -> tuple[list[Tensor], list[str], Outputs]:
    """Return what the student says as leaves of a graph, their names, and the teacher's outputs."""
    student, teacher = ready.outputs()
    values = {"": student.logits, **student.features}
    inputs = [value.detach().to(dtype).requires_grad_() for value in values.values()]
    theirs = {name: value.to(dtype) for name, value in teacher.features.items()}
    return inputs, list(values), Outputs(teacher.logits.to(dtype), theirs)


def total_of(ready: Ready, teacher: Outputs, names: list[str]):
    def total(*values: Tensor) -> Tensor:
        said = dict(zip(names, values, strict=True))
        student = Outputs(said.pop(""), said)
        return torch.stack(list(ready.objective(student, teacher, ready.batch).values())).sum()

    return total


@ALL
def test_gradient(case: Case):
    if not case.gradcheck:
        pytest.skip("not smooth")
    ready = prepare(case, count=4)
    ready.objective.double()
    inputs, names, teacher = leaves(ready, torch.float64)
    assert torch.autograd.gradcheck(total_of(ready, teacher, names), inputs, fast_mode=True)


@ALL
def test_gradients_reach_the_student_and_every_trained_part_and_not_the_teacher(case: Case):
    ready = prepare(case)
    inputs, names, teacher = leaves(ready, torch.float32)
    frozen = [teacher.logits, *teacher.features.values()]
    for value in frozen:
        value.requires_grad_()
    total_of(ready, teacher, names)(*inputs).backward()
    assert any(value.grad is not None and value.grad.abs().sum() > 0 for value in inputs)
    assert all(value.grad is None for value in frozen)
    for name, parameter in ready.objective.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@ALL
def test_is_computed_in_float32_and_finite_at_the_extremes(case: Case, dtype):
    ready = prepare(case)
    inputs, names, teacher = leaves(ready, dtype)
    generator = torch.Generator().manual_seed(3)
    signs = torch.randint(-1, 2, (len(ready.batch.target), CLASSES), generator=generator)
    inputs[0] = (1e4 * signs).to(dtype).requires_grad_()
    teacher = replace(teacher, logits=(1e4 * signs.roll(1, dims=0)).to(dtype))
    value = total_of(ready, teacher, names)(*inputs)
    assert value.dtype == torch.float32
    assert torch.isfinite(value)
    value.backward()
    assert all(torch.isfinite(v.grad).all() for v in inputs if v.grad is not None)


@ALL
def test_does_not_depend_on_the_order_of_the_batch(case: Case):
    ready = prepare(case)
    student, teacher = ready.outputs()
    order = torch.randperm(len(ready.batch.target))

    def turned(outputs: Outputs) -> Outputs:
        return Outputs(outputs.logits[order], {k: v[order] for k, v in outputs.features.items()})

    batch = Batch(ready.batch.inputs[order], ready.batch.target[order], ready.batch.index[order])
    one = ready.objective(student, teacher, ready.batch)
    two = ready.objective(turned(student), turned(teacher), batch)
    for name in one:
        assert one[name].item() == pytest.approx(two[name].item(), rel=1e-4, abs=1e-6), name


@ALL
def test_adding_a_constant_to_the_logits_changes_nothing(case: Case):
    if not case.shift_invariant:
        pytest.skip("the paper's own definition depends on the logits themselves")
    ready = prepare(case)
    inputs, names, answer = leaves(ready, torch.float32)
    total_of(ready, answer, names)(*inputs).backward()
    if inputs[0].grad is None:
        pytest.skip("reads no logits")
    student, teacher = ready.outputs()
    moved = (
        Outputs(student.logits + 7, student.features),
        Outputs(teacher.logits - 3, teacher.features),
    )
    one, two = (ready.objective(*said, ready.batch) for said in ((student, teacher), moved))
    for name in one:
        assert one[name].item() == pytest.approx(two[name].item(), rel=1e-4, abs=1e-5), name
