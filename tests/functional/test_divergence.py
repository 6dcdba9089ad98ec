import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdlit.errors import ConfigError
from kdlit.functional import kl_divergence

seeds = st.integers(0, 10_000)
temperatures = st.floats(0.5, 20)


def logits(seed: int, scale: float = 5.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(scale * torch.randn(7, 5, generator=generator) for _ in range(2))


def naive(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> float:
    total = 0.0
    for z, t in zip(student.double(), teacher.double(), strict=True):
        q = torch.exp(z / temperature) / torch.exp(z / temperature).sum()
        p = torch.exp(t / temperature) / torch.exp(t / temperature).sum()
        for q_c, p_c in zip(q.tolist(), p.tolist(), strict=True):
            total += p_c * float(torch.tensor(p_c / q_c, dtype=torch.float64).log())
    return total / len(student)


@given(seeds, temperatures)
def test_equals_the_sum_written_out(seed, temperature):
    student, teacher = logits(seed)
    assert kl_divergence(student, teacher, temperature).item() == pytest.approx(
        naive(student, teacher, temperature), rel=1e-4, abs=1e-6
    )


@given(seeds, temperatures)
def test_is_non_negative_and_zero_at_equality(seed, temperature):
    student, teacher = logits(seed)
    assert kl_divergence(student, teacher, temperature) >= -1e-6
    assert kl_divergence(teacher, teacher, temperature) == 0


@given(seeds, st.floats(-50, 50))
def test_is_invariant_to_a_shift_of_the_logits_and_to_the_order_of_the_batch(seed, shift):
    student, teacher = logits(seed)
    expected = kl_divergence(student, teacher)
    assert torch.allclose(kl_divergence(student + shift, teacher - shift), expected, rtol=1e-3)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(seed))
    assert torch.allclose(kl_divergence(student[order], teacher[order]), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_is_finite_at_the_extremes_in_every_type(dtype):
    student = torch.tensor([[1e4, -1e4, 0.0]], dtype=dtype, requires_grad=True)
    loss = kl_divergence(student, torch.tensor([[-1e4, 1e4, 0.0]], dtype=dtype))
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(2e4, rel=0.01)
    assert torch.isfinite(student.grad).all()


def test_gradient():
    student, teacher = (values.double().requires_grad_() for values in logits(0))
    assert torch.autograd.gradcheck(lambda z, t: kl_divergence(z, t, 3.0), (student, teacher))


@pytest.mark.parametrize(("first", "second"), [((4, 3), (4, 2)), ((4, 3), (5, 3)), ((3,), (3,))])
def test_refuses_other_shapes(first, second):
    with pytest.raises(ConfigError, match="same shape"):
        kl_divergence(torch.zeros(first), torch.zeros(second))
