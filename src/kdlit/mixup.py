"""Mixing the images of a batch, for a student that is to match its teacher everywhere."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from kdlit import checks
from kdlit.batch import Batch
from kdlit.errors import ConfigError


class Mix(Protocol):
    """Maps a training batch to the one that both networks see."""

    keeps_target: bool
    """Whether the ground truth still holds."""

    def __call__(self, batch: Batch) -> Batch:
        """Return the mixed batch."""
        ...


class NoMix:
    """Leave batches as they are."""

    keeps_target = True

    def __call__(self, batch: Batch) -> Batch:
        """Return the same batch."""
        return batch


class Mixup:
    r"""Blend each sample with another one of its batch.

    .. math:: \tilde x_n = \lambda x_n + (1 - \lambda) x_{\pi(n)}, \quad
        \lambda \sim \mathrm{Beta}(\alpha, \alpha)

    with one :math:`\lambda` and one random order :math:`\pi` a batch. In distillation the teacher
    says what the blend is, so no labels are mixed: the batch has no ground truth any more, and
    objectives that read it refuse it. Samples keep their index.

    The numbers come from torch's global generator on the CPU, which a run reseeds every epoch.

    Args:
        alpha: > 0. Default 1: :math:`\lambda` is uniform, as in the recipe of Beyer et al.,
            "Knowledge distillation: A good teacher is patient and consistent", 2022, section 3
            (arXiv:2106.05237).

    Raises:
        ConfigError: if `alpha` is not > 0, or a batch's inputs are not one floating-point tensor.

    Source: Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018, section 2
    (arXiv:1710.09412).

    >>> mixed = Mixup()(Batch(torch.rand(8, 1, 28, 28), torch.arange(8), torch.arange(8)))
    >>> mixed.inputs.shape, mixed.target, mixed.index[-1].item()
    (torch.Size([8, 1, 28, 28]), None, 7)
    """

    keeps_target = False

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = checks.positive("alpha", alpha)
        self._ratio = torch.distributions.Beta(self.alpha, self.alpha)

    def __call__(self, batch: Batch) -> Batch:
        """Return the blends, without ground truth."""
        inputs = batch.inputs
        if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
            found = (
                f"a mapping of {', '.join(map(str, inputs))}"
                if isinstance(inputs, Mapping)
                else str(getattr(inputs, "dtype", type(inputs).__name__))
            )
            raise ConfigError(
                "mixup blends inputs that are one floating-point tensor, such as images, got "
                f"{found}: train without it (mix=none)"
            )
        ratio = float(self._ratio.sample())
        others = inputs[torch.randperm(len(inputs)).to(inputs.device)]
        return replace(batch, inputs=torch.lerp(others, inputs, ratio), target=None)

    def __repr__(self) -> str:
        """Show the setting."""
        return f"Mixup(alpha={self.alpha:g})"
