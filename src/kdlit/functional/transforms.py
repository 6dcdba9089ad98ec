"""What can be done to logits before student and teacher are compared."""

from torch import Tensor

from kdlit.errors import ConfigError
from kdlit.functional.precision import float32_at_least

_EPSILON = 1e-7
# Below the largest logit: exp(-1e6 / T) is 0 in float32 and float64 up to temperatures of 1000,
# and yet log-probabilities stay finite, so that 0 * log 0 is 0.
_LEFT_OUT = 1e6


def standardize(logits: Tensor) -> Tensor:
    r"""Each sample's logits with mean 0 and standard deviation 1.

    .. math:: \frac{z - \bar z}{10^{-7} + s(z)}

    with the unbiased standard deviation s over the classes. What is left are the logits' relations:
    a student need not have the teacher's range of logits.

    Args:
        logits: z, shape (N, C), any floating type.

    Returns:
        Shape (N, C), in float32 at least.

    Source: Sun et al., "Logit Standardization in Knowledge Distillation", 2024, section 4
    (arXiv:2403.01427).

    >>> import torch
    >>> standardize(torch.tensor([[0.0, 10.0, 20.0]])).tolist()
    [[-1.0, 0.0, 1.0]]
    """
    logits = float32_at_least(logits)
    centred = logits - logits.mean(dim=-1, keepdim=True)
    return centred / (_EPSILON + logits.std(dim=-1, keepdim=True))


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    r"""The k largest logits; a softmax of the others is 0, at any temperature up to 1000.

    .. math:: \mathrm{softmax}(z')_c = \begin{cases}
        \mathrm{softmax}(z)_c / \sum_{j \in K} \mathrm{softmax}(z)_j & c \in K \\ 0 & c \notin K
        \end{cases}

    with K the k classes of the largest logits. Those left out are put so far below that their
    probability is exactly 0 while its logarithm is finite: a product of both is 0 and not NaN.

    Args:
        logits: z, shape (N, C), any floating type.
        k: how many classes to keep, 1 to C.

    Returns:
        Shape (N, C), in float32 at least.

    Raises:
        ConfigError: if there are fewer than k classes.

    >>> import torch
    >>> torch.softmax(keep_top_k(torch.tensor([[4.0, 3.0, 4.0, 0.0]]), k=2), dim=1)
    tensor([[0.5000, 0.0000, 0.5000, 0.0000]])
    """
    classes = logits.shape[-1]
    if k > classes:
        raise ConfigError(f"`k` must be at most the number of classes, {classes}, got {k}")
    values, kept = float32_at_least(logits).topk(k, dim=-1)
    if k == classes:
        return float32_at_least(logits)
    left_out = (values[..., :1] - _LEFT_OUT).expand(logits.shape)
    return left_out.scatter(-1, kept, values)
