import torch

from kdlit.objectives import Hint
from objectives.table import Case


def naive_hint(objective, student, teacher, batch):
    ours = objective.projector.map(student.features["hidden"])
    theirs = teacher.features["hidden"]
    total = torch.zeros(())
    for s, t in zip(ours.flatten(), theirs.flatten(), strict=True):
        total = total + (s - t) ** 2
    return {"hint": total / theirs.numel()}


CASES = {
    "Hint": Case(
        lambda: Hint("hidden", "hidden"),
        naive_hint,
        learns="readout",
        learning_rate=0.03,
        gain=0.1,
    ),
}
