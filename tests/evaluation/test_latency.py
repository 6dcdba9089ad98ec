"""That everybody is called as told; how long it takes is no matter for a test."""

import importlib.util
import time
from collections import Counter
from itertools import pairwise

import pytest
import torch
from torch import nn

from conftest import network
from kdlit.errors import ConfigError
from kdlit.evaluation import backends
from kdlit.evaluation.backends import logits_of, prepare
from kdlit.evaluation.latency import FEWEST, WARM_UP, interleaved, latencies

CPU = torch.device("cpu")
INPUTS = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))


def test_everybody_is_called_in_turn_after_warming_up():
    called: list[str] = []
    runs = [lambda name=name: called.append(name) for name in "abc"]
    times = interleaved(runs, rounds=4, seconds=60, synchronize=lambda: called.append("."))
    assert [len(one) for one in times] == [4, 4, 4]
    warm = 3 * WARM_UP
    assert "".join(called[:warm]) == "a" * WARM_UP + "b" * WARM_UP + "c" * WARM_UP
    timed = "".join(called[warm:])
    rounds = timed.replace(".", "")
    assert all(sorted(rounds[place : place + 3]) == [*"abc"] for place in range(0, 12, 3))
    assert timed == "".join(f".{name}." for name in rounds)


def test_nobody_always_runs_in_the_wake_of_the_same_one():
    called: list[int] = []
    runs = [lambda number=number: called.append(number) for number in range(6)]
    interleaved(runs, rounds=200, seconds=60)
    timed = called[6 * WARM_UP :]
    followed = Counter(pairwise(timed))
    assert max(followed.values()) < 200 / 3


def test_times_are_those_of_the_calls():
    waits = [lambda: time.sleep(0.002), lambda: None]
    slow, quick = interleaved(waits, rounds=FEWEST, seconds=60)
    assert min(slow) >= 0.002
    assert min(quick) < 0.002


def test_no_more_rounds_once_the_time_is_over():
    (times,) = interleaved([lambda: time.sleep(0.001)], rounds=10_000, seconds=0.02)
    assert FEWEST <= len(times) < 100


def test_rows_of_networks_and_of_what_is_no_network(monkeypatch):
    monkeypatch.setattr(backends, "BACKENDS", dict.fromkeys(("eager", "onnx"), backends.eager))
    student = network().eval()
    teacher = lambda: student(INPUTS)  # noqa: E731 - an ensemble's call
    rows = latencies(
        {"teacher": teacher, "student": student}, INPUTS, ["eager", "onnx"], 12, 60, CPU
    )
    assert [(row["network"], row["backend"]) for row in rows] == [
        ("teacher", "eager"), ("student", "eager"), ("teacher", "onnx"), ("student", "onnx"),
    ]  # fmt: skip
    assert rows[2]["why_not"] == "it is not one network"
    for row in (rows[0], rows[1], rows[3]):
        assert 0 < row["median_ms"] <= row["p95_ms"]
        assert row["rounds"] == 12


def test_onnx_gives_the_networks_answers():
    student = network().eval()
    run = prepare("onnx", student, INPUTS)
    assert torch.allclose(logits_of(run()), student(INPUTS), atol=1e-5)


@pytest.mark.slow
def test_compiled_gives_the_networks_answers():
    student = network().eval()
    for size in (1, 4):
        run = prepare("compile", student, INPUTS[:size])
        assert torch.allclose(logits_of(run()), student(INPUTS[:size]), atol=1e-5)


class Answer:
    def __init__(self, logits):
        self.logits = logits


class Keyworded(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = network().eval()

    def forward(self, inputs):
        return Answer(self.inner(inputs))


def test_mappings_and_other_answers():
    inputs = {"inputs": INPUTS}
    run = prepare("eager", Keyworded(), inputs)
    assert run().logits.shape == (4, 3)
    with pytest.raises(ConfigError, match="only networks that take one tensor"):
        prepare("onnx", Keyworded(), inputs)


def test_what_is_not_installed_names_the_extra(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if "onnx" in name else found(name)
    )
    (row,) = latencies({"student": network().eval()}, INPUTS, ["onnx"], 10, 1, CPU)
    assert 'onnxruntime not installed: it comes with pip install "kdlit[export]"' in row["why_not"]


def test_what_fails_is_told_in_a_line_and_the_others_are_measured(monkeypatch):
    def broken(network, inputs):
        raise RuntimeError("there is no compiler\n" + "and much more\n" * 50)

    monkeypatch.setattr(backends, "BACKENDS", {**backends.BACKENDS, "compile": broken})
    rows = latencies({"student": network().eval()}, INPUTS, ["compile", "eager"], 10, 1, CPU)
    assert rows[0]["why_not"] == "RuntimeError: there is no compiler"
    assert rows[1]["rounds"] == 10


def test_other_answers_are_not_timed(monkeypatch):
    wrong = {"compile": lambda network, inputs: lambda: network(inputs) + 1}
    monkeypatch.setattr(backends, "BACKENDS", wrong)
    (row,) = latencies({"student": network().eval()}, INPUTS, ["compile"], 10, 1, CPU)
    assert "differ from eager's" in row["why_not"]
    assert "median_ms" not in row
