"""Random numbers that depend on what is asked, not on who asked before.

An augmentation drawn from a generator's state depends on the order of batches, the number of
processes and where a run was interrupted. Here the numbers of a sample are a hash of (seed, view,
sample index), so the same view can be drawn again by anyone at any time.
"""

import torch
from torch import Tensor

_MASK = (1 << 64) - 1
_GOLDEN, _MIX1, _MIX2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def _mix(value: int) -> int:
    """Return SplitMix64's finaliser of a 64-bit integer."""
    value = ((value ^ (value >> 30)) * _MIX1) & _MASK
    value = ((value ^ (value >> 27)) * _MIX2) & _MASK
    return value ^ (value >> 31)


def _signed(value: int) -> int:
    """Return the int64 with the same bits as an unsigned 64-bit integer."""
    return value - (1 << 64) if value >> 63 else value


def _shift_right(bits: Tensor, places: int) -> Tensor:
    """Logical shift of int64, which torch shifts arithmetically."""
    return (bits >> places) & ((1 << (64 - places)) - 1)


def derive_seed(*parts: int) -> int:
    """Return a 63-bit seed that depends on every part and on their order.

    >>> derive_seed(0, 1) != derive_seed(1, 0)
    True
    """
    value = 0
    for part in parts:
        value = _mix((value + _GOLDEN + (part & _MASK)) & _MASK)
    return value >> 1


def uniform(seed: int, index: Tensor, count: int) -> Tensor:
    """Return `count` numbers in [0, 1) for each sample: float32, shape (N, count).

    Args:
        seed: any integer; combine several with :func:`derive_seed`.
        index: sample indices, integer, shape (N,); the result lies on the same device.
        count: numbers per sample.

    Source of the mixing function: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number
    Generators", 2014, figure 16 (SplitMix64).

    >>> import torch
    >>> batch, alone = torch.tensor([5, 3]), torch.tensor([3])
    >>> torch.equal(uniform(7, batch, 2)[1:], uniform(7, alone, 2))
    True
    """
    position = torch.arange(count, device=index.device)
    counter = index.to(torch.int64)[:, None] * count + position + 1
    bits = counter * _signed(_GOLDEN) + _signed(_mix(seed & _MASK))
    bits = (bits ^ _shift_right(bits, 30)) * _signed(_MIX1)
    bits = (bits ^ _shift_right(bits, 27)) * _signed(_MIX2)
    bits = bits ^ _shift_right(bits, 31)
    return _shift_right(bits, 40).to(torch.float32) * 2.0**-24
