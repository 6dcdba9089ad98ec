"""How the module prepares its objectives."""

from functools import partial

import torch
from torch import nn

from conftest import trainer
from kdlit import DistillationModule, TruthLabels
from kdlit.objectives import DryRun, Hint, Objective
from objectives.table import Tiny, trained_teacher
from objectives.test_runs import Images


class Watching(Objective):
    """Keeps what it was given, and looks only at the teacher."""

    teacher_layers = ("block1.0",)

    def __init__(self) -> None:
        super().__init__()
        self.weights, self.lowest = {"watch": 1.0}, []

    def setup(self, run: DryRun) -> None:
        self.run = run

    def forward(self, student, teacher, batch):
        self.lowest.append(teacher.features["block1.0"].min().item())
        return {"watch": student.logits.square().mean()}


def in_place(network: Tiny) -> Tiny:
    network.block1[1] = nn.ReLU(inplace=True)
    return network


def test_what_an_in_place_operation_behind_a_layer_would_spoil_is_copied_in_training():
    watching = Watching()
    module = DistillationModule(
        in_place(Tiny()),
        in_place(trained_teacher()),
        TruthLabels(),
        partial(torch.optim.SGD, lr=0.0),
        features={"watch": watching, "hint": Hint("block1.0", "block1.0")},
    )
    trainer().fit(module, Images())
    assert max(watching.lowest) < 0


def test_the_dry_run_does_not_change_the_student():
    student = Tiny()
    before = {name: value.clone() for name, value in student.state_dict().items()}
    watching = Watching()
    module = DistillationModule(
        student, trained_teacher(), TruthLabels(), features={"watch": watching}
    )
    trainer(limit_train_batches=0).fit(module, Images())
    assert all(torch.equal(before[name], value) for name, value in student.state_dict().items())
    assert student.training
    assert watching.run
    assert watching.lowest == []
