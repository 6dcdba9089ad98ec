"""What named layers say: captured as it was, under a compiler too, and only as long as asked."""

import csv

import pytest
import torch
from torch import nn

from conftest import PlainData, network, trainer
from kdlit import DistillationModule, TruthLabels
from kdlit.batch import Batch
from kdlit.errors import ConfigError
from kdlit.loggers import CSVMetricsLogger
from kdlit.objectives import Hint
from kdlit.taps import Taps, named_layers

BATCH = Batch(torch.randn(4, 6))


def hooks(net: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules())


def test_an_unknown_layer_is_refused_with_the_nearest_names():
    net = nn.Sequential()
    net.add_module("block1", nn.Linear(6, 3))
    net.add_module("block2", nn.Linear(3, 3))
    with pytest.raises(ConfigError, match=r"student: Sequential has no layer 'blok2'.*block2"):
        Taps(net, ["blok2"], "student")
    with pytest.raises(ConfigError, match="there is none in Sequential; name a layer"):
        Taps(nn.Sequential(nn.ReLU()), ["penultimate"])


def test_a_layer_that_is_not_called_or_gives_no_tensor_is_named():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(6, 3), nn.Linear(6, 3)
            self.text = nn.Identity()

        def forward(self, x):
            self.text("words")
            return self.used(x)

    with pytest.raises(ConfigError, match="layer 'unused' was not called"):
        Taps(Odd(), ["unused"]).run(BATCH)
    with pytest.raises(ConfigError, match="layer 'text' gives str"):
        Taps(Odd(), ["text"]).run(BATCH)


class Spoils(nn.Module):
    """Changes what `first` gave in place, by an operation that no attribute shows."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x):
        y = self.first(x)
        y.relu_()
        return self.last(y)


def test_only_what_would_be_spoiled_is_copied():
    net = Spoils()
    taps = Taps(net, ["first", "penultimate"])
    taps.probe(BATCH)
    found = taps.run(BATCH).features
    expected = net.first(BATCH.inputs)
    assert torch.equal(found["first"], expected)
    assert torch.equal(found["penultimate"], expected.relu())
    assert taps._copied == {"first"}


def test_dropout_in_place_spoils_nothing_in_training():
    net = nn.Sequential(nn.Linear(6, 50), nn.Dropout(0.5, inplace=True), nn.Linear(50, 3))
    taps = Taps(net, ["0"])
    taps.probe(BATCH)
    assert torch.equal(taps.run(BATCH).features["0"], net[0](BATCH.inputs))


def test_features_carry_gradients_to_the_layers_before():
    net = Spoils()
    taps = Taps(net, ["first"])
    taps.probe(BATCH)
    taps.run(BATCH).features["first"].sum().backward()
    assert net.first.weight.grad is not None
    assert net.last.weight.grad is None


@pytest.mark.parametrize("layers", [["first"], ["penultimate"], ["first", "penultimate"]])
def test_a_compiled_network_gives_the_same(layers):
    torch.compiler.reset()
    net = Spoils()
    compiled = torch.compile(net, backend="eager")
    assert set(named_layers(compiled)) == {"first", "last"}
    taps = Taps(compiled, layers)
    taps.probe(BATCH)
    for batch in (BATCH, Batch(torch.randn(4, 6))):
        found = taps.run(batch)
        expected = {"first": net.first(batch.inputs), "penultimate": net.first(batch.inputs).relu()}
        assert set(found.features) == set(layers)
        for name in layers:
            assert torch.allclose(found.features[name], expected[name])


def test_hooks_are_there_during_the_fit_and_gone_after_it():
    student, teacher = network(), network()
    during = []

    class Watching(Hint):
        def forward(self, *said):
            during.append((hooks(student), hooks(teacher)))
            return super().forward(*said)

    module = DistillationModule(
        student, teacher, TruthLabels(), features={"hint": Watching("0", "2")}
    )
    trainer().fit(module, PlainData())
    assert set(during) == {(1, 1)}
    assert (hooks(student), hooks(teacher)) == (0, 0)


def test_a_schedule_weighs_a_term_by_the_step(tmp_path):
    from kdlit.schedules import LinearWarmup

    module = DistillationModule(
        network(), network(), TruthLabels(),
        features={"hint": Hint("0", "0", weight=LinearWarmup(8.0, steps=4))},
    )  # fmt: skip
    logger = CSVMetricsLogger(tmp_path / "metrics.csv")
    trainer(logger=logger).fit(module, PlainData())
    with logger.path.open() as file:
        rows = [row for row in csv.DictReader(file) if row["train/loss"]]
    for step, row in enumerate(rows):
        weight = 8.0 * min((step + 1) / 4, 1)
        expected = float(row["train/truth"]) + weight * float(row["train/hint"])
        assert float(row["train/loss"]) == pytest.approx(expected, rel=1e-5)
    assert len(rows) == 4
