"""A teacher that cannot change."""

from abc import abstractmethod

import torch
from torch import nn

from kdlit.batch import Batch, Outputs


class TeacherSource(nn.Module):
    """Anything that answers a batch the way a teacher does.

    A source is always in evaluation mode and tracks no gradients. `DistillationModule` keeps it
    out of its parameters and its state, and moves it along to other devices and types.
    """

    @abstractmethod
    def forward(self, batch: Batch) -> Outputs:
        """Return the teacher's outputs for a batch, without gradients."""


class FrozenTeacher(TeacherSource):
    """A network in evaluation mode for ever, without gradients.

    The network is frozen in place: its parameters stop requiring gradients, and `train()` has no
    effect on it through this object.

    Args:
        network: any module that :class:`kdlit.batch.Outputs` understands the output of.

    >>> teacher = FrozenTeacher(nn.Sequential(nn.Linear(3, 2), nn.Dropout()))
    >>> teacher.train().network.training, any(p.requires_grad for p in teacher.parameters())
    (False, False)
    >>> teacher(Batch(torch.zeros(1, 3))).logits.requires_grad
    False
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "FrozenTeacher":
        """Stay in evaluation mode, whatever is asked."""
        super().train(False)
        return self

    @torch.no_grad()
    def forward(self, batch: Batch) -> Outputs:
        """Run the network. Not in inference mode, whose tensors a loss may not save."""
        return batch.run(self.network)


def as_source(teacher: nn.Module) -> TeacherSource:
    """Return a teacher source as it is, and freeze any other network."""
    return teacher if isinstance(teacher, TeacherSource) else FrozenTeacher(teacher)
