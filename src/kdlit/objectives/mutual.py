"""Networks that teach each other while all of them learn."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kdlit.batch import Batch, Outputs
from kdlit.errors import ConfigError
from kdlit.functional import mutual_loss, truth_loss
from kdlit.objectives.base import DryRun, Objective, target_of
from kdlit.schedules import Weight, check_weight


class MutualLearning(Objective):
    r"""The student and its peers, all untrained, learn from the truth and from each other.

    With the student as network 1 of K, its peers as the others, and p^k the distributions:

    .. math:: \mathcal{L}_\text{student} = \frac{1}{K-1} \sum_{l \ne 1}
        \mathrm{KL}(p^l \,\|\, p^1), \quad
        \mathcal{L}_\text{peers} = \sum_{k=2}^{K} \Bigl( \mathrm{CE}(z^k, y)
        + \frac{1}{K-1} \sum_{l \ne k} \mathrm{KL}(p^l \,\|\, p^k) \Bigr)

    Each network takes the others' distributions as constants. The student's own cross-entropy with
    the truth is the label strategy's (`TruthLabels`), and no teacher is needed. The peers are
    trained with the student's optimizer and are not shipped.

    All networks are updated at once, from predictions before the step; the paper updates them in
    turn and predicts anew after each. The peers run in the type of their weights, also under mixed
    precision.

    Args:
        peers: one network or more, with the student's classes; trained in place.
        weight: of the student's term. Default 1, as in the paper.

    Raises:
        ConfigError: if there are no peers, one is given twice, or one is (part of) the student.

    Source: Zhang, Xiang, Hospedales, Lu, "Deep Mutual Learning", 2018, section 3
    (arXiv:1706.00384).

    >>> MutualLearning([nn.Linear(4, 3)]).weights
    {'student': 1.0, 'peers': 1.0}
    """

    needs_teacher = False

    def __init__(self, peers: Sequence[nn.Module], weight: Weight = 1.0) -> None:
        super().__init__()
        if isinstance(peers, nn.Module) or not peers:
            raise ConfigError("`peers` must be a list of one network or more")
        if len({id(peer) for peer in peers}) < len(peers):
            raise ConfigError("`peers` must be different networks, got one of them twice")
        self.peers = nn.ModuleList(peers)
        self.weights = {"student": check_weight("weight", weight), "peers": 1.0}

    def setup(self, run: DryRun) -> None:
        """Check that no peer is the student."""
        own = {id(parameter) for parameter in run.student_network.parameters()}
        if any(id(parameter) in own for parameter in self.peers.parameters()):
            raise ConfigError(
                "a peer shares parameters with the student; give a network of its own, or a copy "
                "(copy.deepcopy)"
            )

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Run the peers and return both terms."""
        target = target_of(batch)
        peers = [batch.run(peer).logits for peer in self.peers]
        losses = [
            truth_loss(logits, target)
            + mutual_loss(logits, [student.logits, *peers[:number], *peers[number + 1 :]])
            for number, logits in enumerate(peers)
        ]
        return {
            "student": mutual_loss(student.logits, peers),
            "peers": torch.stack(losses).sum(),
        }

    def extra_repr(self) -> str:
        """Show the weight."""
        return f"weight={self.weights['student']}"
