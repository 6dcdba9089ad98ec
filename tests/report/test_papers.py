"""Tables of experiments from made-up summaries, against numbers worked out by hand."""

import pytest

from kdlit.report.papers import tabulate
from kdlit.report.papers_page import markdown

TEXT = {
    "title": "A title",
    "about": "About it.",
    "rows_are": "images",
    "differences": ["One."],
    "baseline": "labels",
    "reference": "a paper",
    "finding": "Soft labels err less.",
    "measures": [
        {
            "value": "accuracy",
            "name": "test errors of 10,000",
            "unit": "errors",
            "references": {"100": {"labels": 146}},
        },
        {"value": "agreement", "name": "agreement, %", "unit": "percent"},
        {"value": "bias", "name": "bias", "unit": "number"},
    ],
}
PLACES = {"teacher": "teacher.test", "labels": "student.test", "soft": "student.test"}


def run(seed, accuracy, agreement=None, teacher=0.99):
    test = {"accuracy": accuracy} | ({} if agreement is None else {"agreement": agreement})
    return {
        "seed": seed, "epochs": 2, "steps": 1000,
        "student": {"type": "MLP", "training_samples": 100, "test": test},
        "teacher": {
            "type": "ConvNet", "training_samples": 55_000, "test": {"accuracy": teacher},
            "card": {"seconds": 60.0},
        },
        "seconds": {"fit": 30.0, "test": 30.0}, "versions": {"torch": "2"},
        "device": {"type": "cpu", "name": "x", "threads": 2},
    }  # fmt: skip


@pytest.fixture
def result():
    labels = [run(0, 0.95, 0.96), run(1, 0.97, 0.98)]
    soft = [run(0, 0.96, 0.97), run(1, 0.982, 0.99, teacher=0.985)]
    found = {("100", "teacher"): soft, ("100", "labels"): labels, ("100", "soft"): soft}
    asked = {
        "name": "made", "command": "python scripts/reproduce.py made",
        "rows": {"100": []}, "columns": dict.fromkeys(PLACES, ()),
    }  # fmt: skip
    return {**tabulate(asked, TEXT, PLACES, found), "shown": []}


def test_numbers_are_in_their_units(result):
    cells = {cell["column"]: cell for cell in result["cells"]}
    assert cells["soft"]["values"]["accuracy"] == pytest.approx([400, 180])
    assert cells["soft"]["values"]["agreement"] == pytest.approx([97, 99])
    # Errors fall where accuracies rise.
    assert cells["soft"]["gains"]["accuracy"]["mean"] == pytest.approx((-100 - 120) / 2)
    assert cells["labels"]["gains"] == {}


def test_a_teacher_stands_beside_its_students_and_is_not_compared(result):
    cell = next(cell for cell in result["cells"] if cell["column"] == "teacher")
    assert cell["values"] == {"accuracy": pytest.approx([100, 150])}
    assert cell["gains"] == {}
    # It has no runs of its own, and what it was is told once for each that there was.
    assert result["runs"] == 4
    assert result["seconds"] == 240
    (teacher,) = result["teachers"]
    assert teacher["accuracies"] == [0.99, 0.985]


def test_the_page_has_a_table_for_each_measure_that_was_found(result):
    text = markdown(result)
    assert "| images | epochs | steps | seeds | teacher | labels | soft |" in text
    row = "| 100 | 2 | 1,000 | 0, 1 | 125.0 ± 35.4 | 400.0 ± 141.4 | 290.0 ± 155.6 |"
    assert f"{row}\n| *reference* |  |  |  |  | *146* |  |" in text
    # The teacher agrees with nobody: a column without a number is not there.
    assert "| images | epochs | steps | seeds | labels | soft |" in text
    assert "| 100 | 2 | 1,000 | 0, 1 | 97.00 ± 1.41 | 98.00 ± 1.41 |" in text
    assert "## Test errors of 10,000, beside labels\n\nDifference, seed by seed" in text
    # t = 12.706 at 1 degree of freedom: -110 +- 12.706 * sqrt(200) / sqrt(2)
    assert "| 100 | -110.0 [-237.1, +17.1] |" in text
    assert "Bias" not in text
    assert "## What it shows\n\nSoft labels err less." in text
    assert "98.50 to 99.00 % on test" in text
    assert "4 runs took 4 minutes added up" in text
