"""Accuracy against the temperature and the weight of soft labels, where they vary."""

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from kdlit.report import charts
from kdlit.report.content import Figure, Key, Section, Table
from kdlit.report.drawing import MOST_LINES, style
from kdlit.report.groups import Setting, Settings, as_text, names
from kdlit.report.overview import interval
from kdlit.report.statistics import estimate

TEMPERATURE, ALPHA = "label.temperature", "label.alpha"
_MOST_MAPS = 6


def sweeps(settings: Settings) -> list[Section]:
    """Draw accuracy against temperature, against alpha, and over both, where they vary."""
    sections = []
    for anchor, key, word in (
        ("temperature", TEMPERATURE, "temperature"),
        ("alpha", ALPHA, "alpha"),
    ):
        section = _against(settings, anchor, key, word)
        if section is not None:
            sections.append(section)
    both = _over_both(settings)
    return sections + ([both] if both is not None else [])


def as_number(value: Any) -> float | None:
    """Return a finite number as a float, and None for anything else.

    >>> as_number(4), as_number("4"), as_number(True), as_number(math.inf)
    (4.0, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def _families(settings: Sequence[Setting], keys: Sequence[str]) -> list[tuple[str, list[Setting]]]:
    """Return the settings that differ in these keys alone, by what they have in common."""
    families: dict[str, list[Setting]] = defaultdict(list)
    common: dict[str, dict[str, Any]] = {}
    for setting in settings:
        if all(as_number(setting.flat.get(key)) is not None for key in keys):
            rest = {key: value for key, value in setting.values.items() if key not in keys}
            text = json.dumps([(key, as_text(value)) for key, value in rest.items()])
            families[text].append(setting)
            common[text] = rest
    told = dict(zip(families, names(list(common.values())), strict=True)) if families else {}
    return [(told[text], members) for text, members in families.items()]


def _against(settings: Settings, anchor: str, key: str, word: str) -> Section | None:
    families = [
        (name, sorted(members, key=lambda setting: setting.flat[key]))
        for name, members in _families(settings.ranked, [key])
        if len(members) > 1
    ]
    if not families:
        return None
    drawn, legend, rows = [], [], []
    for place, (name, members) in enumerate(families[:MOST_LINES]):
        color, dashes = style(place)
        found = [estimate(setting.test("accuracy") or []) for setting in members]
        xs = [float(setting.flat[key]) for setting in members]
        drawn.append(
            charts.Line(
                xs,
                [100 * e.mean for e in found],
                [100 * (e.half or 0.0) for e in found],
                color,
                dashes,
            )
        )
        legend.append(Key(color, dashes, name))
        rows += [[name, f"{x:g}", interval(e), str(e.n)] for x, e in zip(xs, found, strict=True)]
    title = f"Accuracy against {word}"
    panel = charts.lines(
        anchor,
        title,
        drawn,
        word,
        "accuracy, %",
        bars=True,
        description=f"{title}: {len(drawn)} lines; the numbers stand in the table below.",
    )
    caption = (
        "Mean accuracy on the test set; bars: 95 % interval over seeds, which may go on beyond the "
        "drawing."
    )
    caption += cut(len(families), MOST_LINES, "lines")
    table = Table(
        f"{title}, in numbers", ["setting", word, "accuracy, %", "seeds"], rows, folded=True
    )
    return Section(anchor, title, [Figure(caption, [panel], legend, table)])


def _over_both(settings: Settings) -> Section | None:
    panels, tables = [], []
    families = [
        (name, members)
        for name, members in _families(settings.ranked, [TEMPERATURE, ALPHA])
        if all(len({s.flat[key] for s in members}) > 1 for key in (TEMPERATURE, ALPHA))
    ]
    for place, (name, members) in enumerate(families[:_MOST_MAPS]):
        temperatures, alphas = (
            sorted({float(s.flat[key]) for s in members}) for key in (TEMPERATURE, ALPHA)
        )
        accuracy = {
            (float(s.flat[TEMPERATURE]), float(s.flat[ALPHA])): 100 * s.accuracy for s in members
        }
        cells = charts.Cells(
            [f"{alpha:g}" for alpha in alphas],
            [f"{temperature:g}" for temperature in temperatures],
            [[accuracy.get((t, alpha)) for t in temperatures] for alpha in alphas],
        )
        (t, a), most = max(accuracy.items(), key=lambda item: item[1])
        panels.append(
            charts.heat_map(
                f"both{place}",
                name,
                cells,
                "temperature",
                "alpha",
                digits=2,
                description=f"Heat map for {name}: highest, {most:.2f} %, at temperature {t:g} "
                f"and alpha {a:g}.",
            )
        )
        tables += [
            [name, f"{t:g}", f"{a:g}", f"{value:.2f}"] for (t, a), value in sorted(accuracy.items())
        ]
    if not panels:
        return None
    caption = "Mean accuracy on the test set, %; brighter is higher."
    caption += cut(len(families), _MOST_MAPS, "maps")
    table = Table(
        "Accuracy over temperature and alpha, in numbers",
        ["setting", "temperature", "alpha", "accuracy, %"],
        tables,
        folded=True,
    )
    return Section(
        "both", "Accuracy over temperature and alpha", [Figure(caption, panels, (), table)]
    )


def cut(count: int, most: int, what: str) -> str:
    """Say that some are left out, if they are.

    >>> cut(20, 12, "lines")
    ' Of 20 lines the 12 with the best setting are drawn.'
    """
    return f" Of {count} {what} the {most} with the best setting are drawn." if count > most else ""
