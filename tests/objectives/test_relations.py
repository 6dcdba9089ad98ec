"""What the table does not say of the objectives of relations and attention."""

import copy

import pytest
import torch

from kdlit.batch import Batch, Outputs
from kdlit.errors import ConfigError
from kdlit.functional import correlation_loss
from kdlit.objectives import RKD, AttentionTransfer, CorrelationCongruence, DryRun
from kdlit.schedules import LinearWarmup

NONE = Batch(None)


def said(size: int, seed: int) -> Outputs:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(6, size, 2, 2, generator=generator)
    return Outputs(torch.zeros(6, 5), {"layer": features})


def test_embeddings_are_made_of_flattened_features_and_both_are_trained():
    student, teacher = said(3, 0), said(5, 1)
    objective = CorrelationCongruence("layer", "layer", embedding=7)
    objective.setup(DryRun(student, teacher, torch.nn.Identity(), None))
    shapes = {name: tuple(value.shape) for name, value in objective.state_dict().items()}
    assert shapes["student_embedding.weight"] == (7, 12)
    assert shapes["teacher_embedding.weight"] == (7, 20)
    loss = objective(student, teacher, NONE)["correlation"]
    loss.backward()
    assert all(p.grad.abs().sum() > 0 for p in objective.parameters())
    ours, theirs = (
        outputs.features["layer"].flatten(1) @ part.weight.T + part.bias
        for outputs, part in (
            (student, objective.student_embedding),
            (teacher, objective.teacher_embedding),
        )
    )
    assert loss.item() == pytest.approx(correlation_loss(ours, theirs).item())


def test_embeddings_take_half_precision():
    student, teacher = (
        Outputs(o.logits, {"layer": o.features["layer"].bfloat16()})
        for o in (said(3, 0), said(5, 1))
    )
    objective = CorrelationCongruence("layer", "layer", embedding=7)
    objective.setup(DryRun(student, teacher, torch.nn.Identity(), None))
    for module in (objective, copy.deepcopy(objective).bfloat16()):
        assert module(student, teacher, NONE)["correlation"].dtype == torch.float32


def test_without_embeddings_nothing_is_trained():
    objective = CorrelationCongruence("layer", "layer")
    objective.setup(DryRun(said(3, 0), said(5, 1), torch.nn.Identity(), None))
    assert list(objective.parameters()) == []


@pytest.mark.parametrize("name", ["distance", "angle"])
def test_rkd_leaves_out_a_term_without_weight(name):
    objective = RKD("layer", "layer", **{name: 0})
    assert set(objective.weights) == {"distance", "angle"} - {name}
    assert set(objective(said(3, 0), said(5, 1), NONE)) == set(objective.weights)


def test_rkd_takes_schedules():
    assert isinstance(RKD(distance=LinearWarmup(1.0, steps=5)).weights["distance"], LinearWarmup)


def test_attention_is_the_sum_over_pairs_of_layers():
    def terms(layers):
        student, teacher = (
            Outputs(
                said(1, 0).logits,
                {"a": said(s, s).features["layer"], "b": said(s, 9).features["layer"]},
            )
            for s in (3, 5)
        )
        return AttentionTransfer(layers, layers)(student, teacher, NONE)["attention"].item()

    assert terms(["a", "b"]) == pytest.approx(terms(["a"]) + terms(["b"]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RKD(distance=0, angle=0), "at least one of `distance`, `angle` must be > 0"),
        (lambda: RKD(angle=-1), "`angle` must be finite and >= 0, got -1"),
        (lambda: AttentionTransfer([], []), "`student_layers` must be a list of layers' names"),
        (lambda: AttentionTransfer("a", "b"), "must be a list of layers' names, got 'a'"),
        (lambda: AttentionTransfer(["a"], ["b", "c"]), "must be as many, got 1 and 2"),
        (lambda: AttentionTransfer(["a"], ["b"], p=0.5), "`p` must be >= 1, got 0.5"),
        (lambda: CorrelationCongruence(order=0), "`order` must be an integer >= 1, got 0"),
        (lambda: CorrelationCongruence(gamma=-1.0), "`gamma` must be finite and > 0, got -1.0"),
        (lambda: CorrelationCongruence(embedding=0), "`embedding` must be an integer >= 1, got 0"),
    ],
)
def test_refuses(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
