"""A teacher that cannot change."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kdlit.batch import Batch, Outputs
from kdlit.errors import TeacherError
from kdlit.taps import Taps
from kdlit.teachers.surroundings import Surroundings

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


class TeacherSource(nn.Module):
    """Anything that answers a batch the way a teacher does.

    A source is always in evaluation mode and tracks no gradients. `DistillationModule` keeps it
    out of its parameters and its state, and moves it along to other devices and types.

    Attributes:
        changes: whether what it says of a sample changes in training.
        by_sample: whether it answers by the samples' numbers, and not by what the batch shows.
        normalizes: whether it answers log-probabilities of one class out of C, and not what a
            network gave.
        spreads: whether :meth:`spread` leaves each process a part of it.
    """

    changes: bool = False
    by_sample: bool = False
    normalizes: bool = False
    spreads: bool = False

    @property
    def single_network(self) -> nn.Module | None:
        """The network that teaches, where there is exactly one."""
        return None

    def train(self, mode: bool = True) -> "TeacherSource":
        """Stay in evaluation mode, whatever is asked."""
        super().train(False)
        return self

    @abstractmethod
    def forward(self, batch: Batch) -> Outputs:
        """Return the teacher's outputs for a batch, without gradients."""

    def probe(self, batch: Batch) -> Outputs:
        """Answer one batch before training begins, for the shapes."""
        outputs: Outputs = self(batch)
        return outputs

    def tap(self, layers: Sequence[str]) -> None:
        """Give these layers' outputs as `features` from now on; none removes all taps.

        Raises:
            TeacherError: if the source has no layers to give.
        """
        if layers:
            raise TeacherError(
                f"{type(self).__name__} gives logits alone, and an objective asks for its layers "
                f"{', '.join(layers)}"
            )

    def begin(self, student: nn.Module) -> None:
        """Take note of the student before its training begins."""

    def spread(self, mesh: "DeviceMesh") -> None:
        """Shard over the processes of a mesh, where it was said how."""

    def remember(self, around: Surroundings) -> None:
        """Prepare for the samples of a training, when everything is on its device."""

    def turn_to(self, split: str | None, epoch: int = 0) -> None:
        """Take note of what is asked from now on: `train`, in an epoch, `val`, or other data."""

    def after_step(self, student: nn.Module) -> None:
        """Take note of the student after each step of its optimizer."""

    def state_to_keep(self) -> Mapping[str, Tensor] | None:
        """Return what a checkpoint must keep to go on, for a source that changes in training."""
        return None

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`state_to_keep` returned."""


class FrozenTeacher(TeacherSource):
    """A network in evaluation mode for ever, without gradients.

    The network is frozen in place: its parameters stop requiring gradients, and `train()` has no
    effect on it through this object.

    Args:
        network: any module that :class:`kdlit.batch.Outputs` understands the output of.
        parallelize: a function of the network and a device mesh that shards it in place, for a
            teacher that does not fit on one device; see :class:`kdlit.DistillationModule`, which
            calls it when it shards the student.

    >>> teacher = FrozenTeacher(nn.Sequential(nn.Linear(3, 2), nn.Dropout()))
    >>> teacher.train().network.training, any(p.requires_grad for p in teacher.parameters())
    (False, False)
    >>> teacher(Batch(torch.zeros(1, 3))).logits.requires_grad
    False
    """

    def __init__(
        self,
        network: nn.Module,
        parallelize: "Callable[[nn.Module, DeviceMesh], object] | None" = None,
    ) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self._parallelize, self.spreads = parallelize, parallelize is not None
        self._taps: Taps | None = None
        self.eval()

    @property
    def single_network(self) -> nn.Module | None:
        """The network."""
        return self.network

    def spread(self, mesh: "DeviceMesh") -> None:
        """Shard the network over the processes of a mesh, once, where it was said how."""
        if self._parallelize is not None:
            self._parallelize(self.network, mesh)
            self._parallelize = None

    def tap(self, layers: Sequence[str]) -> None:
        """Give these layers' outputs as `features` from now on; none removes all taps."""
        if self._taps is not None:
            self._taps.close()
        self._taps = Taps(self.network, layers, "teacher") if layers else None

    def probe(self, batch: Batch) -> Outputs:
        """Answer one batch, and find which layers' outputs must be copied."""
        return super().probe(batch) if self._taps is None else self._taps.probe(batch)

    @torch.no_grad()
    def forward(self, batch: Batch) -> Outputs:
        """Run the network. Not in inference mode, whose tensors a loss may not save."""
        return batch.run(self.network) if self._taps is None else self._taps.run(batch)


def as_source(teacher: nn.Module) -> TeacherSource:
    """Return a teacher source as it is, and freeze any other network."""
    return teacher if isinstance(teacher, TeacherSource) else FrozenTeacher(teacher)
