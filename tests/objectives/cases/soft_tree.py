"""Soft decision trees: loops over leaves and over inner nodes, from the paper's section 2 and 3."""

import math
from collections import OrderedDict

import torch
from torch import Tensor, nn

from kdlit.models.soft_decision_tree import PathProbabilities
from kdlit.objectives import SoftTree
from objectives.table import CLASSES, Case


class Leaves(nn.Module):
    """The leaves' log probabilities, averaged over the paths."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.randn(count, CLASSES))

    def forward(self, paths: Tensor) -> Tensor:
        return paths[:, -len(self.logits) :].exp() @ self.logits.float().log_softmax(dim=1)


def tree() -> nn.Sequential:
    """Return a tree of depth 2 that answers in evaluation as in training."""
    return nn.Sequential(
        OrderedDict(
            flatten=nn.Flatten(),
            hidden=nn.Linear(64, 3),
            paths=PathProbabilities(2, beta=2.0),
            leaves=Leaves(4),
        )
    )


def balance(paths: list[list[float]], depth: int) -> float:
    """Return the penalty of one batch, given the path probabilities of all nodes."""
    total = 0.0
    for node in range(2**depth - 1):
        right = sum(row[2 * node + 2] for row in paths)
        share = right / sum(row[node] for row in paths)
        level = int(math.log2(node + 1))
        total -= 2.0**-level * 0.5 * (math.log(share) + math.log(1 - share))
    return total


def naive_tree(objective, student, teacher, batch):
    paths = student.features["paths"].double().exp().tolist()
    leaves = [-math.log(sum(map(math.exp, row))) for row in student.logits.double().tolist()]
    return {
        "leaves": torch.tensor(sum(leaves) / len(leaves)),
        "balance": torch.tensor(balance(paths, depth=2)),
    }


CASES = {
    "SoftTree": Case(
        SoftTree,
        naive_tree,
        shift_invariant=False,
        student=tree,
        teaches=False,
    )
}
