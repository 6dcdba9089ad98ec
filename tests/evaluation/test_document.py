"""What the tables say is what the evaluation holds."""

import io
import re

import pytest
import torch
from rich.console import Console

from kdlit.evaluation.comparison import compare
from kdlit.evaluation.document import headline, markdown, show, tables
from kdlit.evaluation.statistics import describe_answers

GENERATOR = torch.Generator().manual_seed(0)
TARGET = torch.randint(0, 10, (500,), generator=GENERATOR)
LOGITS = {
    name: torch.randn(500, 10, generator=GENERATOR) + sure * torch.eye(10)[TARGET]
    for name, sure in (("teacher", 4.0), ("student", 3.0))
}


def evaluation(*, teacher: bool = True) -> dict:
    def described(name: str) -> dict:
        test = describe_answers(LOGITS[name], TARGET)
        return {"type": "ArticleCNN", "parameters": 21840, "bytes": 88696, "bytes_of": "file",
                "multiply_adds": 481500, "test": test}  # fmt: skip

    found = {
        "student": described("student"),
        "teacher": {**described("teacher"), "bytes_of": "tensors"} if teacher else None,
        "why_no_teacher": None if teacher else "the student learned without one",
        "comparison": compare(LOGITS["student"], LOGITS["teacher"], TARGET) if teacher else None,
        "corruptions": {"seed": 0, "why_not": None, "rows": []},
        "latency": {"warm_up": 10, "rows": []},
        "device": {"type": "cpu", "name": "x86_64", "threads": 2},
    }
    row = {"kind": "rotated", "severity": 15, "unit": "°"}
    for name in ("student", "teacher") if teacher else ("student",):
        row[name] = {"accuracy": 0.512345, "ece": 0.25}
        for backend in ("eager", "compile"):
            entry = {"network": name, "backend": backend, "batch_size": 64}
            timed = {"median_ms": 2.0, "p95_ms": 3.0, "rounds": 200}
            reason = {"why_not": "there is [no] compiler"}
            found["latency"]["rows"].append(entry | (timed if backend == "eager" else reason))
    if teacher:
        row["agreement"] = 0.75
    found["corruptions"]["rows"].append(row)
    return found


def shown(found: dict) -> str:
    out = io.StringIO()
    show(headline(found), tables(found), Console(file=out, width=80))
    return out.getvalue()


def cells(text: str, first: str) -> list[list[str]]:
    """Return the cells of rows that begin with a word, from Markdown or a table of the terminal."""
    rows = [re.split(r"[|│]", line)[1:-1] for line in text.splitlines()]
    return [[c.strip() for c in row[1:]] for row in rows if row and row[0].strip() == first]


@pytest.mark.parametrize("teacher", [True, False])
def test_fits_in_80_columns_and_says_the_same_as_the_markdown(teacher):
    found = evaluation(teacher=teacher)
    terminal, text = shown(found), markdown(headline(found), tables(found))
    assert max(map(len, terminal.splitlines())) <= 80
    for first in ("accuracy", "Brier score", "multiply-adds", "rotated 15°", "student"):
        assert cells(terminal, first) == cells(text, first) != []
    assert ("Who is right where" in text) == teacher
    assert ("Reliability of the teacher" in text) == teacher
    assert "there is [no] compiler" in " ".join(terminal.split())


def test_the_numbers_are_the_evaluations():
    found = evaluation()
    text = markdown(headline(found), tables(found))
    teacher, student = found["teacher"]["test"], found["student"]["test"]
    beside = found["comparison"]
    assert cells(text, "accuracy") == [
        [f"{100 * teacher['accuracy']:.2f} %", f"{100 * student['accuracy']:.2f} %"]
    ]
    assert cells(text, "as they are")[0][:2] == cells(text, "accuracy")[0]
    assert cells(text, "student right") == [
        [str(beside["both_right"]), str(beside["only_student_right"])]
    ]
    assert cells(text, "student wrong") == [
        [str(beside["only_teacher_right"]), str(beside["both_wrong"])]
    ]
    assert cells(text, "student") == [["eager", "64", "2.000", "3.000", "32,000"]]
    assert cells(text, "rotated 15°") == [["51.23 %", "51.23 %", "25.00 %", "25.00 %", "75.00 %"]]
    errors = 500 - student["right"]
    assert f"Of the student's {errors} errors the teacher makes {beside['both_wrong']} " in text
    assert "of the weights file (student), of the tensors (teacher)" in text
    # The confusions of class 7, of teacher and student, among the rows that begin with 7.
    for test in (teacher, student):
        assert [str(n) for n in test["confusion"][7]] in cells(text, "7")


def test_what_was_not_measured_is_told():
    found = evaluation(teacher=False)
    found["corruptions"] = {"seed": 0, "why_not": "corruptions=false", "rows": []}
    found["latency"]["rows"] = []
    found["student"] |= {"multiply_adds": None, "why_no_multiply_adds": "RuntimeError: no"}
    text = markdown(headline(found), tables(found))
    assert "Not measured: corruptions=false." in text
    assert "Not measured: latency=[]." in text
    assert "Multiply-adds of the student: RuntimeError: no." in text
    assert "No teacher: the student learned without one." in text


def test_a_reason_is_shown_as_it_is():
    found = evaluation()
    found["corruptions"] = {"seed": 0, "why_not": "Net.<locals> gives a|b", "rows": []}
    text = markdown(headline(found), tables(found))
    assert r"Not measured: Net.\<locals> gives a\|b." in text
