"""Hinton, Vinyals and Dean's experiments in their quick size: the direction of what they found."""

import json
import statistics
import sys

import pytest

from conftest import REPOSITORY
from kdlit.app import reproduce


@pytest.fixture
def means(tmp_path, cache, monkeypatch):
    """Run an experiment in its quick size; return each measure's mean by row and column."""
    monkeypatch.chdir(tmp_path)

    def means(name: str) -> dict[str, dict[tuple[str, str], float]]:
        setting = [f"cache_dir={cache}", f"data.root={REPOSITORY / 'data'}"]
        command = ["reproduce.py", name, "--size", "quick", "--out", "out", *setting]
        monkeypatch.setattr(sys, "argv", command)
        reproduce.main()
        result = json.loads((tmp_path / "out" / f"{name}.json").read_text(encoding="utf-8"))
        return {
            measure["value"]: {
                (cell["row"], cell["column"]): statistics.fmean(cell["values"][measure["value"]])
                for cell in result["cells"]
                if measure["value"] in cell["values"]
            }
            for measure in result["measures"]
        }

    return means


def test_a_student_errs_less_than_by_labels_alone_and_more_than_its_teacher(means, tmp_path):
    errors = means("hinton2015")["accuracy"]
    few = "few images"
    assert errors[few, "teacher"] + 100 < errors[few, "distilled"]
    assert errors[few, "distilled"] + 100 < errors[few, "labels alone"]
    text = (tmp_path / "out" / "hinton2015.md").read_text(encoding="utf-8")
    assert "teacher | labels alone | distilled |" in text


def test_a_bias_finds_the_digit_that_was_never_shown(means):
    found = means("hinton2015_no3")
    row = "no threes"
    threes, errors = found["errors_in_classes"], found["errors"]
    # Without a bias most threes are missed, and almost none of the others' errors are its doing.
    assert threes[row, "as trained"] > 300
    for way in ("bias by known shares", "bias by test labels"):
        assert threes[row, way] < 0.6 * threes[row, "as trained"]
        assert errors[row, way] + 100 < errors[row, "as trained"]
        assert found["bias"][row, way] > 0.5
    # No bias has fewer errors than the one that was chosen by them.
    assert errors[row, "bias by test labels"] <= errors[row, "bias by known shares"]


def test_two_digits_teach_something_of_the_eight_others(means):
    found = means("hinton2015_78")
    row, error = "sevens and eights", found["accuracy"]
    assert found["bias"][row, "bias by known shares"] < -0.5
    assert error[row, "as trained"] > error[row, "bias by known shares"] + 5
    assert error[row, "bias by known shares"] < 65  # 80 by two digits alone
    assert error[row, "bias by test labels"] <= error[row, "bias by known shares"]


def test_students_of_each_width_gain(means, tmp_path):
    errors = means("hinton2015_width")["accuracy"]
    for width in ("30", "200"):
        assert errors[width, "T = 4"] + 30 < errors[width, "labels alone"]
    assert (tmp_path / "out" / "hinton2015_width.png").is_file()
