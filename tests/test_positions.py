"""Tokens as rows: the same as a batch of nothing but the tokens that count."""

import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from conftest import trainer
from kdlit import (
    CachedTeacher,
    DistillationModule,
    EMATeacher,
    EnsembleTeacher,
    Mixup,
    SoftLabels,
    SupervisedModule,
    Tokens,
    TruthLabels,
)
from kdlit.batch import Batch, Outputs
from kdlit.data import Indexed
from kdlit.errors import ConfigError, TeacherError
from kdlit.objectives import (
    CRD,
    DISTLabels,
    DKDLabels,
    Hint,
    MutualLearning,
    SimilarityPreserving,
    SimKD,
)

VOCABULARY, LENGTH, CLASSES = 11, 6, 4
SGD = partial(torch.optim.SGD, lr=0.05)


def tagger(width: int = 5, classes: int = CLASSES, seed: int = 0) -> nn.Module:
    """Return a network that answers each token by itself: (N, L) -> (N, L, C), (M,) -> (M, C)."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        first, last = nn.Linear(width, width), nn.Linear(width, classes)
        return nn.Sequential(nn.Embedding(VOCABULARY, width), first, nn.ReLU(), last)


def batches(count: int = 5, length: int = LENGTH) -> list[dict]:
    """Return batches of padded sequences; of each some positions count, in the third none."""
    generator = torch.Generator().manual_seed(3)
    found = []
    for number in range(count):
        ids = torch.randint(1, VOCABULARY, (4, length), generator=generator)
        lengths = torch.randint(1, length + 1, (4, 1), generator=generator)
        mask = torch.arange(length) < lengths
        label = torch.where(mask & (ids % 5 > 0), ids % CLASSES, -100)
        if number == 2:
            label = torch.full_like(label, -100)
        found.append({"ids": ids * mask, "labels": label})
    return found


def loader(data: list) -> DataLoader:
    return DataLoader(data, batch_size=None)


def unwatched():
    """Return a trainer without validation."""
    return trainer(limit_val_batches=0)


def flat(data: list[dict]) -> list[tuple]:
    """Return the same data, batch by batch, as tokens that are samples."""
    found = []
    for batch in data:
        pairs = [
            (int(token), int(label))
            for tokens, labels in zip(batch["ids"], batch["labels"], strict=True)
            for token, label in zip(tokens, labels, strict=True)
            if label != -100
        ]
        if pairs:
            found.append(tuple(torch.tensor(column) for column in zip(*pairs, strict=True)))
    return found


def close(one: nn.Module, two: nn.Module) -> bool:
    first, second = one.state_dict(), two.state_dict()
    return first.keys() == second.keys() and all(
        torch.allclose(first[name], second[name], atol=1e-6) for name in first
    )


def changed(one: nn.Module, two: nn.Module) -> bool:
    return any(
        not torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True)
    )


# Which positions ------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("shape", [(3, 7), (2, 3, 4)])
@pytest.mark.parametrize("ignore_index", [-100, 0])
def test_rows_are_those_of_a_loop(shape, shift, ignore_index):
    target = torch.randint(0, 4, shape)
    target[torch.rand(shape) < 0.3] = ignore_index
    logits, feature = torch.randn(*shape, 5), torch.randn(*shape, 2, 3)
    pooled = torch.randn(shape[0], 7)
    expected = []
    for place in torch.cartesian_prod(*map(torch.arange, shape)).tolist():
        following = [*place[:-1], place[-1] + shift]
        if following[-1] < shape[-1] and target[tuple(following)] != ignore_index:
            expected.append((tuple(place), int(target[tuple(following)])))
    batch = Tokens(ignore_index, shift)(Batch(None, target))
    found = batch.rows.of(Outputs(logits, {"layer": feature, "pooled": pooled}))
    assert batch.target.tolist() == [label for _, label in expected]
    assert torch.equal(found.logits, torch.stack([logits[place] for place, _ in expected]))
    assert torch.equal(
        found.features["layer"], torch.stack([feature[place] for place, _ in expected])
    )
    assert found.features["pooled"] is pooled


def test_without_a_target_the_mask_tells_and_padding_may_be_on_either_side():
    mask = torch.tensor([[1, 1, 1, 0], [0, 0, 1, 1]])
    inputs = {"x": mask, "attention_mask": mask}
    logits = torch.arange(8.0).reshape(2, 4, 1)
    for shift, expected in ((False, [0, 1, 2, 6, 7]), (True, [0, 1, 6])):
        batch = Tokens(shift=shift)(Batch(inputs))
        assert batch.target is None
        assert batch.rows.of(Outputs(logits)).logits.flatten().tolist() == expected


# The same as tokens that are samples ----------------------------------------------------------


PARTS = {
    "soft": dict,
    "dkd": lambda: {"label": DKDLabels(warmup_steps=2)},
    "batches": lambda: {"label": DISTLabels()},
    "hidden": lambda: {
        "features": {"hint": Hint("2", "2", 1.0), "alike": SimilarityPreserving("2", "2", 1.0)}
    },
    "peers": lambda: {"label": TruthLabels(), "features": {"m": MutualLearning([tagger(3)])}},
    "ensemble": lambda: {"teacher": EnsembleTeacher([tagger(8, seed=1), tagger(7, seed=2)])},
    "average": lambda: {"teacher": EMATeacher(0.9)},
}


def distilled(data: list, parts, **options):
    torch.manual_seed(5)
    given = {"teacher": tagger(8, seed=1), "optimizer": SGD, **parts()}
    module = DistillationModule(tagger(), **given, **options)
    fit = trainer(max_epochs=2)
    fit.fit(module, loader(data), loader(data))
    return module, fit


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_students_and_metrics_are_those_of_samples(parts):
    # Without the batch of which there is nothing: an average counts its step.
    data = [batch for batch in batches(6) if (batch["labels"] != -100).any()]
    tokens, fit_tokens = distilled(data, parts, positions=Tokens())
    samples, fit_samples = distilled(flat(data), parts)
    assert changed(tokens.student, tagger())
    assert close(tokens, samples)
    one, two = fit_tokens.callback_metrics, fit_samples.callback_metrics
    assert one.keys() == two.keys()
    assert {"val/accuracy", "val/ece", "val/kl_from_teacher", "train/accuracy"} <= set(one)
    for name in one:
        assert one[name].item() == pytest.approx(two[name].item(), abs=1e-5), name


def test_the_mean_is_over_positions():
    """Of a loop over all of them, with a student that does not learn."""
    data, student, teacher = batches(), tagger(), tagger(8, seed=1)
    module = DistillationModule(
        student, teacher, SoftLabels(3.0, 1.0), partial(SGD, lr=0.0), positions=Tokens()
    )
    fit = trainer()
    fit.fit(module, loader(data), loader(data))
    losses, hits = [], []
    for ids, labels in ((batch["ids"], batch["labels"]) for batch in data):
        for token, label in zip(ids.flatten(), labels.flatten(), strict=True):
            if label != -100:
                z, t = (net(token).tolist() for net in (student, teacher))
                q, p = ([math.exp(v / 3) for v in said] for said in (z, t))
                q, p = ([v / sum(said) for v in said] for said in (q, p))
                losses.append(9 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
                hits.append(max(range(CLASSES), key=z.__getitem__) == label)
    found = fit.callback_metrics
    assert found["train/loss_epoch"].item() == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert found["val/accuracy"].item() == pytest.approx(sum(hits) / len(hits))


def test_a_mask_serves_where_there_are_no_labels():
    class Masked(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, ids, attention_mask):
            return self.net(ids)

    def student(data):
        module = DistillationModule(
            Masked(tagger()), Masked(tagger(8, seed=1)), SoftLabels(alpha=1.0), SGD,
            positions=Tokens(),
        )  # fmt: skip
        unwatched().fit(module, loader(data), loader(data))
        return module.student

    masked = [{"ids": b["ids"], "attention_mask": (b["labels"] != -100).int()} for b in batches()]
    labelled = [{**one, "labels": b["labels"]} for one, b in zip(masked, batches(), strict=True)]
    assert close(student(masked), student(labelled))


def test_steps_are_taken_of_whole_sequences():
    def student(step_size, data):
        module = DistillationModule(
            tagger(), tagger(8, seed=1), SoftLabels(), SGD, step_size=step_size, positions=Tokens()
        )
        fit = trainer(max_epochs=2)
        fit.fit(module, loader(data), loader(data))
        return module.student, fit.callback_metrics

    data = batches()
    joined = {name: torch.cat([batch[name] for batch in data]) for name in data[0]}
    (one, few), (two, many) = student(None, data), student(4, [joined])
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert few["train/loss_epoch"] == many["train/loss_epoch"]


def test_a_teacher_is_trained_on_tokens_and_predicts_each():
    data = batches()
    module = SupervisedModule(tagger(), partial(torch.optim.Adam, lr=0.1), positions=Tokens())
    fit = trainer(max_epochs=40)
    fit.fit(module, loader(data), loader(data))
    assert fit.callback_metrics["val/accuracy"] > 0.9
    (found,) = fit.predict(module, loader(data[:1]))
    assert found.shape == (4, LENGTH, CLASSES)
    assert torch.allclose(found, module(data[0]["ids"]).softmax(dim=-1))


# Where nothing counts -------------------------------------------------------------------------


@pytest.mark.parametrize("label", [SoftLabels(), DISTLabels(), TruthLabels()])
def test_a_batch_in_which_nothing_counts_changes_nothing_and_is_not_nan(label):
    nothing = [batches()[2]]
    module = DistillationModule(
        tagger(), tagger(8, seed=1), label, SGD, features={"hint": Hint("2", "2", 1.0)},
        positions=Tokens(),
    )  # fmt: skip
    grads = []
    module.on_after_backward = lambda: grads.extend(p.grad for p in module.parameters())
    unwatched().fit(module, loader(nothing), loader(nothing))
    assert len(grads) == len(list(module.parameters())) > len(list(tagger().parameters()))
    assert all(torch.equal(grad, torch.zeros_like(grad)) for grad in grads)
    assert not changed(module.student, tagger())


def test_data_in_which_nothing_counts_cannot_be_measured():
    module = SupervisedModule(tagger(), positions=Tokens())
    with pytest.raises(ConfigError, match=r"in the data of test/ no position counts"):
        trainer().test(module, loader([batches()[2]]), verbose=False)


# Kept outputs ---------------------------------------------------------------------------------


class Numbered:
    """Padded sequences with their numbers."""

    def __init__(self, lengths=(LENGTH,)):
        joined = [batches(6, length) for length in lengths]
        self.samples = [
            {"ids": batch["ids"][row], "labels": batch["labels"][row]}
            for data in joined
            for batch in data
            for row in range(4)
        ]

    def loader(self, batch_size: int = 6) -> DataLoader:
        return DataLoader(Indexed(self.samples), batch_size=batch_size)


def kept(folder, data, teacher=None, **options):
    torch.manual_seed(5)
    module = DistillationModule(
        tagger(), teacher or CachedTeacher(tagger(8, seed=1), folder, **options), SoftLabels(), SGD,
        features={"hint": Hint("2", "2", 1.0)}, positions=Tokens(),
    )  # fmt: skip
    trainer(max_epochs=2).fit(module, data.loader(), data.loader())
    return module


def test_kept_outputs_of_tokens_are_the_teachers(tmp_path):
    live = kept(tmp_path, Numbered(), tagger(8, seed=1))
    cached = kept(tmp_path, Numbered(), batch_size=7)
    assert cached.teacher.tables["train"].outputs(torch.tensor([3]), 0).logits.shape == (
        1, LENGTH, CLASSES,
    )  # fmt: skip
    assert close(live, cached)
    everything = kept(tmp_path, Numbered(), top_k=CLASSES - 1, batch_size=7)
    assert close(live, everything)  # the one class that is left has all the rest


def test_samples_of_several_lengths_cannot_be_kept(tmp_path):
    class ByLength(Numbered):
        def loader(self):
            return super().loader(4)

    with pytest.raises(TeacherError, match=r"shape \(7, 4\), and .* \(6, 4\).* must have one leng"):
        kept(tmp_path, ByLength((6, 7)), batch_size=4)


# Errors ---------------------------------------------------------------------------------------


def fitted(student, teacher, data=None, positions=None, **parts):
    module = DistillationModule(student, teacher, optimizer=SGD, positions=positions, **parts)
    data = loader(data or batches())
    unwatched().fit(module, data, data)


class Turned(nn.Sequential):
    def forward(self, ids):
        return super().forward(ids).movedim(-1, 1)


@pytest.mark.parametrize(
    ("run", "error", "message"),
    [
        (lambda: fitted(tagger(), tagger(8)), ConfigError, r"got \(4, 6, 4\): .*=Tokens\(\)"),
        (
            lambda: fitted(tagger(), tagger(8, classes=9), positions=Tokens()),
            TeacherError,
            r"student has 4 classes and the teacher 9: .* one vocabulary",
        ),
        (
            lambda: fitted(Turned(tagger()), tagger(8), positions=Tokens()),
            ConfigError,
            r"shape \(4, 6\) do not fit logits of shape \(4, 4, 6\).* classes in the last",
        ),
        (
            lambda: fitted(tagger(), tagger(8), flat(batches()), Tokens()),
            ConfigError,
            r"class indices of shape \(N, L\), got torch.int64 .* leave `positions` out",
        ),
        (
            lambda: fitted(tagger(), tagger(8), [(batches()[0]["ids"],)], Tokens()),
            ConfigError,
            "neither a target nor 'attention_mask'",
        ),
        (
            lambda: fitted(
                tagger(), tagger(8), positions=Tokens(), mix=Mixup(), label=SoftLabels(alpha=1.0)
            ),
            ConfigError,
            r"Mixup\(alpha=1\) mixes samples",
        ),
        (
            lambda: fitted(tagger(), tagger(8), positions=Tokens(), features={"c": CRD(24, 4)}),
            ConfigError,
            "CRD remembers samples by their number",
        ),
        (
            lambda: fitted(tagger(), tagger(8), positions=Tokens(), features={"s": SimKD()}),
            ConfigError,
            "SimKD ships another network",
        ),
        (lambda: fitted(tagger(), tagger(8), positions=True), ConfigError, "`positions` must"),
        (lambda: Tokens(shift=1), ConfigError, "`shift` must be true or false, got 1"),
        (lambda: Tokens(ignore_index="pad"), ConfigError, "`ignore_index` .* got 'pad'"),
    ],
)  # fmt: skip
def test_says_what_does_not_fit(run, error, message):
    with pytest.raises(error, match=message):
        run()


def test_a_step_of_samples_is_not_touched():
    batch = Batch(torch.zeros(2, 3), torch.tensor([0, 1]))
    module = DistillationModule(nn.Linear(3, 2), nn.Linear(3, 2))
    assert module.with_rows(batch) is batch
    data = DataLoader(TensorDataset(torch.zeros(4, 3), torch.zeros(4, 2).long()), batch_size=2)
    with pytest.raises(ConfigError, match=r"got \(2, 2\) for logits \(2, 2\).*MultilabelSoftLab"):
        unwatched().fit(module, data, data)
