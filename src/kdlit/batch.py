"""What goes into a network and what comes out, whatever shape the user's project gives it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from kdlit.errors import ConfigError

TARGET_KEYS = ("labels", "label", "target", "targets", "y")
INDEX_KEYS = ("index", "idx")


@dataclass(frozen=True)
class Batch:
    """One batch, taken apart.

    Attributes:
        inputs: what the networks are called with: a tensor, or a mapping of keyword arguments.
        target: class indices, shape (N,), or None in unlabelled data.
        index: each sample's position in the data set, shape (N,), or None.
    """

    inputs: Any
    target: Tensor | None = None
    index: Tensor | None = None

    @classmethod
    def of(cls, batch: Any) -> "Batch":
        """Take apart `x`, `(x,)`, `(x, y)`, `(x, y, index)` or a mapping.

        In a mapping the target is found under one of `TARGET_KEYS`, the index under one of
        `INDEX_KEYS`; what is left goes to the networks: as the first positional argument if it
        is a single entry, else as keyword arguments.

        Raises:
            ConfigError: if the batch is of another kind.

        >>> import torch
        >>> batch = Batch.of({"image": torch.zeros(2, 3), "label": torch.tensor([0, 1])})
        >>> batch.inputs.shape, batch.target
        (torch.Size([2, 3]), tensor([0, 1]))
        """
        if isinstance(batch, Batch):
            return batch
        if isinstance(batch, Tensor):
            return cls(batch)
        if isinstance(batch, Mapping):
            rest = dict(batch)
            target = next((rest.pop(key) for key in TARGET_KEYS if key in rest), None)
            index = next((rest.pop(key) for key in INDEX_KEYS if key in rest), None)
            if rest:
                return cls(next(iter(rest.values())) if len(rest) == 1 else rest, target, index)
            raise ConfigError(f"a mapping batch needs inputs, got only {sorted(batch)}")
        if isinstance(batch, Sequence) and not isinstance(batch, str) and 1 <= len(batch) <= 3:
            return cls(*batch)
        size = f" of {len(batch)}" if isinstance(batch, Sequence) else ""
        raise ConfigError(
            "a batch must be (x, y), (x, y, index) or a mapping with inputs and "
            f"{' or '.join(map(repr, TARGET_KEYS[:2]))}, got {type(batch).__name__}{size}"
        )

    def run(self, network: nn.Module) -> "Outputs":
        """Call a network with this batch's inputs and take its outputs apart."""
        if isinstance(self.inputs, Mapping):
            return Outputs.of(network(**self.inputs))
        return Outputs.of(network(self.inputs))


@dataclass(frozen=True)
class Outputs:
    """What a network says of a batch.

    Attributes:
        logits: unnormalised log-probabilities, shape (N, C).
        features: what layers of the network gave, by the layer's name; see :mod:`kdlit.taps`.
    """

    logits: Tensor
    features: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, output: Any) -> "Outputs":
        """Accept a tensor, or anything with a tensor in `.logits`.

        Raises:
            ConfigError: if the output is neither, or its logits are not of shape (N, C).
        """
        logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
        if not isinstance(logits, Tensor):
            raise ConfigError(
                "a network must return its logits as a tensor or in `.logits`, "
                f"got {type(output).__name__}"
            )
        if logits.ndim != 2:
            raise ConfigError(
                f"a network's logits must have shape (N, C), got {tuple(logits.shape)}"
            )
        return cls(logits)


def probabilities(logits: Tensor) -> Tensor:
    """Return softmax over the last dimension, in float32."""
    return torch.softmax(logits.float(), dim=-1)
