"""Objectives that need no teacher, against loops written from the papers."""

import math

import torch

from kdlit.objectives import MutualLearning, SelfDistillation
from objectives.table import Case, Tiny, trained_teacher


def softmax(row, temperature=1.0):
    powers = [math.exp(value / temperature) for value in row]
    return [power / sum(powers) for power in powers]


def divergence(p_logits, q_logits, temperature=1.0):
    """KL(p || q), averaged over the rows."""
    total = 0.0
    for one, two in zip(p_logits.double().tolist(), q_logits.double().tolist(), strict=True):
        p, q = softmax(one, temperature), softmax(two, temperature)
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return total / len(p_logits)


def cross_entropy(logits, target):
    found = [
        -math.log(softmax(row)[label])
        for row, label in zip(logits.double().tolist(), target.tolist(), strict=True)
    ]
    return sum(found) / len(found)


def naive_mutual(objective, student, teacher, batch):
    """Each network against every other one, as in the paper's section 3."""
    logits = [student.logits, *(peer(batch.inputs) for peer in objective.peers)]
    losses = [
        sum(divergence(other, own) for other in logits if other is not own) / (len(logits) - 1)
        for own in logits
    ]
    truth = sum(cross_entropy(own, batch.target) for own in logits[1:])
    return {"student": torch.tensor(losses[0]), "peers": torch.tensor(sum(losses[1:]) + truth)}


def naive_self(objective, student, teacher, batch):
    truth, soft, hint = 0.0, 0.0, 0.0
    for layer, head in zip(["block1", "block2"], objective.heads, strict=True):
        maps = student.features[layer]
        side = maps.shape[-1] // 4
        cells = maps.reshape(len(maps), maps.shape[1], 4, side, 4, side).mean(dim=(3, 5))
        hidden = head.hidden(cells.reshape(len(maps), -1)).clamp(min=0)
        logits = head.classifier(hidden)
        truth += cross_entropy(logits, batch.target)
        soft += 3.0**2 * divergence(student.logits, logits, temperature=3.0)
        gaps = (hidden - student.features["penultimate"]).double().flatten().tolist()
        hint += sum(gap**2 for gap in gaps) / len(gaps)
    return {
        name: torch.tensor(v) for name, v in {"truth": truth, "soft": soft, "hint": hint}.items()
    }


def knowing_peer():
    """A peer that has learned already: what the student gains comes from it alone."""
    return trained_teacher().requires_grad_(True).train()


# Both give gradients to one network at a time and take the others' outputs as constants, which
# finite differences do not.
CASES = {
    "MutualLearning": Case(
        lambda: MutualLearning([knowing_peer(), Tiny(c=10)]),
        naive_mutual,
        gradcheck=False,
    ),
    "SelfDistillation": Case(
        lambda: SelfDistillation(),
        naive_self,
        learns="readout",
        learning_rate=0.03,
        gain=0.1,
        gradcheck=False,
        taught_by_truth=True,
    ),
}
