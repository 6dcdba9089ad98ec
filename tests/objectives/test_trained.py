"""What the table does not say of the objectives with trained parts: sizes, kinds, refusals."""

import pytest
import torch

from kdlit.batch import Batch, Outputs
from kdlit.errors import ConfigError
from kdlit.objectives import OFA, VID, DryRun, FactorTransfer, ReviewKD
from objectives.cases.trained import CASES
from objectives.table import prepare

MAPS = {"block1": (10, 12, 12), "block2": (20, 4, 4), "vector": (50,), "tokens": (7, 24)}
TEACHERS = {"block1": (48, 6, 6), "block2": (96, 3, 3), "vector": (64,), "tokens": (7, 32)}
BATCH = Batch(None, torch.tensor([0, 1, 2, 3, 0, 1]), torch.arange(6))


def outputs(shapes: dict[str, tuple[int, ...]], seed: int) -> Outputs:
    generator = torch.Generator().manual_seed(seed)
    features = {name: torch.randn(6, *shape, generator=generator) for name, shape in shapes.items()}
    return Outputs(torch.randn(6, 10, generator=generator), features)


def ready(objective):
    torch.manual_seed(0)
    student, teacher = outputs(MAPS, 1), outputs(TEACHERS, 2)
    objective.setup(DryRun(student, teacher, torch.nn.Identity(), None))
    return objective, student, teacher


LAYERS = {
    "VID, maps": lambda: VID("block2", "block2"),
    "VID, larger maps": lambda: VID("block1", "block1"),
    "VID, smaller maps": lambda: VID("block2", "block1"),
    "VID, vectors": lambda: VID("vector", "vector"),
    "VID, tokens": lambda: VID("tokens", "tokens"),
    "FactorTransfer, larger maps": lambda: FactorTransfer("block1", "block2"),
    "FactorTransfer, smaller maps": lambda: FactorTransfer("block2", "block1", rate=0.01),
    "ReviewKD, one stage": lambda: ReviewKD(["block2"], ["block2"]),
    "ReviewKD, two stages": lambda: ReviewKD(["block1", "block2"], ["block1", "block2"]),
    "ReviewKD, vectors last": lambda: ReviewKD(
        ["block1", "block2", "vector"], ["block2", "block1", "vector"]
    ),
    "OFA, maps": lambda: OFA(["block1", "block2"], width=8),
    "OFA, vectors": lambda: OFA(["vector"], width=8),
    "OFA, all": lambda: OFA(["block1", "tokens", "vector"], width=8),
}


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_layers_of_other_sizes_and_kinds_are_matched(make):
    objective, student, teacher = ready(make())
    for name in objective.student_layers:
        student.features[name].requires_grad_()
    torch.stack(list(objective(student, teacher, BATCH).values())).sum().backward()
    for name in objective.student_layers:
        assert student.features[name].grad.abs().sum() > 0


@pytest.mark.parametrize("name", CASES)
def test_works_in_bfloat16(name):
    made = prepare(CASES[name])
    student, teacher = made.outputs()
    exact = made.objective(student, teacher, made.batch)
    made.objective.bfloat16()

    def half(said: Outputs) -> Outputs:
        features = {name: value.bfloat16() for name, value in said.features.items()}
        return Outputs(said.logits.bfloat16(), features)

    for term, value in made.objective(half(student), half(teacher), made.batch).items():
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(exact[term].item(), rel=0.1)


def test_vid_starts_with_the_variance_that_is_asked_for():
    objective, _, _ = ready(VID("block2", "block2", variance=0.25))
    assert torch.allclose(objective.variance(), torch.full((96, 1, 1), 0.25), rtol=1e-5)
    assert torch.allclose(
        ready(VID("vector", "vector", variance=1000.0))[0].variance(), torch.full((64,), 1000.0)
    )


def test_the_factor_term_does_not_train_the_paraphraser():
    objective, student, teacher = ready(FactorTransfer("block2", "block2"))
    terms = objective(student, teacher, BATCH)
    terms["factor"].backward(retain_graph=True)
    parts = [*objective.encoder.parameters(), *objective.decoder.parameters()]
    assert all(parameter.grad is None for parameter in parts)
    assert all(parameter.grad is not None for parameter in objective.translator.parameters())
    terms["reconstruction"].backward()
    assert all(parameter.grad is not None for parameter in parts)


def test_the_paraphraser_learns_to_restore_the_teacher():
    objective, student, teacher = ready(FactorTransfer("block2", "block2"))
    optimizer = torch.optim.Adam(objective.parameters(), lr=0.01)
    errors = []
    for _ in range(30):
        optimizer.zero_grad()
        errors.append(objective(student, teacher, BATCH)["reconstruction"])
        errors[-1].backward()
        optimizer.step()
    assert errors[-1] < 0.6 * errors[0]


def test_a_shallow_stage_of_the_teacher_teaches_a_deep_stage_of_the_student():
    objective, student, teacher = ready(ReviewKD(["block1", "block2"], ["block1", "block2"]))
    deep = student.features["block2"].requires_grad_()

    def gradient(shallow: torch.Tensor) -> torch.Tensor:
        said = Outputs(teacher.logits, {**teacher.features, "block1": shallow})
        return torch.autograd.grad(objective(student, said, BATCH)["review"], deep)[0]

    shallow = teacher.features["block1"]
    assert not torch.allclose(gradient(shallow), gradient(-shallow))


REFUSED = {
    "VID of nothing": (lambda: VID(variance=0.0), r"`variance` must be finite and > 0, got 0.0"),
    "VID of too little": (lambda: VID(variance=1e-6), r"`variance` must be > 1e-05, got 1e-06"),
    "VID of maps and vectors": (
        lambda: ready(VID("block2", "vector")), r"got \(6, 20, 4, 4\) for the student"
    ),
    "FactorTransfer of vectors": (
        lambda: ready(FactorTransfer("vector", "block2")), r"student's layer must give feature maps"
    ),
    "FactorTransfer from vectors": (
        lambda: ready(FactorTransfer("block2", "vector")), r"teacher's layer must give feature maps"
    ),
    "FactorTransfer, no reconstruction": (
        lambda: FactorTransfer("a", "b", reconstruction=0.0), "nothing else trains the paraphraser"
    ),
    "FactorTransfer, negative": (
        lambda: FactorTransfer("a", "b", reconstruction=-1.0), "must be finite and >= 0, got -1"
    ),
    "FactorTransfer, no factors": (lambda: FactorTransfer("a", "b", rate=0.0), "`rate` must be"),
    "FactorTransfer, more than all": (lambda: FactorTransfer("a", "b", rate=1.5), "must lie in"),
    "ReviewKD of a string": (lambda: ReviewKD("block1", ["block1"]), "must be a list .*'block1'"),
    "ReviewKD of none": (lambda: ReviewKD([], []), "`student_layers` must be a list"),
    "ReviewKD of tokens": (
        lambda: ready(ReviewKD(["tokens"], ["block1"])), r"student's .* got \(6, 7, 24\)"
    ),
    "OFA of none": (lambda: OFA([]), "`student_layers` must be a list"),
    "OFA, gamma": (lambda: OFA(gamma=0.0), "`gamma` must be finite and > 0, got 0.0"),
    "OFA, temperature": (lambda: OFA(temperature=-1.0), "`temperature` must be finite and > 0"),
    "OFA, width": (lambda: OFA(width=0), "`width` must be an integer >= 1, got 0"),
}  # fmt: skip


@pytest.mark.parametrize(("act", "message"), REFUSED.values(), ids=REFUSED)
def test_is_refused(act, message):
    with pytest.raises(ConfigError, match=message):
        act()


def test_ofa_needs_the_ground_truth():
    objective, student, teacher = ready(OFA(["vector"]))
    with pytest.raises(ConfigError, match="no target"):
        objective(student, teacher, Batch(None))
