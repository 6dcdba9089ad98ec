import math

import pytest
import torch
from torch.nn.functional import normalize

from kdlit.errors import ConfigError
from kdlit.functional import crd_log_mean, crd_loss, crd_scores


def embeddings(*shape: int) -> torch.Tensor:
    return normalize(torch.randn(*shape, dtype=torch.float64), dim=-1)


def test_is_the_papers_critic_whatever_the_size_of_the_data_set():
    """h(T, S) = e / (e + K / M) with e = exp(score) / Z and Z = M * mean: M cancels."""
    scores = crd_scores(embeddings(6, 8), embeddings(6, 8), embeddings(6, 5, 8), 0.1)
    mean = scores.exp().mean()
    for size in (10, 1000):
        total = 0.0
        for row in scores.tolist():
            h = [(e := math.exp(s) / (size * mean.item())) / (e + 5 / size) for s in row]
            total -= math.log(h[0]) + sum(math.log(1 - share) for share in h[1:])
        assert crd_loss(scores, crd_log_mean(scores)).item() == pytest.approx(total / 6)


def test_gradient_of_the_formula():
    a, p, b = (embeddings(*shape).requires_grad_() for shape in ((3, 4), (3, 4), (3, 2, 4)))
    mean = crd_log_mean(crd_scores(a, p, b))
    assert not mean.requires_grad
    assert torch.autograd.gradcheck(lambda *x: crd_loss(crd_scores(*x), mean), (a, p, b))


def test_least_where_the_positive_is_near_and_the_negatives_are_far():
    a = embeddings(4, 8)
    near, far = crd_scores(a, a, -a[:, None]), crd_scores(a, -a, a[:, None])
    assert 0 <= crd_loss(near) < 1e-3 < crd_loss(far)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32_and_stays_finite(dtype):
    ones = torch.ones(2, 4, dtype=dtype, requires_grad=True)
    scores = crd_scores(100 * ones, ones, -100 * ones[:, None], temperature=0.01)
    loss = crd_loss(scores, crd_log_mean(scores))
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert torch.isfinite(ones.grad).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: crd_scores(torch.ones(2, 3), torch.ones(2, 4), torch.ones(2, 5, 3)), r"\(2, 4\)"),
        (lambda: crd_scores(torch.ones(2, 3), torch.ones(2, 3), torch.ones(2, 3)), "negatives of"),
        (lambda: crd_scores(torch.ones(2, 3), torch.ones(2, 3), torch.ones(1, 5, 3)), r"\(1, 5, 3"),
        (lambda: crd_scores(torch.ones(2, 3), torch.ones(2, 3), torch.ones(2, 5, 3), 0.0), "got 0"),
        (lambda: crd_loss(torch.ones(2, 1)), r"K >= 1, got \(2, 1\)"),
    ],
)
def test_refuses_what_does_not_fit(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
