"""Objectives of other tasks than one of C classes, against loops written from their formulas."""

import math

import torch

from kdlit.objectives import BoundedRegressionLabels, MultilabelSoftLabels, RegressionLabels
from objectives.cases.labels import mean, rows
from objectives.table import CLASSES, Case


def several(classes):
    """Return two labels for each class: itself and the next."""
    one = torch.nn.functional.one_hot(classes, CLASSES)
    return one + one.roll(1, dims=1)


def numbers(classes):
    """Return five numbers for each class, much like the teacher's logits."""
    noise = torch.randn(CLASSES, CLASSES, generator=torch.Generator().manual_seed(4))
    return (8 * torch.eye(CLASSES) - 2 + noise)[classes]


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


def naive_multilabel(objective, student, teacher, batch):
    t, soft, truth = objective.temperature, [], []
    for z, w, y in rows(student.logits, teacher.logits, batch.target):
        for ours, theirs, there in zip(z, w, y, strict=True):
            p, q = sigmoid(theirs / t), sigmoid(ours / t)
            soft.append(p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)))
            truth.append(-math.log(sigmoid(ours) if there else 1 - sigmoid(ours)))
    return {"soft": t * t * mean(soft), "truth": mean(truth)}


def squared(one, two):
    return sum((a - b) ** 2 for a, b in zip(one, two, strict=True)) / len(one)


def naive_regression(objective, student, teacher, batch):
    found = list(rows(student.logits, teacher.logits, batch.target))
    return {
        "mse": mean([squared(z, t) for z, t, _ in found]),
        "truth": mean([squared(z, y) for z, _, y in found]),
    }


def naive_bounded(objective, student, teacher, batch):
    bounded, truth = [], []
    for z, t, y in rows(student.logits, teacher.logits, batch.target):
        ours, theirs = squared(z, y), squared(t, y)
        truth.append(ours)
        bounded.append(ours if ours + objective.margin > theirs else 0.0)
    # One of both kinds, or the bound would not be tested.
    assert 0 < bounded.count(0.0) < len(bounded) or torch.equal(student.logits, teacher.logits)
    return {"bounded": mean(bounded), "truth": mean(truth)}


CASES: dict[str, Case] = {
    "MultilabelSoftLabels": Case(
        lambda: MultilabelSoftLabels(3.0, 0.7),
        naive_multilabel,
        zero_when_equal=("soft",),
        shift_invariant=False,
        target=several,
    ),
    "RegressionLabels": Case(
        lambda: RegressionLabels(0.7),
        naive_regression,
        zero_when_equal=("mse",),
        shift_invariant=False,
        target=numbers,
    ),
    "BoundedRegressionLabels": Case(
        BoundedRegressionLabels,
        naive_bounded,
        zero_when_equal=("bounded",),
        shift_invariant=False,
        target=numbers,
    ),
}
