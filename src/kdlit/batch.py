"""What goes into a network and what comes out, whatever shape the user's project gives it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from kdlit.errors import ConfigError

TARGET_KEYS = ("labels", "label", "target", "targets", "y")
INDEX_KEYS = ("index", "idx")


@dataclass(frozen=True)
class Outputs:
    """What a network says of a batch.

    Attributes:
        logits: unnormalised log-probabilities, shape (N, C); what a network answers may have more
            dimensions, (N, ..., C), until the batch's :class:`Rows` make rows of it.
        features: what layers of the network gave, by the layer's name; see :mod:`kdlit.taps`.
    """

    logits: Tensor
    features: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, output: Any) -> "Outputs":
        """Accept a tensor, or anything with a tensor in `.logits`.

        Raises:
            ConfigError: if the output is neither, or its logits have fewer than two dimensions.
        """
        logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
        if not isinstance(logits, Tensor):
            raise ConfigError(
                "a network must return its logits as a tensor or in `.logits`, "
                f"got {type(output).__name__}"
            )
        if logits.ndim < 2:
            raise ConfigError(
                f"a network's logits must have shape (N, C), got {tuple(logits.shape)}; a single "
                "output is (N, 1)"
            )
        return cls(logits)


class Rows(Protocol):
    """Which parts of a network's answer are the rows that objectives and metrics see."""

    def of(self, outputs: Outputs) -> Outputs:
        """Return logits (M, C), and the features that belong to these rows."""
        ...


class Samples:
    """One row for each sample."""

    def of(self, outputs: Outputs) -> Outputs:
        """Return the outputs, whose logits must have shape (N, C)."""
        if outputs.logits.ndim != 2:
            raise ConfigError(
                "a network's logits must have shape (N, C), got "
                f"{tuple(outputs.logits.shape)}: where it answers each token, give the module or "
                "the callback positions=Tokens() (kdlit.positions)"
            )
        return outputs


SAMPLES = Samples()


class Whole:
    """The whole answer, of any shape (N, ..., C)."""

    def of(self, outputs: Outputs) -> Outputs:
        """Return the outputs as they are."""
        return outputs


@dataclass(frozen=True)
class Batch:
    """One batch, taken apart.

    Attributes:
        inputs: what the networks are called with: a tensor, or a mapping of keyword arguments.
        target: what is true of each row, class indices of shape (N,) unless the task says
            otherwise (:mod:`kdlit.tasks`), or None in unlabelled data.
        index: each sample's position in the data set, shape (N,), or None.
        rows: what of a network's answer counts: each sample, or with :mod:`kdlit.positions` the
            positions that were chosen.
    """

    inputs: Any
    target: Tensor | None = None
    index: Tensor | None = None
    rows: Rows = SAMPLES

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

    def split(self, size: int) -> "list[Batch]":
        """Take apart into batches of `size` samples, in order; the last may be smaller.

        Raises:
            ConfigError: if the inputs are not tensors whose first dimension is the batch.

        >>> import torch
        >>> [len(part.target) for part in Batch(torch.zeros(5, 3), torch.arange(5)).split(2)]
        [2, 2, 1]
        """
        inputs = self.inputs if isinstance(self.inputs, Mapping) else {"inputs": self.inputs}
        parts = {**inputs, "target": self.target, "index": self.index}
        for name, part in parts.items():
            if not isinstance(part, Tensor | None):
                raise ConfigError(
                    f"a step takes its part of a larger batch from tensors, and {name!r} is "
                    f"{type(part).__name__}: leave `step_size` out"
                )
        count = max(
            math.ceil(len(part) / size) for part in parts.values() if isinstance(part, Tensor)
        )
        columns = [(None,) * count if p is None else p.split(size) for p in parts.values()]
        rows = [dict(zip(parts, row, strict=True)) for row in zip(*columns, strict=True)]
        if isinstance(self.inputs, Mapping):
            return [Batch(row, row.pop("target"), row.pop("index")) for row in rows]
        return [Batch(**row) for row in rows]

    def whole(self) -> "Batch":
        """Return the inputs alone, of which a network's whole answer counts."""
        return replace(self, target=None, rows=Whole())

    def call(self, network: nn.Module) -> Outputs:
        """Call a network with this batch's inputs and return all that it answers."""
        if isinstance(self.inputs, Mapping):
            return Outputs.of(network(**self.inputs))
        return Outputs.of(network(self.inputs))

    def run(self, network: nn.Module) -> Outputs:
        """Call a network with this batch's inputs and return the rows of its answer."""
        return self.rows.of(self.call(network))


def probabilities(logits: Tensor) -> Tensor:
    """Return softmax over the last dimension, in float32."""
    return torch.softmax(logits.float(), dim=-1)
