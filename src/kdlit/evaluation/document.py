"""An evaluation as tables: for the terminal, and as Markdown."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

from kdlit.evaluation.statistics import CONFIDENCE
from kdlit.metrics import ECE_BINS

_SHOWN = 20  # classes on the terminal, at most


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        title: what stands above it.
        header: the columns' names; the first column is text, the others are numbers.
        rows: one text for each column.
        notes: lines that stand below it.
        long: whether it is too long for the terminal.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    long: bool = False


def markdown(headline: str, tables: Sequence[Table]) -> str:
    """Return the document in Markdown.

    >>> print(markdown("One", [Table("Costs", ["", "student"], [["parameters", "12"]])]))
    # One
    <BLANKLINE>
    ## Costs
    <BLANKLINE>
    |  | student |
    |---|--:|
    | parameters | 12 |
    <BLANKLINE>
    """
    parts = [f"# {headline}"]
    for table in tables:
        lines = [table.header, *table.rows]
        rows = [f"| {' | '.join(map(_escaped, cells))} |" for cells in lines]
        rows.insert(1, "|---|" + "--:|" * (len(table.header) - 1))
        parts += [f"## {table.title}", *(["\n".join(rows)] if table.rows else [])]
        parts += [_escaped(note) for note in table.notes]
    return "\n\n".join(parts) + "\n"


def _escaped(text: str) -> str:
    return re.sub(r"([|<])", r"\\\1", text)


def show(headline: str, tables: Sequence[Table], console: Console) -> None:
    """Print all but the long tables."""
    console.print(headline, highlight=False, markup=False)
    for table in tables:
        if table.long:
            continue
        console.print(f"\n{table.title}", highlight=False, markup=False)
        if table.rows:
            made = RichTable()
            for number, name in enumerate(table.header):
                made.add_column(name, justify="right" if number else "left", no_wrap=not number)
            for cells in table.rows:
                made.add_row(*cells)
            console.print(made)
        for note in table.notes:
            console.print(note, highlight=False, markup=False)


def headline(found: dict[str, Any]) -> str:
    """Return what was measured, in a line."""
    student, teacher = found["student"], found["teacher"]
    beside = f" beside {teacher['type']} (teacher)" if teacher else ""
    return f"{student['type']} (student){beside}, {student['test']['count']:,} test images"


def tables(found: dict[str, Any]) -> list[Table]:
    """Return the tables of an evaluation, as `evaluation.json` holds it."""
    who = [name for name in ("teacher", "student") if found[name] is not None]
    made = [_overview(found, who)]
    if found["comparison"] is not None:
        made.append(_errors(found["comparison"]))
    clean = {name: found[name]["test"] for name in who}
    if found["comparison"] is not None:
        clean["agreement"] = found["comparison"]["agreement"]
    made += [_classes(found, who), _corruptions(found["corruptions"], clean, who)]
    made += [_latency(found["latency"], found["device"])]
    for name in who:
        made += [_reliability(found[name], name), _confusion(found[name], name)]
    return made


def _overview(found: dict[str, Any], who: Sequence[str]) -> Table:
    described = [found[name] for name in who]
    tests = [one["test"] for one in described]
    limits = [[percent(limit, "") for limit in test["interval"]] for test in tests]
    rows = [
        ["network", *(one["type"] for one in described)],
        ["accuracy", *(percent(test["accuracy"]) for test in tests)],
        [f"  {100 * CONFIDENCE:.0f} % interval", *(f"{low} to {high} %" for low, high in limits)],
        ["calibration error", *(percent(test["ece"]) for test in tests)],
        ["log-likelihood loss", *(f"{test['nll']:.4f}" for test in tests)],
        ["Brier score", *(f"{test['brier']:.4f}" for test in tests)],
    ]
    beside = found["comparison"]
    if beside is not None:
        rows += [
            ["agreement", "", percent(beside["agreement"])],
            ["KL from the teacher", "", f"{beside['kl_from_teacher']:.4f}"],
        ]
    rows += [
        ["parameters", *(f"{one['parameters']:,}" for one in described)],
        ["bytes", *(f"{one['bytes']:,}" for one in described)],
        ["multiply-adds", *(_count(one["multiply_adds"]) for one in described)],
    ]
    of_file = [name for name in who if found[name]["bytes_of"] == "file"]
    notes = [
        f"{100 * CONFIDENCE:.0f} % interval: Wilson. Calibration error: {ECE_BINS} equal bins of "
        f"confidence. Bytes: {_bytes_told(of_file, who)}. Multiply-adds of one image: half of "
        "what torch.utils.flop_counter counts (matrix products, convolutions, attention)."
    ]
    notes += [
        f"Multiply-adds of the {name}: {found[name]['why_no_multiply_adds']}."
        for name in who
        if found[name]["multiply_adds"] is None
    ]
    if found["why_no_teacher"]:
        notes.append(f"No teacher: {found['why_no_teacher']}.")
    return Table("On the test set", ["", *who], rows, notes)


def _bytes_told(of_file: Sequence[str], who: Sequence[str]) -> str:
    told = []
    if of_file:
        told.append(f"of the weights file ({', '.join(of_file)})")
    tensors = [name for name in who if name not in of_file]
    if tensors:
        told.append(f"of the tensors ({', '.join(tensors)})")
    return ", ".join(told)


def _errors(beside: dict[str, Any]) -> Table:
    both = beside["both_wrong"]
    errors = both + beside["only_teacher_right"]
    theirs = both + beside["only_student_right"]
    notes = []
    if errors:
        share = percent(beside["shared_errors"])
        notes.append(
            f"Of the student's {errors:,} errors the teacher makes {both:,} ({share}), "
            f"{beside['same_error']:,} of them with the same wrong class; the teacher makes "
            f"{theirs:,} in all."
        )
    notes.append(
        f"McNemar's exact test, that both are right equally often: {p_value(beside['mcnemar'])}."
    )
    return Table(
        "Who is right where",
        ["images", "teacher right", "teacher wrong"],
        [
            ["student right", f"{beside['both_right']:,}", f"{beside['only_student_right']:,}"],
            ["student wrong", f"{beside['only_teacher_right']:,}", f"{both:,}"],
        ],
        notes,
    )


def _classes(found: dict[str, Any], who: Sequence[str]) -> Table:
    columns = [found[name]["test"]["classes"] for name in who]
    rows = [
        [str(number), f"{cells[0]['count']:,}", *(percent(cell["accuracy"]) for cell in cells)]
        for number, cells in enumerate(zip(*columns, strict=True))
    ]
    return Table("Accuracy by class", ["class", "images", *who], rows, long=len(rows) > _SHOWN)


def _corruptions(found: dict[str, Any], clean: dict[str, Any], who: Sequence[str]) -> Table:
    title = "On corrupted test images"
    if found["why_not"]:
        return Table(title, [], [], [f"Not measured: {found['why_not']}."])
    header = ["", *(f"accuracy {name}" for name in who), *(f"ECE {name}" for name in who)]
    rows = []
    for one in [{"kind": "as they are", **clean}, *found["rows"]]:
        cells = [one["kind"]]
        if "severity" in one:
            cells = [f"{one['kind']} {one['severity']:g}{_joined(one['unit'])}"]
        cells += [percent(one[name]["accuracy"]) for name in who]
        cells += [percent(one[name]["ece"]) for name in who]
        rows.append(cells + ([percent(one["agreement"])] if "agreement" in one else []))
    if "agreement" in found["rows"][0]:
        header.append("agreement")
    note = (
        "Each image turned to either side, shifted in one of four directions, or with Gaussian "
        f"noise of so many times the full range; seed {found['seed']}."
    )
    return Table(title, header, rows, [note])


def _joined(unit: str) -> str:
    return unit if unit in ("", "°") else f" {unit}"


def _latency(found: dict[str, Any], device: dict[str, Any]) -> Table:
    title = "Latency"
    measured = [row for row in found["rows"] if "why_not" not in row]
    notes = []
    if measured:
        rounds = sorted({row["rounds"] for row in measured})
        notes.append(
            f"On {device['type']} ({device['name']}), "
            f"{device['threads']} thread{'s' * (device['threads'] != 1)}; "
            f"{'/'.join(map(str, rounds))} rounds after {found['warm_up']} calls to warm up, in "
            "each of them every network and backend once, in changing order."
        )
    why: dict[tuple[str, str, str], list[str]] = {}
    for row in found["rows"]:
        if "why_not" in row:
            key = (row["network"], row["backend"], row["why_not"])
            why.setdefault(key, []).append(str(row["batch_size"]))
    notes += [
        f"{network}, {backend}, batch {', '.join(sizes)}: not measured: {reason}"
        for (network, backend, reason), sizes in why.items()
    ]
    if not found["rows"]:
        notes.append("Not measured: latency=[].")
    rows = [
        [
            row["network"],
            row["backend"],
            str(row["batch_size"]),
            f"{row['median_ms']:.3f}",
            f"{row['p95_ms']:.3f}",
            f"{1e3 * row['batch_size'] / row['median_ms']:,.0f}",
        ]
        for row in measured
    ]
    header = ["network", "backend", "batch", "median, ms", "p95, ms", "images/s"]
    return Table(title, header, rows, notes)


def _reliability(described: dict[str, Any], name: str) -> Table:
    rows = [
        [
            f"{one['low']:.3f} to {one['high']:.3f}",
            f"{one['count']:,}",
            percent(one["confidence"]) if one["count"] else "",
            percent(one["accuracy"]) if one["count"] else "",
        ]
        for one in described["test"]["bins"]
    ]
    header = ["confidence", "images", "mean confidence", "accuracy"]
    return Table(f"Reliability of the {name}", header, rows, long=True)


def _confusion(described: dict[str, Any], name: str) -> Table:
    matrix = described["test"]["confusion"]
    rows = [[str(truth), *(f"{count:,}" for count in row)] for truth, row in enumerate(matrix)]
    header = ["class \\ decision", *map(str, range(len(matrix)))]
    return Table(f"Confusions of the {name}", header, rows, long=True)


def percent(share: float | None, unit: str = " %") -> str:
    """Return a share in percent with two digits.

    >>> percent(0.98089), percent(None)
    ('98.09 %', '')
    """
    return "" if share is None else f"{100 * share:.2f}{unit}"


def p_value(p: float) -> str:
    """Return a p-value with two digits.

    >>> p_value(0.0371), p_value(3.14e-20), p_value(1.0)
    ('p = 0.037', 'p = 3.1e-20', 'p = 1')
    """
    return f"p = {p:.2g}"


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"
