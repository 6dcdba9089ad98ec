"""Reports of runs that were really run."""

import json
import re
import shutil
import sys

import pytest
import torch

from app.conftest import summary
from kdlit.app.report import main, see

pytest.importorskip("matplotlib")


NO_TEACHER = "teacher:\n  _target_: kdlit.app.teachers.NoTeacher\n"


@pytest.fixture
def report(monkeypatch, capsys):
    def call(folder, *arguments: str) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["report.py", str(folder), *arguments])
        main()
        return tuple((folder / f"report.{kind}").read_text() for kind in ("html", "md"))

    return call


def test_a_sweep_names_the_command_of_its_report_and_has_one(command, report, tmp_path, capsys):
    command("-m", "label=soft,truth", "seed=0,1", f"hydra.sweep.dir={tmp_path / 'sweep of two'}")
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "Compare these runs: kdlit-report 'sweep of two'"
    page, text = report(tmp_path / "sweep of two")
    assert "2 settings" in text
    assert "The samples of which the teacher is least sure" in text
    assert text.count("<details><summary>Mean soft labels") == 1
    assert page.count("data:image/png;base64,") >= 12
    assert "training loss" in page
    # Bins over both seeds: the whole test set, twice.
    rows = re.findall(r"^\| (soft|truth) \| [\d.]+ \| [\d.]+ \| ([\d,]+) \|$", text, re.MULTILINE)
    counts = [int(count.replace(",", "")) for name, count in rows if name == "soft"]
    assert sum(counts) == 20_000


def test_the_bins_of_a_run_are_its_accuracy_and_its_calibration_error(command):
    run = command()
    for who in ("student", "teacher"):
        found = summary(run)[who]
        bins = found["reliability"]
        total = sum(entry["count"] for entry in bins)
        assert total == 10_000
        share = [(entry["count"] / total, entry) for entry in bins]
        assert sum(s * e["accuracy"] for s, e in share) == pytest.approx(
            found["test"]["accuracy"], rel=1e-5
        )
        assert sum(s * abs(e["accuracy"] - e["confidence"]) for s, e in share) == pytest.approx(
            found["test"]["ece"], abs=1e-4
        )
    seen = see(run, "soft", {})
    right = seen.student.argmax(dim=1) == seen.target
    assert float(right.float().mean()) == pytest.approx(
        summary(run)["student"]["test"]["accuracy"], abs=1e-6
    )
    agreement = (seen.student.argmax(dim=1) == seen.teacher.argmax(dim=1)).float().mean()
    assert float(agreement) == pytest.approx(summary(run)["student"]["test"]["agreement"], abs=1e-6)
    assert isinstance(seen.images, torch.Tensor)


def test_no_teacher_is_trained_and_no_data_fetched_for_a_report(command, report, tmp_path):
    run = command()
    empty = tmp_path / "empty"
    _, text = report(run, "--cache-dir", str(empty))
    assert re.search(r"Left out: the teacher of .* is not in .*empty, and none is trained", text)
    assert not empty.exists()
    _, text = report(run, "--data-root", str(empty))
    assert re.search(r"Left out: the data of .* are not in .*empty; --data-root says", text)
    assert not empty.exists()
    # A folder that is there and has not these data is no better.
    _, text = report(run, "--data-root", str(tmp_path))
    assert re.search(r"Left out: the data of .* are not in .*; --data-root says", text)


def test_a_run_without_a_teacher(command, report):
    run = command("label=truth", "teacher=none")
    assert summary(run)["teacher"] is None
    assert "had no teacher" in report(run)[1]


def test_the_best_setting_without_a_teacher_leaves_the_pictures_to_the_next(finished, report):
    folder = finished().parent
    best = shutil.copytree(folder / "finished", folder / "best")
    changed = summary(best)
    changed["student"]["test"]["accuracy"] = 1.0
    changed["config"]["label"] = {"_target_": "kdlit.objectives.TruthLabels"}
    (best / "summary.json").write_text(json.dumps(changed))
    config = (best / "config.yaml").read_text()
    config, count = re.subn(r"^teacher:\n( .*\n)+", NO_TEACHER, config, flags=re.MULTILINE)
    assert count == 1
    (best / "config.yaml").write_text(config)
    _, text = report(folder)
    assert "| truth | the baseline |" in text
    assert "Of the teacher and the student of soft, the best setting with a teacher" in text


def test_the_command_is_named_as_this_one_was_called(monkeypatch, tmp_path):
    from kdlit.app.sweeps import command_of_report

    monkeypatch.chdir(tmp_path)
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "report.py").touch()
    monkeypatch.setattr(sys, "argv", ["scripts/train.py"])
    assert command_of_report(tmp_path / "sweeps" / "1") == "python scripts/report.py sweeps/1"
    outside = tmp_path.parent / "elsewhere"
    assert command_of_report(outside) == f"python scripts/report.py {outside}"
