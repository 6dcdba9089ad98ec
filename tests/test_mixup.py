from functools import partial

import pytest
import torch
from torch.utils.data import DataLoader

from conftest import PlainData, network, trainer
from kdlit import DistillationModule, SoftLabels, TruthLabels
from kdlit.batch import Batch
from kdlit.errors import ConfigError
from kdlit.mixup import Mixup, NoMix
from kdlit.reproducibility import ReseedEachEpoch

SGD = partial(torch.optim.SGD, lr=0.1)
MATCH = partial(SoftLabels, 1.0, 1.0)


class Quiet(PlainData):
    """Loaders that do not draw from the global generator, as those of kdlit do not."""

    def _loader(self) -> DataLoader:
        return DataLoader(self.data, batch_size=self.batch_size, generator=torch.Generator())

    train_dataloader = val_dataloader = _loader


def module_of(mix, label=None, seed: int = 1) -> DistillationModule:
    torch.manual_seed(0)
    teacher = network()
    torch.manual_seed(seed)
    return DistillationModule(network(), teacher, label or MATCH(), SGD, mix=mix)


def test_every_sample_is_blended_with_one_of_its_batch_by_one_ratio():
    inputs = torch.eye(16)
    mixed = Mixup()(Batch(inputs, torch.arange(16), torch.arange(100, 116)))
    assert mixed.target is None
    assert torch.equal(mixed.index, torch.arange(100, 116))
    assert torch.equal(inputs, torch.eye(16))
    # Rows of the identity: what is not on the diagonal is the other sample's share.
    own = mixed.inputs.diagonal()
    moved = own < 1
    ratio = own[moved][0]
    assert torch.allclose(own[moved], ratio)
    others = mixed.inputs - torch.diag(own)
    assert torch.allclose(others.sum(dim=1)[moved], 1 - ratio)
    assert (others.count_nonzero(dim=1) <= 1).all()
    assert (others.count_nonzero(dim=0) <= 1).all()  # each is somebody's other once


def test_ratios_follow_the_beta_distribution():
    batch = Batch(torch.tensor([[0.0], [1.0]]))

    def ratios(alpha):
        mix = Mixup(alpha)
        values = torch.stack([mix(batch).inputs[1, 0] for _ in range(2000)])
        return values[values < 1]  # not those blended with themselves

    uniform, extreme = ratios(1.0), ratios(0.2)
    assert uniform.mean().item() == pytest.approx(0.5, abs=0.05)
    assert uniform.var().item() == pytest.approx(1 / 12, rel=0.1)
    assert extreme.var().item() == pytest.approx(1 / (4 * (2 * 0.2 + 1)), rel=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_type_stays(dtype):
    assert Mixup()(Batch(torch.rand(4, 2).to(dtype))).inputs.dtype == dtype


def test_both_networks_see_the_same_blend_in_training_and_none_in_evaluation():
    module = module_of(Mixup())
    views = {"student": [], "teacher": []}
    for name, net in (("student", module.student), ("teacher", module.teacher.network)):
        net.register_forward_pre_hook(
            lambda net, args, name=name: views[name].append(args[0].clone())
        )
    fit = trainer(limit_train_batches=1, num_sanity_val_steps=0)
    fit.fit(module, PlainData())
    (own, theirs), data = (views["student"][:1], views["teacher"][:1]), PlainData()
    assert torch.equal(own[0], theirs[0])
    first = next(iter(data.train_dataloader()))[0]
    assert not torch.equal(own[0], first)
    assert torch.equal(views["student"][1], first)  # validation


def test_a_student_learns_its_teacher_from_blends_alone():
    module = module_of(Mixup())
    fit = trainer(max_epochs=20)
    first = fit.validate(module, PlainData(), verbose=False)[0]["val/kl_from_teacher"]
    fit.fit(module, PlainData())
    assert fit.validate(module, PlainData(), verbose=False)[0]["val/kl_from_teacher"] < first / 2


@pytest.mark.parametrize("label", [SoftLabels(), TruthLabels()])
def test_what_reads_the_ground_truth_is_refused(label):
    with pytest.raises(ConfigError, match=r"no target .* use alpha=1"):
        trainer().fit(module_of(Mixup(), label), PlainData())


def test_no_mix_changes_nothing():
    one, two = module_of(NoMix()), module_of(None)
    for module in (one, two):
        trainer().fit(module, PlainData())
    states = one.state_dict(), two.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_resumed_in_the_middle_is_the_uninterrupted_run_to_the_bit(tmp_path):
    def fit(module, epochs, **options):
        found = trainer(max_epochs=epochs, callbacks=[ReseedEachEpoch(3)])
        found.fit(module, Quiet(), **options)
        return found

    whole, rest = module_of(Mixup()), module_of(Mixup(), seed=9)
    fit(whole, 2)
    fit(module_of(Mixup()), 1).save_checkpoint(tmp_path / "half.ckpt")
    torch.manual_seed(77)
    fit(rest, 2, ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    one, two = whole.state_dict(), rest.state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    ("inputs", "found"),
    [
        ({"pixels": torch.zeros(2, 3), "mask": torch.ones(2)}, "a mapping of pixels, mask"),
        (torch.zeros(2, 3, dtype=torch.long), "torch.int64"),
        ([1, 2], "list"),
    ],
)
def test_inputs_that_cannot_be_blended(inputs, found):
    with pytest.raises(ConfigError, match=rf"floating-point tensor.* got {found}: .*mix=none"):
        Mixup()(Batch(inputs))


def test_a_ratio_that_cannot_be():
    with pytest.raises(ConfigError, match="alpha"):
        Mixup(0.0)
