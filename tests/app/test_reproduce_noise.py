"""What the experiments on wrong labels, smoothed teachers and fidelity show in a quick size."""

import json
import sys

import pytest

from conftest import REPOSITORY
from kdlit.app import reproduce


@pytest.fixture
def quick(tmp_path, cache, monkeypatch):
    """Run an experiment in its quick size; return its first seed's numbers by row and column."""
    monkeypatch.chdir(tmp_path)

    def quick(name: str) -> dict[tuple[str, str], dict[str, float]]:
        setting = [f"cache_dir={cache}", f"data.root={REPOSITORY / 'data'}"]
        words = [name, "--size", "quick", "--out", "out", *setting]
        monkeypatch.setattr(sys, "argv", ["reproduce.py", *words])
        reproduce.main()
        result = json.loads((tmp_path / "out" / f"{name}.json").read_text(encoding="utf-8"))
        return {
            (cell["row"], cell["column"]): {
                measure: values[0] for measure, values in cell["values"].items()
            }
            for cell in result["cells"]
        }

    return quick


def test_soft_labels_of_a_clean_teacher_outdo_labels_most_of_which_are_wrong(quick):
    found = quick("noisy_labels")
    wrong, soft = found["60", "ground truth"], found["60", "soft labels"]
    assert soft["accuracy"] > wrong["accuracy"] + 10


def test_more_images_make_the_student_more_like_its_teacher_and_not_the_same(quick):
    found = quick("fidelity")
    few, many = found["200", "no augmentation"], found["2,000", "no augmentation"]
    assert many["kl_from_teacher"] < 0.8 * few["kl_from_teacher"]
    assert few["agreement"] + 1 < many["agreement"] < 99
    # What the two have in common is more than what is true.
    assert few["agreement"] > found["200", "teacher"]["accuracy"] + 2


def test_a_student_is_as_unsure_as_a_smoothed_teacher(quick):
    """The errors of the full size are not to be seen in seconds, but what is taught is."""
    found = quick("label_smoothing_teacher")
    for column in ("teacher", "student"):
        plain, smoothed = found["smoothing 0", column], found["smoothing 0.2", column]
        assert smoothed["ece"] > plain["ece"] + 10
        assert smoothed["accuracy"] < 2500  # errors
