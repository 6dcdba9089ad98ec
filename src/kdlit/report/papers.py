"""The table of an experiment: rows by columns over seeds, one table for each measure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kdlit.report.statistics import paired

Runs = Sequence[Mapping[str, Any]]
Found = Mapping[tuple[str, str], Runs]

# What a number of a summary becomes in a table: factor, term and digits.
_UNITS = {
    "percent": (100.0, 0.0, 2),
    "error": (-100.0, 100.0, 2),  # an accuracy's complement, in percent
    "errors": (-10_000.0, 10_000.0, 1),  # of MNIST's test images, from an accuracy
    "count": (1.0, 0.0, 1),
    "number": (1.0, 0.0, 4),
}


def tabulate(
    asked: Mapping[str, Any], text: Mapping[str, Any], places: Mapping[str, str], found: Found
) -> dict[str, Any]:
    """Return all that the table says, as JSON can hold it.

    Args:
        asked: what was run, to be kept with the numbers: `name`, `size`, `command`, `settings`,
            and the overrides of `rows` and `columns`.
        text: what is said beside the numbers; see :class:`kdlit.app.experiments.Experiment`. Each
            of its `measures` has the `value`'s name below a column's place, such as `accuracy`, a
            `name` for people, a `unit` (percent, error, errors, count, number), and `references`
            by row and column, if there are any.
        places: where in a run's summary each column's numbers stand.
        found: the summaries of the runs by row and column, one for each seed.
    """
    first = next(iter(found.values()))[0]
    # A column may read another one's runs.
    runs = list({id(run): run for runs in found.values() for run in runs}.values())
    measures = [_measure(measure) for measure in text["measures"]]
    return {
        **asked,
        **{key: text[key] for key in ("title", "about", "rows_are", "differences")},
        **{key: text.get(key) for key in ("picture", "baseline", "reference", "finding")},
        "measures": measures,
        "cells": [_cell(cell, places, found, measures, text.get("baseline")) for cell in found],
        "student": first["student"]["type"],
        "teachers": _teachers(runs),
        "runs": len(runs),
        "seconds": round(sum(sum(run["seconds"].values()) for run in runs), 1),
        "seconds_of_fit": [run["seconds"]["fit"] for run in runs],
        "device": first["device"],
        "versions": first["versions"],
    }


def _measure(told: Mapping[str, Any]) -> dict[str, Any]:
    scale, offset, digits = _UNITS[told["unit"]]
    references = told.get("references", {})
    return {**told, "scale": scale, "offset": offset, "digits": digits, "references": references}


def _cell(
    cell: tuple[str, str],
    places: Mapping[str, str],
    found: Found,
    measures: Iterable[Mapping[str, Any]],
    baseline: str | None,
) -> dict[str, Any]:
    row, column = cell
    run = found[cell][0]
    values, gains = {}, {}
    # A teacher stands beside its students for orientation; no label is credited with it.
    compares = baseline not in (None, column) and not places[column].startswith("teacher")
    for measure in measures:
        name = measure["value"]
        ours = _values(found[cell], places[column], measure)
        if not ours:
            continue
        values[name] = list(ours.values())
        if compares and baseline is not None:
            before = _values(found.get((row, baseline), ()), places[baseline], measure)
            compared = paired(ours, before)
            if compared is not None:
                gain = compared.difference
                gains[name] = {"mean": gain.mean, "low": gain.low, "high": gain.high}
    return {
        "row": row,
        "column": column,
        "seeds": [run["seed"] for run in found[cell]],
        "values": values,
        "gains": gains,
        "training_samples": run["student"]["training_samples"],
        "epochs": run["epochs"],
        "steps": run["steps"],
    }


def _values(runs: Runs, place: str, measure: Mapping[str, Any]) -> dict[int, float]:
    """Return a measure in its unit by seed, or nothing if the runs do not have it."""
    found = {}
    for run in runs:
        value: Any = run
        for key in f"{place}.{measure['value']}".split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is not None:
            found[run["seed"]] = measure["offset"] + measure["scale"] * float(value)
    return found


def _teachers(runs: Runs) -> list[dict[str, Any]]:
    """Return each kind of teacher that there was: type, images, and its seeds' accuracies."""
    told: dict[tuple[str, int], dict[str, Any]] = {}
    known = set()
    for run in runs:
        teacher = run["teacher"]
        if not teacher:
            continue
        card = teacher["card"]
        kind = (teacher["type"], teacher["training_samples"])
        entry = told.setdefault(
            kind,
            {"type": kind[0], "training_samples": kind[1], "accuracies": [], "seconds": []},
        )
        accuracy = teacher["test"]["accuracy"]
        if (*kind, accuracy) not in known:
            known.add((*kind, accuracy))
            entry["accuracies"].append(accuracy)
            entry["seconds"].append(card.get("seconds"))
    return list(told.values())
