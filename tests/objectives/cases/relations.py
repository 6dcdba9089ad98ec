"""Relations between samples, and attention between places.

References are torchdistill's where its formula is the one that is implemented, in float64:
attention transfer in its mode `code`, RKD, and the kernel of correlation congruence, which
torchdistill leaves unnormalised and whose distance it does not square. It divides the rows of
similarity-preserving distillation by the sum of their magnitudes, not by their length as the paper
does; its PKT counts a sample as its own neighbour, as the authors' code does and the paper does
not; it has no NST. For these three there are loops written from the papers.
"""

import math

import torch

from kdlit.objectives import (
    NST,
    PKT,
    RKD,
    AttentionTransfer,
    CorrelationCongruence,
    SimilarityPreserving,
)
from objectives.table import Case

LAYERS = ("block1", "block2")


def both(objective, student, teacher):
    """Return both networks' features of the first layer, in float64."""
    return (
        student.features[objective.student_layers[0]].double(),
        teacher.features[objective.teacher_layers[0]].double(),
    )


def said(student, teacher):
    """Return features in the form that torchdistill's losses take."""
    return {"s": {"output": student}}, {"t": {"output": teacher}}


def torchdistill_attention(objective, student, teacher, batch):
    from torchdistill.losses.mid_level import ATLoss

    pairs = {
        name: {
            "student": {"path": name, "io": "output"},
            "teacher": {"path": name, "io": "output"},
        }
        for name in LAYERS
    }
    ours, theirs = (
        {name: {"output": maps.double()} for name, maps in outputs.features.items()}
        for outputs in (student, teacher)
    )
    return {"attention": ATLoss(pairs, mode="code")(ours, theirs)}


def naive_similarity(objective, student, teacher, batch):
    def similarities(features):
        rows = features.flatten(1).tolist()
        for a in rows:
            inner = [sum(x * y for x, y in zip(a, b, strict=True)) for b in rows]
            yield [value / math.hypot(*inner) for value in inner]

    ours, theirs = both(objective, student, teacher)
    total = 0.0
    for one, two in zip(similarities(ours), similarities(theirs), strict=True):
        total += sum((x - y) ** 2 for x, y in zip(one, two, strict=True))
    return {"similarity": torch.tensor(total / len(ours) ** 2)}


def torchdistill_rkd(objective, student, teacher, batch):
    from torchdistill.losses.mid_level import RKDLoss

    features = said(*both(objective, student, teacher))
    return {
        "distance": RKDLoss("s", "t", 1.0, 0.0, "mean")(*features),
        "angle": RKDLoss("s", "t", 0.0, 1.0, "mean")(*features),
    }


def torchdistill_correlation(objective, student, teacher, batch):
    from torchdistill.losses.mid_level import CCKDLoss

    kernel = {"type": "gaussian", "gamma": objective.gamma, "max_p": objective.order}
    ours, theirs = (
        features / features.square().sum(dim=1, keepdim=True).sqrt()
        for features in both(objective, student, teacher)
    )
    distance = CCKDLoss("s", "t", kernel, "sum")(*said(ours, theirs))
    return {"correlation": distance**2 / len(ours) ** 2}


def naive_pkt(objective, student, teacher, batch):
    def cosine(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))

    def neighbours(features):
        rows = features.tolist()
        for i, a in enumerate(rows):
            kernel = [(cosine(a, b) + 1) / 2 for j, b in enumerate(rows) if j != i]
            yield [value / sum(kernel) for value in kernel]

    ours, theirs = both(objective, student, teacher)
    total = 0.0
    for p, q in zip(neighbours(theirs), neighbours(ours), strict=True):
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return {"pkt": torch.tensor(total / len(ours) ** 2)}


def naive_nst(objective, student, teacher, batch):
    def kernel(one, two):
        values = []
        for a in one.flatten(1).tolist():
            for b in two.flatten(1).tolist():
                inner = sum(x * y for x, y in zip(a, b, strict=True))
                lengths = math.hypot(*a) * math.hypot(*b)
                values.append((inner / lengths) ** 2 if lengths else 0.0)
        return sum(values) / len(values)

    losses = [
        kernel(t, t) + kernel(s, s) - 2 * kernel(t, s)
        for s, t in zip(*both(objective, student, teacher), strict=True)
    ]
    return {"nst": torch.tensor(sum(losses) / len(losses))}


CASES = {
    "AttentionTransfer": Case(
        lambda: AttentionTransfer(LAYERS, LAYERS),
        torchdistill_attention,
        zero_when_equal=("attention",),
        learns="readout",
        learning_rate=0.03,
        steps=80,  # attention says where, and not what: it takes longer alone
    ),
    "SimilarityPreserving": Case(
        lambda: SimilarityPreserving("hidden", "hidden"),
        naive_similarity,
        zero_when_equal=("similarity",),
        learns="readout",
        learning_rate=0.03,
    ),
    "RKD": Case(
        lambda: RKD("hidden", "hidden"),
        torchdistill_rkd,
        zero_when_equal=("distance", "angle"),
        learns="readout",
        learning_rate=0.03,
    ),
    "PKT": Case(
        lambda: PKT("hidden", "hidden"),
        naive_pkt,
        zero_when_equal=("pkt",),
        learns="readout",
        learning_rate=0.03,
    ),
    "CorrelationCongruence": Case(
        lambda: CorrelationCongruence("hidden", "hidden", order=3),
        torchdistill_correlation,
        zero_when_equal=("correlation",),
        learns="readout",
        learning_rate=0.03,
    ),
    "NST": Case(
        # Before ReLU: at a channel that is 0 everywhere the loss has no derivative.
        lambda: NST("block2.1", "block2.1"),
        naive_nst,
        zero_when_equal=("nst",),
        learns="readout",
        learning_rate=0.03,
    ),
}
