"""What a row of the table of objectives says, and the tiny networks that rows are made for.

There is one row for each public objective, and every test of objectives runs over all rows. A row
says how to make the objective, what an independent implementation makes of the same outputs, and
which properties the objective has. Rows of a family stand in `cases/<family>.py` as `CASES`.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor, nn

from kdlit import Objective
from kdlit.batch import Batch, Outputs
from kdlit.objectives import DryRun
from kdlit.schedules import weight_at
from kdlit.taps import Taps

CLASSES = 5

Terms = Mapping[str, Tensor]


@dataclass(frozen=True)
class Case:
    """What is known of an objective.

    Attributes:
        make: makes it, with layers of :class:`Tiny`.
        reference: the terms by an independent implementation, given the objective (for its
            hyperparameters and trained parts) and what it is given.
        zero_when_equal: the terms that vanish where student and teacher say the same.
        signed: the terms that may be negative, as the paper defines them.
        shift_invariant: whether adding a constant to all logits of a sample changes nothing.
        learns: what :func:`test_training` measures: `head` (the student's own decisions), or
            `readout` (a linear readout of its penultimate features, for objectives that leave the
            student free to turn its features).
        learning_rate: of that test.
        steps: of that test.
        gain: by how much agreement must rise there.
        equal_networks: whether the objective only makes sense between networks of one shape.
        gradcheck: whether terms are smooth enough to be checked against finite differences.
        target: makes the ground truth of the objective's task from class indices.
        taught_by_truth: whether that test trains on the weighted sum of all terms, not on those
            but `truth`: for objectives that learn from the truth alone and spread it.
        teaches: whether the objective alone brings a student to decide as its teacher; what is
            there beside a label strategy does not.
        student: makes the student, where it must have layers of its own kind.
    """

    make: Callable[[], Objective]
    reference: Callable[[Objective, Outputs, Outputs, Batch], Terms]
    zero_when_equal: tuple[str, ...] = ()
    signed: tuple[str, ...] = ()
    shift_invariant: bool = True
    learns: str = "head"
    learning_rate: float = 0.01
    steps: int = 20
    gain: float = 0.15
    equal_networks: bool = False
    gradcheck: bool = True
    target: Callable[[Tensor], Tensor] = lambda classes: classes
    taught_by_truth: bool = False
    teaches: bool = True
    student: Callable[[], nn.Module] = lambda: Tiny()

    def samples(self, count: int, seed: int = 0) -> Batch:
        """Return :func:`samples` with this objective's ground truth."""
        batch = samples(count, seed)
        return replace(batch, target=self.target(batch.target))


class Tiny(nn.Sequential):
    """Layers `block1` (N, a, 8, 8), `block2` (N, b, 4, 4), `hidden` (N, c), `classifier`."""

    def __init__(self, a: int = 4, b: int = 6, c: int = 12) -> None:
        super().__init__()
        self.block1 = nn.Sequential(nn.Conv2d(1, a, 3, padding=1), nn.ReLU())
        self.block2 = nn.Sequential(
            nn.Conv2d(a, b, 3, stride=2, padding=1), nn.BatchNorm2d(b), nn.ReLU()
        )
        self.flatten = nn.Flatten()
        self.hidden = nn.Sequential(nn.Linear(16 * b, c), nn.ReLU())
        self.classifier = nn.Linear(c, CLASSES)


def samples(count: int, seed: int = 0) -> Batch:
    """Return images (N, 1, 8, 8) of five patterns in noise, their classes and their indices.

    A pattern or its negative: no linear function of the pixels tells the classes apart.
    """
    patterns = torch.randn(CLASSES, 1, 8, 8, generator=torch.Generator().manual_seed(99))
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(CLASSES, (count,), generator=generator)
    sign = 2.0 * torch.randint(2, (count, 1, 1, 1), generator=generator) - 1
    noise = torch.randn(count, 1, 8, 8, generator=generator)
    return Batch(sign * patterns[target] + noise, target, torch.arange(count))


@cache
def _trained() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        teacher, batch = Tiny(6, 8, 16), samples(256, seed=5)
        optimizer = torch.optim.Adam(teacher.parameters(), lr=0.01)
        for _ in range(100):
            optimizer.zero_grad()
            nn.functional.cross_entropy(teacher(batch.inputs), batch.target).backward()
            optimizer.step()
    return teacher.eval().requires_grad_(False)


def trained_teacher() -> nn.Module:
    """Return a network that knows the five patterns."""
    return copy.deepcopy(_trained())


@dataclass
class Ready:
    """An objective that is set up, with the networks and what they say of a batch."""

    objective: Objective
    student: nn.Module
    teacher: nn.Module
    batch: Batch

    def outputs(self, batch: Batch | None = None) -> tuple[Outputs, Outputs]:
        batch = self.batch if batch is None else batch
        found = []
        for network, layers in (
            (self.student, self.objective.student_layers),
            (self.teacher, self.objective.teacher_layers),
        ):
            taps = Taps(network, layers)
            found.append(taps.run(batch))
            taps.close()
        return found[0], found[1]

    def terms(self, batch: Batch | None = None) -> Terms:
        batch = self.batch if batch is None else batch
        student, teacher = self.outputs(batch)
        return self.objective(student, teacher, batch)

    def total(self, batch: Batch | None = None, step: int = 0) -> Tensor:
        weights = self.objective.weights
        return sum(weight_at(weights[n], step) * term for n, term in self.terms(batch).items())


def prepare(case: Case, *, equal: bool = False, count: int = 8) -> Ready:
    """Set an objective up for a student (the teacher's copy if `equal`) and a trained teacher."""
    torch.manual_seed(0)
    teacher = trained_teacher()
    student = copy.deepcopy(teacher) if equal or case.equal_networks else case.student()
    student.requires_grad_(True)
    batch = samples(count)
    # Some labels are wrong, so that the teacher's decision is not always the truth.
    wrong = (batch.target + (torch.arange(count) % 3 == 0)) % CLASSES
    ready = Ready(case.make(), student.eval(), teacher, replace(batch, target=case.target(wrong)))
    run = DryRun(*ready.outputs(), ready.student, ready.teacher)
    ready.objective.setup(run)
    ready.student = ready.objective.deployed(run)
    return ready


def distilling(objective: Objective) -> list[str]:
    """Return the names of the terms in which a student learns from something but the truth."""
    return [name for name in objective.weights if name != "truth"]
