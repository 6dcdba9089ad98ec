"""Objectives without a teacher: who learns from whom."""

import copy

import pytest
import torch
from torch import nn

from kdlit.batch import Batch, Outputs
from kdlit.errors import ConfigError
from kdlit.functional import mutual_loss
from kdlit.objectives import DryRun, MutualLearning, SelfDistillation
from kdlit.taps import Taps
from objectives.table import Tiny, samples

BATCH = samples(256)


def accuracy(network: nn.Module) -> float:
    batch = samples(512, seed=7)
    with torch.no_grad():
        return (network.eval()(batch.inputs).argmax(dim=1) == batch.target).float().mean().item()


def gradients(parameters) -> bool:
    found = [p.grad is not None and bool(p.grad.any()) for p in parameters]
    assert all(found) or not any(found)
    return all(found)


# Mutual learning -----------------------------------------------------------------------------


def test_each_network_learns_from_its_own_term_alone():
    student, peers = nn.Linear(64, 5), [nn.Linear(64, 5), nn.Linear(64, 5)]
    objective = MutualLearning(peers)
    batch = Batch(BATCH.inputs.flatten(1), BATCH.target)
    terms = objective(batch.run(student), None, batch)
    terms["student"].backward(retain_graph=True)
    assert gradients(student.parameters())
    assert not gradients(objective.parameters())
    student.zero_grad()
    terms["peers"].backward()
    assert gradients(objective.parameters())
    assert not gradients(student.parameters())


def test_untrained_networks_learn_together_and_come_to_agree():
    student, peer = Tiny(), Tiny(c=20)
    objective = MutualLearning([peer])
    objective.setup(DryRun(BATCH.run(student), None, student, None))
    optimizer = torch.optim.Adam([*student.parameters(), *objective.parameters()], lr=0.01)
    for step in range(120):
        batch = samples(128, seed=100 + step)
        optimizer.zero_grad()
        outputs = batch.run(student)
        terms = objective(outputs, None, batch)
        # The student has no ground truth here: what it knows, it knows from its peer.
        (terms["student"] + terms["peers"]).backward()
        optimizer.step()
    assert accuracy(peer) > 0.7
    assert accuracy(student) > 0.6


@pytest.mark.parametrize(
    ("peers", "message"),
    [
        ([], "one network or more"),
        (nn.Sequential(nn.Linear(2, 2)), "must be a list"),
        ([nn.Identity()] * 2, "one of them twice"),
    ],
)
def test_peers_that_cannot_be(peers, message):
    with pytest.raises(ConfigError, match=message):
        MutualLearning(peers)


def test_the_student_is_not_its_own_peer():
    student = Tiny()
    run = DryRun(Outputs(torch.zeros(2, 5)), None, student, None)
    MutualLearning([copy.deepcopy(student)]).setup(run)
    with pytest.raises(ConfigError, match="shares parameters"):
        MutualLearning([student]).setup(run)


def test_one_network_alone_learns_nothing_from_others():
    with pytest.raises(ConfigError, match="two networks or more"):
        mutual_loss(torch.zeros(2, 3), [])


# Self-distillation ---------------------------------------------------------------------------


def prepared(objective: SelfDistillation, student: nn.Module) -> Taps:
    taps = Taps(student, objective.student_layers)
    objective.setup(DryRun(taps.run(BATCH), None, student, None))
    return taps


@pytest.mark.parametrize("term", ["soft", "hint"])
def test_the_deepest_layers_teach_and_are_not_taught(term):
    student, objective = Tiny(), SelfDistillation()
    taps = prepared(objective, student)
    objective(taps.run(BATCH), None, BATCH)[term].backward()
    assert gradients(student.block1.parameters())
    assert not gradients(student.hidden.parameters())
    assert not gradients(student.classifier.parameters())


def test_early_layers_learn_to_decide():
    student, objective = Tiny(), SelfDistillation()
    taps = prepared(objective, student)
    optimizer = torch.optim.Adam([*student.parameters(), *objective.parameters()], lr=0.01)
    for step in range(60):
        batch = samples(128, seed=100 + step)
        optimizer.zero_grad()
        outputs = taps.run(batch)
        terms = objective(outputs, None, batch)
        loss = sum(objective.weights[name] * term for name, term in terms.items())
        (loss + nn.functional.cross_entropy(outputs.logits, batch.target)).backward()
        optimizer.step()
    assert accuracy(student) > 0.7
    with torch.no_grad():
        batch = samples(512, seed=7)
        features = taps.run(batch).features
        for layer, head in zip(objective.layers, objective.heads, strict=True):
            _, logits = head(features[layer])
            assert (logits.argmax(dim=1) == batch.target).float().mean() > 0.6, layer


@pytest.mark.parametrize("shape", [(4, 6), (4, 5, 6), (4, 6, 3, 5), (4, 6, 9, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_heads_on_layers_of_every_kind(shape, dtype):
    objective = SelfDistillation(["layer"])
    features = {"layer": torch.randn(shape).to(dtype), "penultimate": torch.randn(4, 7)}
    outputs = Outputs(torch.randn(4, 3), features)
    objective.setup(DryRun(outputs, None, nn.Identity(), None))
    terms = objective(outputs, None, Batch(None, torch.tensor([0, 1, 2, 0])))
    assert all(torch.isfinite(term) and term.dtype == torch.float32 for term in terms.values())
    features["layer"] = torch.zeros(4, 1, 1, 1, 1)
    with pytest.raises(ConfigError, match=r"maps \(N, C, H, W\), got \(4, 1, 1, 1, 1\)"):
        objective.setup(DryRun(outputs, None, nn.Identity(), None))


def test_terms_without_weight_are_left_out():
    assert set(SelfDistillation(alpha=1.0, hint=0.0).weights) == {"soft"}
    assert set(SelfDistillation(alpha=0.0).weights) == {"truth", "hint"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"student_layers": []}, "one layer or more"),
        ({"student_layers": "block1"}, "must be a list .* got 'block1'"),
        ({"temperature": 0.0}, "temperature"),
        ({"alpha": 1.5}, "alpha"),
        ({"hint": -1.0}, "hint"),
        ({"pool": 0}, "pool"),
    ],
)
def test_settings_that_cannot_be(arguments, message):
    with pytest.raises(ConfigError, match=message):
        SelfDistillation(**arguments)
