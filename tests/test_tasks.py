"""Students of several labels and of numbers: what is learned, measured and predicted."""

import math
from functools import partial

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from conftest import PlainData, network, trainer
from kdlit import (
    CachedTeacher,
    DistillationModule,
    EnsembleTeacher,
    SoftLabels,
    SupervisedModule,
    Tokens,
)
from kdlit.errors import ConfigError, NonFiniteError
from kdlit.objectives import (
    OFA,
    BoundedRegressionLabels,
    MultilabelSoftLabels,
    NoLabels,
    RegressionLabels,
    SimilarityPreserving,
)
from kdlit.tasks import Multiclass, Multilabel, Regression

ADAM = partial(torch.optim.Adam, lr=0.05)


class Data(PlainData):
    """Six numbers a sample: which of three are positive, or a weighted sum of them."""

    def __init__(self, kind: str, samples: int = 50, batch_size: int = 16) -> None:
        super().__init__(samples, batch_size)
        x = self.data.tensors[0]
        found = {
            "labels": (x[:, :3] > 0.3).float(),
            "number": 3 * x[:, 0] - x[:, 1] + 20,
            "numbers": torch.stack([x[:, 0] + 1, x[:, 1] * x[:, 2]], dim=1),
        }
        self.data = TensorDataset(x, found[kind])


def answers(net: nn.Module, data: Data) -> list[list[float]]:
    with torch.no_grad():
        return net.eval()(data.data.tensors[0]).double().tolist()


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)


# Metrics, against loops ------------------------------------------------------------------------


def f1(hits: list[tuple[bool, bool]]) -> float:
    true = sum(said and there for said, there in hits)
    wrong = sum(said != there for said, there in hits)
    return 2 * true / (2 * true + wrong)


def average_precision(scores: list[float], there: list[bool]) -> float:
    order = sorted(range(len(scores)), key=lambda n: -scores[n])
    found = [there[n] for n in order]
    return mean(sum(found[: rank + 1]) / (rank + 1) for rank in range(len(found)) if found[rank])


def naive_multilabel(z, target) -> dict[str, float]:
    said = [[value > 0 for value in row] for row in z]
    pairs = [list(zip(a, b, strict=True)) for a, b in zip(said, target, strict=True)]
    columns = list(zip(*pairs, strict=True))
    logits, truth = (list(zip(*rows, strict=True)) for rows in (z, target))
    return {
        "bce": -mean(
            math.log(sigmoid(a) if b else sigmoid(-a))
            for row, labels in zip(z, target, strict=True)
            for a, b in zip(row, labels, strict=True)
        ),
        "f1_micro": f1([pair for row in pairs for pair in row]),
        "f1_macro": mean(f1(column) for column in columns),
        "map": mean(map(average_precision, logits, truth)),
    }


def test_several_labels_are_measured_as_a_loop_does():
    data = Data("labels")
    student, teacher = network(), network()
    module = DistillationModule(student, teacher, MultilabelSoftLabels())
    (found,) = trainer().test(module, data, verbose=False)
    z, t = answers(student, data), answers(teacher, data)
    target = data.data.tensors[1].bool().tolist()
    both = [pair for rows in zip(z, t, strict=True) for pair in zip(*rows, strict=True)]
    kl = mean(
        sigmoid(b) * math.log(sigmoid(b) / sigmoid(a))
        + sigmoid(-b) * math.log(sigmoid(-b) / sigmoid(-a))
        for a, b in both
    )
    expected = {f"test/{name}": value for name, value in naive_multilabel(z, target).items()}
    expected |= {
        f"test/teacher_{name}": value for name, value in naive_multilabel(t, target).items()
    }
    expected |= {
        "test/agreement": mean((a > 0) == (b > 0) for a, b in both),
        "test/kl_from_teacher": kl,
    }
    assert found == pytest.approx(expected, abs=1e-5)
    assert module.reliability == {"test/": [], "test/teacher_": []}


@pytest.mark.parametrize(("kind", "outputs"), [("number", 1), ("numbers", 2)])
def test_numbers_are_measured_as_a_loop_does(kind, outputs):
    data = Data(kind)
    student, teacher = network(classes=outputs), network(classes=outputs)
    module = DistillationModule(student, teacher, RegressionLabels())
    (found,) = trainer().test(module, data, verbose=False)
    z, t = answers(student, data), answers(teacher, data)
    target = data.data.tensors[1].double().reshape(len(z), -1).tolist()

    def measured(said):
        gaps = [
            a - b for rows in zip(said, target, strict=True) for a, b in zip(*rows, strict=True)
        ]
        shares = []
        for column, truth in zip(zip(*said, strict=True), zip(*target, strict=True), strict=True):
            middle = mean(truth)
            left = sum((a - b) ** 2 for a, b in zip(column, truth, strict=True))
            shares.append(1 - left / sum((b - middle) ** 2 for b in truth))
        return {
            "mse": mean(g * g for g in gaps),
            "mae": mean(map(abs, gaps)),
            "r2": mean(shares),
        }

    expected = {f"test/{name}": value for name, value in measured(z).items()}
    expected |= {f"test/teacher_{name}": value for name, value in measured(t).items()}
    both = [pair for rows in zip(z, t, strict=True) for pair in zip(*rows, strict=True)]
    expected["test/mse_from_teacher"] = mean((a - b) ** 2 for a, b in both)
    assert found == pytest.approx(expected, rel=1e-4)


def test_one_sample_has_no_r2_and_a_large_mean_does_not_spoil_it():
    metrics = Regression().metrics()
    metrics.update(torch.ones(1, 1), torch.ones(1))
    assert math.isnan(metrics.compute()["r2"])
    metrics, noise = Regression().metrics(), torch.randn(500, 1, dtype=torch.float64)
    target = (1e4 + noise).float()
    predictions = (target.double() + 0.5 * torch.randn(500, 1, dtype=torch.float64)).float()
    for part, truth in zip(predictions.split(50), target.split(50), strict=True):
        metrics.update(part, truth)
    y = target.double()
    expected = 1 - (predictions - y).square().sum() / (y - y.mean()).square().sum()
    assert metrics.compute()["r2"] == pytest.approx(expected.item(), abs=1e-4)


# Training ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "outputs", "task", "label", "name", "good"),
    [
        ("labels", 3, Multilabel(), MultilabelSoftLabels(alpha=1.0), "map", 0.9),
        ("labels", 3, Multilabel(), MultilabelSoftLabels(2.0, 0.5), "f1_macro", 0.9),
        ("numbers", 2, Regression(), RegressionLabels(1.0), "r2", 0.6),
        ("numbers", 2, Regression(), BoundedRegressionLabels(), "r2", 0.6),
    ],
)
def test_a_teacher_is_trained_and_distilled(tmp_path, kind, outputs, task, label, name, good):
    data = Data(kind, 256, 32)
    teaching = SupervisedModule(network(classes=outputs), ADAM, task=task)
    fit = trainer(max_epochs=10)
    fit.fit(teaching, data)
    assert fit.callback_metrics[f"val/{name}"] > good
    student = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, outputs))
    best = ModelCheckpoint(tmp_path, monitor=f"val/{task.criterion}", mode="min")
    plateau = partial(torch.optim.lr_scheduler.ReduceLROnPlateau, patience=50)
    module = DistillationModule(
        student, teaching.network, label, ADAM, plateau, step_size=None,
        features={"alike": SimilarityPreserving("1", "2", 1.0)},
    )  # fmt: skip
    fit = trainer(max_epochs=10, callbacks=[best], enable_checkpointing=True)
    fit.fit(module, data)
    found = fit.callback_metrics
    assert found[f"val/{name}"] > good
    assert best.best_model_score <= found[f"val/{task.criterion}"]
    assert not {"train/accuracy", "val/accuracy", "val/ece", "val/nll"} & set(found)
    predicted = torch.cat(fit.predict(module, data))
    logits = student.eval()(data.data.tensors[0])
    assert torch.equal(predicted, logits.sigmoid() if kind == "labels" else logits)


def test_alpha_zero_needs_no_teacher_and_is_the_supervised_training():
    def student(make):
        torch.manual_seed(3)
        module = make(network())
        trainer().fit(module, Data("labels"))
        return module.trained.state_dict()

    one = student(lambda net: DistillationModule(net, None, MultilabelSoftLabels(alpha=0.0), ADAM))
    two = student(lambda net: SupervisedModule(net, ADAM, task=Multilabel()))
    assert all(torch.equal(one[name], two[name]) for name in two)


@pytest.mark.parametrize(
    ("kind", "outputs", "label"),
    [("labels", 3, MultilabelSoftLabels()), ("numbers", 2, RegressionLabels())],
)
def test_an_ensemble_teaches_the_mean_of_its_outputs(kind, outputs, label):
    members = [network(classes=outputs) for _ in range(3)]
    module = DistillationModule(
        network(classes=outputs), EnsembleTeacher(members, average="logits"), label
    )
    (found,) = trainer().test(module, Data(kind), verbose=False)
    x, y = Data(kind).data.tensors
    mean = torch.stack([member(x) for member in members]).mean(dim=0)
    expected = label.task.loss(mean, y).item()
    assert found[f"test/teacher_{label.task.criterion}"] == pytest.approx(expected, rel=1e-5)


def test_features_alone_may_have_a_task():
    label = NoLabels(Regression())
    features = {"alike": SimilarityPreserving("0", "0")}
    module = DistillationModule(network(classes=1), network(classes=1), label, features=features)
    fit = trainer()
    fit.fit(module, Data("number"))
    assert {"val/mse", "val/mse_from_teacher"} <= set(fit.callback_metrics)


def test_a_loss_that_is_not_finite_stops_the_training():
    class Spoiled(nn.Linear):
        def forward(self, x):
            return super().forward(x) if self.training else super().forward(x) / 0

    module = SupervisedModule(Spoiled(6, 2), task=Regression())
    with pytest.raises(NonFiniteError, match="the validation loss is"):
        trainer().fit(module, Data("numbers"))


# Errors -----------------------------------------------------------------------------------------


def fitted(label, data, outputs=3, teacher=None, **parts):
    teacher = teacher or network(classes=outputs)
    module = DistillationModule(network(classes=outputs), teacher, label, **parts)
    trainer(limit_val_batches=0).fit(module, data)


class Fractions(Data):
    def val_dataloader(self):
        x, y = self.data.tensors
        return DataLoader(TensorDataset(x, 0.9 * y), batch_size=9)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (
            lambda: fitted(SoftLabels(alpha=1.0), Data("labels")),
            r"one for each .* got \(16, 3\).*MultilabelSoftLabels, for numbers RegressionLabels",
        ),
        (
            lambda: fitted(SoftLabels(), Data("number"), 1, positions=Tokens()),
            r"class indices of shape \(N, L\), got torch.float32",
        ),
        (
            lambda: fitted(MultilabelSoftLabels(), PlainData()),
            r"0 or 1 for each, .* got \(16,\) for logits \(16, 3\)",
        ),
        (
            lambda: fitted(RegressionLabels(), Data("number"), 3),
            r"or \(N,\) where D = 1: got \(16,\) for predictions \(16, 3\)",
        ),
        (
            lambda: fitted(MultilabelSoftLabels(), Data("labels"), features={"ofa": OFA(["2"])}),
            r"class indices, one for each .* got \(16, 3\)",
        ),
        (
            lambda: trainer().validate(
                SupervisedModule(network(), task=Multilabel()), Fractions("labels")
            ),
            "targets that are 0 or 1",
        ),
        (
            lambda: SupervisedModule(network(), label_smoothing=0.1, task=Regression()),
            r"`label_smoothing` smooths classes, and Regression\(\) was given",
        ),
        (
            lambda: fitted(MultilabelSoftLabels(), None, teacher=EnsembleTeacher([network()])),
            r"EnsembleTeacher answers log-prob.* task is Multilabel\(\): .*average='logits'",
        ),
        (
            lambda: fitted(RegressionLabels(), None, teacher=CachedTeacher(network(), "", top_k=2)),
            r"CachedTeacher answers log-prob.* task is Regression\(\): .*top_k=None",
        ),
        (lambda: SupervisedModule(network(), task=Multilabel), "`task` must be a task such as"),
        (lambda: NoLabels("regression"), "`task` must be a task .* got 'regression'"),
        (lambda: Multiclass(label_smoothing=2.0), "`label_smoothing` must lie in"),
        (lambda: MultilabelSoftLabels(temperature=0), "`temperature` must be finite and > 0"),
        (lambda: BoundedRegressionLabels(margin=-1.0), "`margin` must be finite and >= 0"),
    ],
)  # fmt: skip
def test_says_what_does_not_fit(run, message):
    with pytest.raises(ConfigError, match=message):
        run()
