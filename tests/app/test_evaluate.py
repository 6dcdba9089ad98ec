"""The command that measures a finished run."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

from app.conftest import summary
from app.test_crd_and_simkd import SIMKD
from kdlit.app import evaluating
from kdlit.app.evaluate import main
from kdlit.data.corruptions import CORRUPTIONS, Noise, Rotation
from kdlit.evaluation import backends
from kdlit.models import MLP
from kdlit.report.figures import latency_in


@pytest.fixture
def call(monkeypatch):
    """Call `kdlit-evaluate` in this process."""
    monkeypatch.setenv("COLUMNS", "80")

    def called(*overrides: str) -> None:
        monkeypatch.setattr(sys, "argv", ["kdlit-evaluate", *overrides])
        GlobalHydra.instance().clear()
        main()

    return called


@pytest.fixture
def evaluate(call, monkeypatch):
    """Evaluate a run quickly; returns what was found, and what was written as Markdown."""
    monkeypatch.setattr(evaluating, "CORRUPTIONS", (Rotation(30), Noise(0.2)))

    def called(run: Path, *overrides: str, folder: Path | None = None) -> tuple[dict, str]:
        defaults = ["latency=[eager]", "batch_sizes=[1,3]", "rounds=12"]
        call(f"run={run}", *defaults, *overrides)
        folder = folder or run
        found = json.loads((folder / "evaluation.json").read_text())
        return found, (folder / "evaluation.md").read_text()

    return called


@pytest.fixture
def refused(call, capsys, tmp_path):
    """Expect one line of error and nothing written."""

    def called(*overrides: str) -> str:
        before = set(tmp_path.rglob("*"))
        with pytest.raises(SystemExit) as stopped:
            call(*overrides)
        assert stopped.value.code == 1
        error = capsys.readouterr().err.strip()
        assert error.startswith("kdlit: ")
        assert "\n" not in error
        assert set(tmp_path.rglob("*")) == before, "something was left behind"
        return error

    return called


def test_teacher_against_student(finished, evaluate, capsys, tmp_path):
    run = finished()
    capsys.readouterr()
    before = set(tmp_path.rglob("*"))
    found, text = evaluate(run)
    assert set(tmp_path.rglob("*")) - before == {run / "evaluation.json", run / "evaluation.md"}
    told = summary(run)
    for name in ("student", "teacher"):
        own, expected = found[name], told[name]
        for metric in ("accuracy", "ece", "nll"):
            value = pytest.approx(expected["test"][metric], rel=1e-4)
            assert own["test"][metric] == value, (name, metric)
        assert own["parameters"] == expected["parameters"]
        assert own["test"]["count"] == 10_000
        assert own["bytes_of"] == "file"
        assert 0 < own["bytes"] - expected["bytes"] < 10_000
    assert found["student"]["bytes"] == (run / "student.safetensors").stat().st_size
    assert found["student"]["multiply_adds"] == 784 * 16 + 16 * 10
    assert found["teacher"]["multiply_adds"] == 784 * 32 + 32 * 10
    beside = found["comparison"]
    for metric in ("agreement", "kl_from_teacher"):
        assert beside[metric] == pytest.approx(told["student"]["test"][metric], rel=1e-4)
    right = beside["both_right"] + beside["only_student_right"]
    assert right == found["student"]["test"]["right"]
    rows = found["corruptions"]["rows"]
    assert [(row["kind"], row["severity"]) for row in rows] == [("rotated", 30), ("noisy", 0.2)]
    for row in rows:
        for name in ("student", "teacher"):
            assert 0.1 < row[name]["accuracy"] < found[name]["test"]["accuracy"]
        assert 0 < row["agreement"] < 1
    timed = [(row["network"], row["batch_size"], row["rounds"]) for row in found["latency"]["rows"]]
    assert timed == [(name, size, 12) for size in (1, 3) for name in ("teacher", "student")]
    # What a report on this run will find.
    for row in found["latency"]["rows"][:2]:
        assert latency_in(run / "evaluation.json", row["network"]) == row["median_ms"]
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80 or str(run) in max(out.splitlines(), key=len)
    accuracy = f"{100 * told['student']['test']['accuracy']:.2f} %"
    assert accuracy in out
    assert accuracy in text
    assert f"Written to {run}/" in out
    assert found["versions"]["torch"] == told["versions"]["torch"]

    out = tmp_path / "new" / "out"
    other, _ = evaluate(run, "latency=[]", "seed=1", f"out={out}", folder=out)
    assert all(other[name] == found[name] for name in ("student", "teacher", "comparison"))
    assert other["latency"]["rows"] == []
    for one, two in zip(other["corruptions"]["rows"], rows, strict=True):
        assert one["kind"] == two["kind"]
        assert one["student"] != two["student"]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["teacher=none", "label=truth"], "the student learned without one"),
        (["teacher=ema"], "it was the student's own average, and is gone"),
    ],
    ids=["none", "ema"],
)
def test_without_a_teacher(finished, evaluate, options, why):
    found, text = evaluate(finished(*options))
    assert (found["teacher"], found["comparison"], found["why_no_teacher"]) == (None, None, why)
    assert f"No teacher: {why}." in text
    assert "teacher |" not in text
    assert {row["network"] for row in found["latency"]["rows"]} == {"student"}
    assert set(found["corruptions"]["rows"][0]) == {"kind", "severity", "unit", "student"}


def test_a_teacher_that_is_gone_is_told_and_the_student_is_measured_alone(
    finished, evaluate, refused, tmp_path
):
    run = finished()
    empty = tmp_path / "empty"
    error = refused(f"run={run}", f"cache_dir={empty}")
    assert "teacher is not in" in error
    assert error.endswith("alone=true measures the student without it")
    found, text = evaluate(run, f"cache_dir={empty}", "alone=true", "latency=[]")
    assert (found["teacher"], found["why_no_teacher"]) == (None, "alone=true")
    assert "No teacher: alone=true." in text
    assert not empty.exists()


def test_an_ensemble_is_measured_as_a_whole(finished, evaluate, monkeypatch):
    monkeypatch.setitem(backends.BACKENDS, "compile", backends.eager)
    run = finished("teacher=ensemble", "teacher.seeds=[0,1]")
    found, text = evaluate(run, "latency=[eager,compile]", "batch_sizes=[1]", "corruptions=false")
    teacher = found["teacher"]
    one = sum(p.numel() for p in MLP(widths=[32]).parameters())
    assert (teacher["type"], teacher["parameters"]) == ("EnsembleTeacher", 2 * one)
    assert (teacher["bytes"], teacher["bytes_of"]) == (8 * one, "tensors")
    assert teacher["multiply_adds"] == 2 * (784 * 32 + 32 * 10)
    told = summary(run)["teacher"]["test"]["accuracy"]
    assert teacher["test"]["accuracy"] == pytest.approx(told)
    eager, compiled = (row for row in found["latency"]["rows"] if row["network"] == "teacher")
    assert eager["rounds"] == 12
    assert compiled["why_not"] == "it is not one network"
    assert "Not measured: corruptions=false." in text


def test_simkd_is_measured_as_it_is_shipped(finished, evaluate):
    run = finished(*SIMKD)
    found, _ = evaluate(run, "latency=[]", "corruptions=false")
    told = summary(run)["student"]
    assert found["student"]["parameters"] == told["parameters"]
    assert found["student"]["test"]["accuracy"] == pytest.approx(told["test"]["accuracy"])


def test_a_file_and_a_configuration(finished, call, tmp_path):
    run = finished()
    own = tmp_path / "own"
    own.mkdir()
    shutil.copy(run / "student.safetensors", own / "mine.safetensors")
    call(f"weights={own / 'mine.safetensors'}", f"config={run / 'config.yaml'}", "latency=[]",
         "corruptions=false")  # fmt: skip
    found = json.loads((own / "evaluation.json").read_text())
    told = summary(run)["student"]["test"]["accuracy"]
    assert found["student"]["test"]["accuracy"] == pytest.approx(told)
    assert found["teacher"]["type"] == "MLP"
    assert (found["run"], found["student_file"]) == (None, str(own / "mine.safetensors"))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([], ["nothing to evaluate", "run=", "weights="]),
        (["run=nowhere"], ["run=nowhere", "there is no such directory"]),
        (["run=a", "weights=b"], ["two ways"]),
        (["weights=b"], ["weights=b", "config="]),
        (["weights=b", "config=c"], ["weights=b", "there is no such file"]),
        (["run=a", "device=gpu"], ["device=gpu", "cuda"]),
        (["run=a", "latency=[onxx]"], ["latency=[onxx]", "did you mean onnx?"]),
        (["run=a", "latency=eager"], ["latency=eager", "[eager]"]),
        (["run=a", "batch_sizes=[0]"], ["batch_sizes", ">= 1", "got 0"]),
        (["run=a", "batch_sizes=[]"], ["batch_sizes=[]", "latency=[]"]),
        (["run=a", "rounds=0"], ["rounds", "got 0"]),
        (["run=a", "seconds=-1"], ["seconds", "got -1"]),
        (["run=a", "seed=-1"], ["seed", "got -1"]),
        (["run=a", "alone=1"], ["alone=1", "true or false"]),
        (["run=a", "corruptions=2"], ["corruptions=2", "true or false"]),
        (["run=a", "corruption=false"], ["corruption", "did you mean corruptions?"]),
    ],
    ids=lambda value: " ".join(value)[:40],
)
def test_bad_values(refused, tmp_path, monkeypatch, overrides, words):
    monkeypatch.chdir(tmp_path)
    error = refused(*overrides)
    assert all(word in error for word in words), error


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu(refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "device=cuda: torch finds no such device" in refused("run=a", "device=cuda")


def test_what_cannot_be_written_is_told_before_anything_is_measured(
    finished, refused, tmp_path, monkeypatch
):
    run = finished()
    monkeypatch.setattr(evaluating, "ask", None)
    (tmp_path / "file").touch()
    error = refused(f"run={run}", f"out={tmp_path / 'file' / 'below'}")
    assert f"{tmp_path}/file/below cannot be written: out=<folder>" in error
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != run)
    assert f"{run} cannot be written: out=<folder>" in refused(f"run={run}")


def test_the_whole_set_has_three_severities_of_each_kind():
    kinds = [corruption.kind for corruption in CORRUPTIONS]
    assert {kinds.count(kind) for kind in kinds} == {3}
    severities = {kind: [c.severity for c in CORRUPTIONS if c.kind == kind] for kind in kinds}
    assert all(values == sorted(set(values)) for values in severities.values())
