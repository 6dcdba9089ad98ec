"""Soft, hard, smoothed and true labels, against loops written from their formulas."""

import math

import torch

from kdlit import BlendedLabels, HardLabels, SmoothLabels, SoftLabels, TruthLabels
from objectives.table import Case


def softmax(row, temperature=1.0):
    powers = [math.exp(value / temperature) for value in row]
    return [power / sum(powers) for power in powers]


def rows(*tensors):
    return zip(*(tensor.double().tolist() for tensor in tensors), strict=True)


def mean(values):
    return torch.tensor(sum(values) / len(values))


def naive_soft(z, t, temperature):
    losses = []
    for student, teacher in rows(z, t):
        p, q = softmax(teacher, temperature), softmax(student, temperature)
        losses.append(sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True)))
    return temperature**2 * mean(losses)


def naive_cross_entropy(z, labels, smoothing=0.0):
    losses = []
    for student, label in rows(z, labels):
        q = softmax(student)
        target = [smoothing / len(q)] * len(q)
        target[int(label)] += 1 - smoothing
        losses.append(-sum(a * math.log(b) for a, b in zip(target, q, strict=True)))
    return mean(losses)


def naive(objective, student, teacher, batch):
    z, t, y = student.logits, teacher.logits, batch.target
    terms = {
        "soft": lambda: naive_soft(z, t, objective.temperature),
        "hard": lambda: naive_cross_entropy(z, t.argmax(dim=1)),
        "truth": lambda: naive_cross_entropy(z, y),
        "smooth": lambda: naive_cross_entropy(z, y, objective.smoothing),
    }
    return {name: terms[name]() for name in objective.weights}


CASES = {
    "SoftLabels": Case(lambda: SoftLabels(3.0, 0.7), naive, zero_when_equal=("soft",)),
    "HardLabels": Case(lambda: HardLabels(0.6), naive),
    "TruthLabels": Case(TruthLabels, naive),
    "BlendedLabels": Case(
        lambda: BlendedLabels(2.0, 1.0, 0.5, 3.0), naive, zero_when_equal=("soft",)
    ),
    "SmoothLabels": Case(lambda: SmoothLabels(0.2), naive),
}
