"""CRD's memory: what is in it, that it goes on where it was, and what it refuses."""

from dataclasses import replace

import lightning.pytorch as pl
import pytest
import torch
from torch.nn.functional import normalize

from conftest import trainer
from kdlit import DistillationModule, TruthLabels
from kdlit.batch import Batch
from kdlit.errors import ConfigError
from kdlit.objectives import CRD
from objectives.cases.crd import torchdistill_crd
from objectives.table import Case, Ready, Tiny, prepare, samples, trained_teacher
from objectives.test_runs import Images


def ready(**settings) -> Ready:
    options = {"samples": 40, "negatives": 6, "feature_dim": 5} | settings
    return prepare(Case(lambda: CRD(**options), torchdistill_crd))


def batch_of(*index: int) -> Batch:
    batch = samples(len(index), seed=sum(index))
    return Batch(batch.inputs, batch.target, torch.tensor(index))


def step(found: Ready, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Act after a batch, and return its embeddings."""
    outputs = found.outputs(batch)
    with torch.no_grad():
        embedded = found.objective._embedded(*outputs)
        found.objective.after_step(*outputs, batch)
    return embedded


def test_forward_leaves_everything_as_it_is():
    found = ready()
    step(found, batch_of(3, 1))
    before = {name: value.clone() for name, value in found.objective.state_dict().items()}
    one, two = found.terms()["crd"], found.terms()["crd"]
    assert torch.equal(one, two)
    after = found.objective.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@torch.no_grad()
def test_parity_with_a_memory_that_was_used():
    found = ready()
    for index in ([0, 1, 2, 3], [4, 5, 6, 7], [2, 3, 4, 9]):
        step(found, batch_of(*index))
    # torchdistill knows no classes.
    batch = replace(batch_of(1, 2, 30, 31), target=None)
    expected = torchdistill_crd(found.objective, *found.outputs(batch), batch)
    assert found.terms(batch)["crd"].item() == pytest.approx(expected["crd"].item(), rel=1e-5)


def test_an_entry_moves_from_its_first_embedding_towards_the_next():
    found = ready(momentum=0.75)
    untouched = found.objective.teacher_memory[9].clone()
    first = step(found, batch_of(3, 7))
    memories = (found.objective.student_memory, found.objective.teacher_memory)
    for memory, embedding in zip(memories, first, strict=True):
        assert torch.allclose(memory[[3, 7]], embedding, atol=1e-6)
    again = step(found, batch_of(7, 8))
    for memory, old, new in zip(memories, first, again, strict=True):
        moved = normalize(0.75 * old[1] + 0.25 * new[0], dim=0)
        assert torch.allclose(memory[7], moved, atol=1e-6)
        assert torch.allclose(memory[8], new[1], atol=1e-6)
        assert torch.allclose(memory[3], old[0], atol=1e-6)
    assert torch.equal(found.objective.teacher_memory[9], untouched)


def test_of_a_sample_that_comes_twice_in_a_batch_the_first_counts():
    found = ready()
    ours, _ = step(found, batch_of(5, 5, 6))
    assert torch.allclose(found.objective.student_memory[[5, 6]], ours[[0, 2]], atol=1e-6)
    assert found.objective.count == 2


def test_the_first_batch_gives_the_normalisation_and_no_later_one():
    found = ready()
    batch = batch_of(0, 1, 2)
    with torch.no_grad():
        scores = found.objective._scores(
            *found.objective._embedded(*found.outputs(batch)),
            found.objective.negatives_of(batch.index),
        )
    step(found, batch)
    expected = torch.stack([side.exp().mean().log() for side in scores])
    assert torch.allclose(found.objective.log_means, expected, atol=1e-5)
    step(found, batch_of(4, 5, 6))
    assert torch.allclose(found.objective.log_means, expected, atol=1e-5)


def test_negatives_are_other_samples_all_that_were_met_and_none_that_were_not():
    objective = CRD(40, negatives=39)
    found = prepare(Case(lambda: objective, torchdistill_crd))
    everything = torch.arange(40)
    drawn = objective.negatives_of(everything)
    assert (drawn != everything[:, None]).all()
    assert set(drawn.flatten().tolist()) == set(range(40))
    met = [3, 7, 20, 21, 30]
    step(found, batch_of(*met))
    drawn = objective.negatives_of(everything)
    assert (drawn != everything[:, None]).all()
    for index, row in enumerate(drawn.tolist()):
        assert set(row) == set(met) - {index}


@torch.no_grad()
def test_samples_of_the_anchors_class_are_not_its_negatives():
    """The same loss as of the other classes' samples alone."""
    found = ready(negatives=12)
    objective = found.objective
    for _ in range(2):
        step(found, batch_of(*range(20)))
    batch = batch_of(0, 1, 2, 3)
    classes = batch_of(*range(20)).target
    assert torch.equal(objective.classes[:20], classes)
    ours, theirs = objective._embedded(*found.outputs(batch))
    total = torch.zeros(())
    for row, others in enumerate(objective.negatives_of(batch.index)):
        others = others[classes[others] != batch.target[row]]
        assert 0 < len(others) < 12
        for (mine, positive), memory, mean in zip(
            ((ours[row], theirs[row]), (theirs[row], ours[row])),
            (objective.teacher_memory, objective.student_memory),
            objective.log_means.exp(),
            strict=True,
        ):
            e = torch.exp(torch.stack([positive, *memory[others]]) @ mine / 0.07)
            h = e / (e + len(others) * mean)
            total -= (h[0].log() + (1 - h[1:]).log().sum()) / 4
    assert found.terms(batch)["crd"].item() == pytest.approx(total.item(), rel=1e-4)


def test_negatives_depend_on_seed_step_and_sample_alone():
    one, same, other = ready(seed=1), ready(seed=1), ready(seed=2)
    index = torch.arange(40)
    first = one.objective.negatives_of(index)
    assert torch.equal(first, same.objective.negatives_of(index))
    assert torch.equal(first.flip(0), same.objective.negatives_of(index.flip(0)))
    assert not torch.equal(first, other.objective.negatives_of(index))
    for found in (one, same):
        step(found, batch_of(*range(40)))
    second = one.objective.negatives_of(index)
    assert not torch.equal(first, second)
    step(one, batch_of(*range(40)))
    assert not torch.equal(second, one.objective.negatives_of(index))


def test_the_checkpoint_has_the_memory(tmp_path):
    def module() -> DistillationModule:
        crd = CRD(48, negatives=8, feature_dim=4)
        return DistillationModule(
            Tiny(), trained_teacher(), TruthLabels(), features={"contrast": crd}
        )

    whole = module()
    fit = trainer()
    fit.fit(whole, Images())
    fit.save_checkpoint(tmp_path / "run.ckpt")
    state = torch.load(tmp_path / "run.ckpt", weights_only=True)["state_dict"]
    for name in (
        "student_memory",
        "teacher_memory",
        "met",
        "place",
        "classes",
        "log_means",
    ):
        found = state[f"features.contrast.{name}"]
        assert torch.equal(found, whole.state_dict()[f"features.contrast.{name}"])
    assert state["features.contrast.count"] == 48
    assert state["features.contrast.steps"] == 6


class WithoutIndex(Images):
    def on_after_batch_transfer(self, batch, dataloader_idx):
        return batch[:2]


class FarIndex(Images):
    def on_after_batch_transfer(self, batch, dataloader_idx):
        return [*batch[:2], batch[2] - 20]


@pytest.mark.parametrize(
    ("data", "size", "message"),
    [
        (WithoutIndex(), 48, "needs each sample's index"),
        (Images(), 30, r"30 entries \(`samples`\), and the batch has the index 31"),
        (FarIndex(), 48, "the index -20"),
    ],
)
def test_refuses_samples_that_the_memory_has_no_place_for(
    data: pl.LightningDataModule, size, message
):
    module = DistillationModule(
        Tiny(),
        trained_teacher(),
        TruthLabels(),
        features={"crd": CRD(size, negatives=8, feature_dim=4)},
    )
    with pytest.raises(ConfigError, match=message):
        trainer().fit(module, data)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"samples": 100, "negatives": 100}, "smaller than `samples`, got 100 of 100"),
        ({"samples": 1}, "`samples` must be an integer >= 2, got 1"),
        ({"samples": 9, "negatives": 0}, "`negatives` must be an integer >= 1, got 0"),
        ({"samples": 9, "negatives": 2, "momentum": 1.0}, r"`momentum` .* got 1\.0"),
        ({"samples": 9, "negatives": 2, "temperature": 0}, "`temperature` .* got 0"),
        ({"samples": 9, "negatives": 2, "feature_dim": 0}, "`feature_dim` .* got 0"),
        ({"samples": 9, "negatives": 2, "weight": -1}, "`weight` .* got -1"),
        ({"samples": 9, "negatives": 2, "seed": -1}, "`seed` .* got -1"),
    ],
)
def test_refuses_bad_arguments_with_their_value(settings, message):
    with pytest.raises(ConfigError, match=message):
        CRD(**settings)
