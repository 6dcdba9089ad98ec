import torch
from torch import nn

from conftest import network
from kdlit.batch import Batch
from kdlit.teachers import FrozenTeacher, as_source


def test_a_later_train_does_not_undo_evaluation_mode():
    teacher = FrozenTeacher(network(dropout=0.5))
    outer = nn.ModuleDict({"teacher": teacher})
    outer.train()
    assert not any(module.training for module in teacher.modules())
    batch = Batch(torch.randn(16, 6))
    assert torch.equal(teacher(batch).logits, teacher(batch).logits)


def test_no_gradients_and_no_drift_of_statistics():
    net = network()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    teacher = FrozenTeacher(net)
    logits = teacher(Batch(torch.randn(16, 6, requires_grad=True))).logits
    assert not logits.requires_grad
    assert not logits.is_inference()  # a loss may save it for backward
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_a_source_stays_what_it_is():
    teacher = FrozenTeacher(network())
    assert as_source(teacher) is teacher
    assert isinstance(as_source(network()), FrozenTeacher)
