"""The loss of a soft decision tree: exact beside every cross-entropy, and its balance over time."""

import math

import pytest
import torch

from kdlit.batch import Batch, Outputs
from kdlit.errors import ConfigError
from kdlit.models import SoftDecisionTree
from kdlit.objectives import DryRun, HardLabels, SmoothLabels, SoftLabels, SoftTree, TruthLabels
from kdlit.taps import Taps
from objectives.cases.soft_tree import balance

DEPTH, CLASSES, SAMPLES = 3, 4, 6


@pytest.fixture
def tree():
    torch.manual_seed(0)
    return SoftDecisionTree(in_features=5, num_classes=CLASSES, depth=DEPTH).double().train()


def batch_of(seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(CLASSES, (SAMPLES,), generator=generator)
    return Batch(torch.randn(SAMPLES, 5, dtype=torch.float64, generator=generator), target)


def targets(label, teacher: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the distributions that a label strategy wants."""
    truth = torch.eye(CLASSES).double()[target]
    if isinstance(label, SmoothLabels):
        return 0.9 * truth + 0.1 / CLASSES
    soft, hard = teacher.softmax(dim=1), torch.eye(CLASSES).double()[teacher.argmax(dim=1)]
    weights = label.weights
    return (
        weights.get("soft", 0) * soft
        + weights.get("hard", 0) * hard
        + weights.get("truth", 0) * truth
    )


@pytest.mark.parametrize(
    "label",
    [TruthLabels(), HardLabels(), SmoothLabels(), SoftLabels(1.0, 0.3), SoftLabels(1.0, 1.0)],
    ids=lambda label: f"{label}",
)
def test_is_the_leaves_own_cross_entropy_by_path_probability(tree, label):
    batch, teacher = batch_of(1), 2 * torch.randn(SAMPLES, CLASSES, dtype=torch.float64)
    taps = Taps(tree, ["paths"])
    student = taps.run(batch)
    wanted = targets(label, teacher, batch.target)
    expected = torch.zeros((), dtype=torch.float64)
    for sample, paths in enumerate(student.features["paths"].exp()[:, -(2**DEPTH) :]):
        for leaf, probability in enumerate(paths):
            distribution = tree.leaves[leaf].softmax(dim=0)
            for k in range(CLASSES):
                expected -= probability * wanted[sample, k] * distribution[k].log() / SAMPLES
    found = SoftTree(balance=0.0)(student, None, batch)["leaves"]
    assert found > 0
    for name, term in label(student, Outputs(teacher), batch).items():
        found = found + label.weights[name] * term
    # KL, of soft labels, is a cross-entropy less the entropy of what is wanted.
    entropy = -(teacher.softmax(1) * teacher.log_softmax(1)).sum(1).mean()
    found = found + label.weights.get("soft", 0) * entropy
    torch.testing.assert_close(found, expected)
    parameters = list(tree.parameters())
    ours, theirs = (
        torch.autograd.grad(loss, parameters, retain_graph=True) for loss in (found, expected)
    )
    torch.testing.assert_close(ours, theirs)


def test_the_balance_is_averaged_over_twice_as_many_batches_at_each_level(tree):
    objective, taps = SoftTree(leaves=0.0), Taps(tree, ["paths"])
    objective.setup(DryRun(taps.run(batch_of(0)), None, tree, None))
    left = torch.zeros(2**DEPTH - 1, dtype=torch.float64)
    right = left.clone()
    for step in range(5):
        batch = batch_of(step)
        student = taps.run(batch)
        paths = student.features["paths"].detach().exp()
        for node in range(len(left)):
            share = 0.5 ** int(math.log2(node + 1))
            left[node] = (1 - share) * left[node] + share * paths[:, 2 * node + 1].mean()
            right[node] = (1 - share) * right[node] + share * paths[:, 2 * node + 2].mean()
        # One sample that comes by each node as often as the averages say.
        row = [1.0, *torch.stack([left, right], dim=1).flatten().tolist()]
        for node in range(1, len(left)):
            total = left[node] + right[node]
            row[2 * node + 1 : 2 * node + 3] = [
                row[node] * (side[node] / total).item() for side in (left, right)
            ]
        (term,) = objective(student, None, batch).values()
        assert term.item() == pytest.approx(balance([row], DEPTH), rel=1e-6)
        objective.after_step(student, None, batch)
    single = balance(paths.tolist(), DEPTH)
    assert abs(single - term.item()) > 1e-3, "an average of one batch would do"


def test_the_penalty_turns_a_root_that_sends_all_to_one_side():
    tree = SoftDecisionTree(in_features=5, depth=2)
    with torch.no_grad():
        tree.filters.bias.fill_(4.0)
    objective, taps = SoftTree(), Taps(tree, ["paths"])
    batch = Batch(torch.randn(64, 5))
    objective.setup(DryRun(taps.run(batch), None, tree, None))
    optimizer = torch.optim.Adam(tree.parameters(), lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        student = taps.run(batch)
        objective(student, None, batch)["balance"].backward()
        optimizer.step()
        objective.after_step(student, None, batch)
    nodes = taps.run(batch).features["paths"].exp().mean(dim=0)
    assert nodes[1:3].tolist() == pytest.approx([0.5, 0.5], abs=0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"leaves": 0.0, "balance": 0.0}, "at least one of `leaves`, `balance` must be > 0"),
        ({"balance": -1.0}, "`balance` must be finite and >= 0, got -1"),
    ],
)
def test_refuses_bad_weights(arguments, message):
    with pytest.raises(ConfigError, match=message):
        SoftTree(**arguments)


@pytest.mark.parametrize("shape", [(4, 1), (4, 6), (4, 3, 3)])
def test_refuses_a_layer_that_is_no_tree(shape):
    said = Outputs(torch.zeros(4, 2), {"paths": torch.zeros(shape)})
    with pytest.raises(ConfigError, match=r"shape \(N, 2\^\(depth \+ 1\) - 1\), got"):
        SoftTree().setup(DryRun(said, None, torch.nn.Identity(), None))
