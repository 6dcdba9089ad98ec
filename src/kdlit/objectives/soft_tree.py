"""The rest of a soft decision tree's loss, beside a label strategy."""

import math

import torch
from torch import Tensor

from kdlit.batch import Batch, Outputs
from kdlit.errors import ConfigError
from kdlit.functional import leaf_loss, path_balance_loss, path_visits
from kdlit.functional.soft_tree import node_depths
from kdlit.objectives.base import DryRun, Objective
from kdlit.objectives.crd import gathered
from kdlit.schedules import Weight, check_weight


class SoftTree(Objective):
    r"""Every leaf of a soft decision tree learns for itself, and inner nodes use both sides.

    .. math:: \mathcal{L} = w_\ell \, \mathcal{L}_\text{leaves} + \lambda \,
        \mathcal{L}_\text{balance}

    See :func:`kdlit.functional.leaf_loss` and :func:`kdlit.functional.path_balance_loss`. In
    training :class:`kdlit.models.SoftDecisionTree` answers with its leaves' log probabilities,
    averaged over the paths. With the weight 1 of `leaves` the cross-entropy of a label strategy is
    then the paper's loss, exactly: of ground truth, hard labels, smoothed labels, or soft labels at
    temperature 1, up to the entropy of what the teacher says, which no student changes. At another
    temperature, and for other strategies, it is a loss of ours.

    The balance is taken over the current batch and those before it: what goes to each side is
    averaged with exponentially decaying weights, over one batch at the root and twice as many at
    each level below, since the deeper a node, the less comes to it in one batch. The
    gradient is that of the current batch's share in the average. With several processes the
    batches before are those of all, the current one is each process's own.

    Args:
        student_layer: the layer that gives the logarithms of the path probabilities of all nodes.
        leaves: weight of that term, a number >= 0 or a schedule. Default 1, with which the loss
            is exact.
        balance: lambda, likewise. Default 1, ours: the paper gives no value. See
            `docs/results/frosst2017.md` for what becomes of a tree without it.

    Raises:
        ConfigError: if a weight is negative or both are 0; at set-up, if the layer does not give
            what it should.

    Source: Frosst, Hinton, "Distilling a Neural Network Into a Soft Decision Tree", 2017,
    sections 2 and 3 (arXiv:1711.09784).

    >>> SoftTree(balance=0.01).weights
    {'leaves': 1.0, 'balance': 0.01}
    """

    needs_teacher = False
    visits: Tensor
    shares: Tensor

    def __init__(
        self,
        student_layer: str = "paths",
        leaves: Weight = 1.0,
        balance: Weight = 1.0,
    ) -> None:
        super().__init__()
        self.student_layers = (student_layer,)
        weights = {
            "leaves": check_weight("leaves", leaves),
            "balance": check_weight("balance", balance),
        }
        self.weights = {name: weight for name, weight in weights.items() if weight != 0}
        if not self.weights:
            raise ConfigError("at least one of `leaves`, `balance` must be > 0, got 0 for both")

    def setup(self, run: DryRun) -> None:
        """Make the averages, of nothing yet."""
        visits = path_visits(run.student.features[self.student_layers[0]])
        self.register_buffer("visits", torch.full_like(visits, -math.inf))
        self.register_buffer("shares", 0.5 ** node_depths(visits))

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return the terms that have a weight."""
        terms = {}
        if "leaves" in self.weights:
            terms["leaves"] = leaf_loss(student.logits)
        if "balance" in self.weights:
            current = path_visits(student.features[self.student_layers[0]])
            terms["balance"] = path_balance_loss(self._averaged(current))
        return terms

    @torch.no_grad()
    def after_step(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> None:
        """Take the batch into the averages."""
        if "balance" in self.weights:
            current = path_visits(student.features[self.student_layers[0]])
            everywhere = torch.logsumexp(gathered(current[None]), dim=0)
            self.visits.copy_(self._averaged(everywhere))

    def _averaged(self, current: Tensor) -> Tensor:
        return torch.logaddexp(torch.log1p(-self.shares) + self.visits, self.shares.log() + current)

    def extra_repr(self) -> str:
        """Show the settings."""
        weights = ", ".join(f"{name}={weight}" for name, weight in self.weights.items())
        return f"{weights}, student={self.student_layers}"
