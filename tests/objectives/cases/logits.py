"""Label strategies beyond soft, hard and true labels, against loops written from the papers."""

import math

import torch

from kdlit.objectives import (
    DISTLabels,
    DKDLabels,
    JensenShannonLabels,
    LogitMSELabels,
    MLKDLabels,
    NKDLabels,
    ReverseKLLabels,
    TeacherFreeLabels,
    WSLDLabels,
)
from objectives.cases.labels import mean, naive_cross_entropy, naive_soft, rows, softmax
from objectives.table import Case


def kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def with_truth(objective, terms, student, batch):
    """Return the terms with the cross-entropy, where they have a weight."""
    everything = {**terms, "truth": naive_cross_entropy(student.logits, batch.target)}
    return {name: everything[name] for name in objective.weights}


def naive_reverse_kl(objective, student, teacher, batch):
    t = objective.temperature
    found = [kl(softmax(z, t), softmax(w, t)) for z, w in rows(student.logits, teacher.logits)]
    return with_truth(objective, {"reverse_kl": t * t * mean(found)}, student, batch)


def naive_jensen_shannon(objective, student, teacher, batch):
    t, beta, found = objective.temperature, objective.beta, []
    for z, w in rows(student.logits, teacher.logits):
        p, q = softmax(w, t), softmax(z, t)
        m = [beta * a + (1 - beta) * b for a, b in zip(p, q, strict=True)]
        found.append(beta * kl(p, m) + (1 - beta) * kl(q, m))
    return with_truth(objective, {"jensen_shannon": t * t * mean(found)}, student, batch)


def naive_mse(objective, student, teacher, batch):
    found = [
        sum((a - b) ** 2 for a, b in zip(z, w, strict=True)) / len(z)
        for z, w in rows(student.logits, teacher.logits)
    ]
    return with_truth(objective, {"mse": mean(found)}, student, batch)


def normalised(probabilities, label):
    others = [p for c, p in enumerate(probabilities) if c != label]
    return [p / sum(others) for p in others]


def naive_dkd(objective, student, teacher, batch):
    t, tckd, nckd = objective.temperature, [], []
    for z, w, y in rows(student.logits, teacher.logits, batch.target):
        p, q, y = softmax(w, t), softmax(z, t), int(y)
        tckd.append(kl([p[y], 1 - p[y]], [q[y], 1 - q[y]]))
        nckd.append(kl(normalised(p, y), normalised(q, y)))
    terms = {"tckd": t * t * mean(tckd), "nckd": t * t * mean(nckd)}
    return with_truth(objective, terms, student, batch)


def naive_nkd(objective, student, teacher, batch):
    t, own, other = objective.temperature, [], []
    for z, w, y in rows(student.logits, teacher.logits, batch.target):
        y = int(y)
        own.append(-softmax(w)[y] * math.log(softmax(z)[y]))
        p, q = normalised(softmax(w, t), y), normalised(softmax(z, t), y)
        other.append(-sum(a * math.log(b) for a, b in zip(p, q, strict=True)))
    return with_truth(
        objective, {"target": mean(own), "other": t * t * mean(other)}, student, batch
    )


def torchdistill_dist(objective, student, teacher, batch):
    from torchdistill.losses.mid_level import DISTLoss

    said = [{"": {"output": logits}} for logits in (student.logits, teacher.logits)]
    terms = {
        name: DISTLoss("", "output", "", "output", beta, 1 - beta, objective.temperature)(*said)
        for name, beta in (("inter", 1.0), ("intra", 0.0))
    }
    return with_truth(objective, terms, student, batch)


def naive_mlkd(objective, student, teacher, batch):
    terms = dict.fromkeys(("instance", "batch", "classes"), 0.0)
    z, w = student.logits, teacher.logits
    for t in objective.temperatures:
        q = torch.tensor([softmax(row, t) for row in z.tolist()], dtype=torch.float64)
        p = torch.tensor([softmax(row, t) for row in w.tolist()], dtype=torch.float64)
        terms["instance"] += naive_soft(z, w, t)
        for name, a, b in (("batch", p, q), ("classes", p.T, q.T)):
            for i in range(len(a)):
                for j in range(len(a)):
                    terms[name] += float(a[i] @ a[j] - b[i] @ b[j]) ** 2 / len(a)
    return with_truth(objective, {k: torch.as_tensor(v) for k, v in terms.items()}, student, batch)


def naive_wsld(objective, student, teacher, batch):
    t, found = objective.temperature, []
    for z, w, y in rows(student.logits, teacher.logits, batch.target):
        ours, theirs = (-math.log(softmax(row)[int(y)]) for row in (z, w))
        weight = 1 - math.exp(-ours / (theirs + 1e-7))
        p, q = softmax(w, t), softmax(z, t)
        found.append(-weight * sum(a * math.log(b) for a, b in zip(p, q, strict=True)))
    return with_truth(objective, {"weighted": t * t * mean(found)}, student, batch)


def naive_teacher_free(objective, student, teacher, batch):
    t, found = objective.temperature, []
    for z, y in rows(student.logits, batch.target):
        virtual = [(1 - objective.correct) / (len(z) - 1)] * len(z)
        virtual[int(y)] = objective.correct
        powers = [probability ** (1 / t) for probability in virtual]
        found.append(kl([power / sum(powers) for power in powers], softmax(z, t)))
    return with_truth(objective, {"virtual": t * t * mean(found)}, student, batch)


CASES: dict[str, Case] = {
    "ReverseKLLabels": Case(
        lambda: ReverseKLLabels(3.0, 0.7), naive_reverse_kl, zero_when_equal=("reverse_kl",)
    ),
    "JensenShannonLabels": Case(
        lambda: JensenShannonLabels(0.3, 2.0, 0.7),
        naive_jensen_shannon,
        zero_when_equal=("jensen_shannon",),
    ),
    "LogitMSELabels": Case(
        lambda: LogitMSELabels(0.7), naive_mse, zero_when_equal=("mse",), shift_invariant=False
    ),
    "DKDLabels": Case(
        lambda: DKDLabels(temperature=3.0, warmup_steps=10),
        naive_dkd,
        zero_when_equal=("tckd", "nckd"),
    ),
    "DISTLabels": Case(
        lambda: DISTLabels(temperature=2.0), torchdistill_dist, zero_when_equal=("inter", "intra")
    ),
    "NKDLabels": Case(lambda: NKDLabels(temperature=2.0), naive_nkd),
    "MLKDLabels": Case(
        lambda: MLKDLabels(temperatures=[2.0, 4.0]),
        naive_mlkd,
        zero_when_equal=("instance", "batch", "classes"),
    ),
    # Not to be checked against finite differences: the samples' weights are constants for
    # gradients, and yet depend on the student.
    "WSLDLabels": Case(WSLDLabels, naive_wsld, gradcheck=False),
    "TeacherFreeLabels": Case(lambda: TeacherFreeLabels(0.9, 2.0, 0.3), naive_teacher_free),
}
