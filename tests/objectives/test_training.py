"""Every objective, alone, pulls a student towards its teacher."""

import copy

import pytest
import torch
from torch import nn

from kdlit.objectives import DryRun
from objectives.every import CASES
from objectives.table import (
    Case,
    Ready,
    distilling,
    samples,
    trained_teacher,
)


def agreement(student: nn.Module, teacher: nn.Module, learns: str) -> float:
    """Return the share of new samples on which both decide alike."""
    batch = samples(512, seed=7)
    with torch.no_grad():
        decisions = teacher(batch.inputs).argmax(dim=1)
        if learns == "head":
            return (student(batch.inputs).argmax(dim=1) == decisions).float().mean().item()
        known = samples(512, seed=8)

        def features(inputs):
            found = nn.Sequential(*list(student)[:-1])(inputs).double()
            return torch.cat([found, torch.ones(len(found), 1, dtype=torch.float64)], dim=1)

        x, wanted = features(known.inputs), teacher(known.inputs).double()
        ridge = 1e-3 * torch.eye(x.shape[1], dtype=torch.float64)
        readout = torch.linalg.solve(x.T @ x + ridge, x.T @ wanted)
        return (features(batch.inputs) @ readout).argmax(dim=1).eq(decisions).float().mean().item()


def spoiled(teacher: nn.Module) -> nn.Module:
    """Return a copy with noise on all weights but the classifier's."""
    torch.manual_seed(2)
    student = copy.deepcopy(teacher).requires_grad_(True)
    with torch.no_grad():
        for name, parameter in student.named_parameters():
            if not name.startswith("classifier"):
                parameter += 1.5 * parameter.std() * torch.randn_like(parameter)
    return student


TEACHING = {name: case for name, case in CASES.items() if case.teaches}


@pytest.mark.parametrize("case", TEACHING.values(), ids=TEACHING)
def test_a_few_steps_raise_the_agreement(case: Case):
    teacher = trained_teacher()
    ready = Ready(case.make(), spoiled(teacher), teacher, case.samples(64))
    with torch.no_grad():
        run = DryRun(*ready.outputs(), ready.student, teacher)
    ready.objective.setup(run)
    ready.student = ready.objective.deployed(run)
    before = agreement(ready.student.eval(), teacher, case.learns)
    parts = [*ready.student.parameters(), *ready.objective.parameters()]
    optimizer = torch.optim.Adam([p for p in parts if p.requires_grad], lr=case.learning_rate)
    ready.student.train()
    for step in range(case.steps):
        batch = case.samples(256, seed=100 + step)
        optimizer.zero_grad()
        student, answer = ready.outputs(batch)
        terms = ready.objective(student, answer, batch)
        own = distilling(ready.objective) or list(terms)
        if case.taught_by_truth:
            terms = {n: ready.objective.weights[n] * term for n, term in terms.items()}
            own = list(terms)
        torch.stack([terms[name] for name in own]).sum().backward()
        optimizer.step()
        with torch.no_grad():
            ready.objective.after_step(student, answer, batch)
    after = agreement(ready.student.eval(), teacher, case.learns)
    assert before < 0.9, "there is nothing to learn"
    assert after > before + case.gain, (before, after)
