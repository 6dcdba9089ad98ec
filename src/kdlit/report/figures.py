"""The sections with drawings of the settings: learning curves, reliability, size."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from kdlit.report import charts
from kdlit.report.content import Block, Figure, Key, Panel, Section, Table, Text
from kdlit.report.drawing import MOST_LINES, style
from kdlit.report.groups import Setting
from kdlit.report.histories import CURVES, curve, read_history
from kdlit.report.overview import interval
from kdlit.report.ranking import Ranked
from kdlit.report.runs import EVALUATION_FILE, METRICS_FILE
from kdlit.report.statistics import estimate
from kdlit.report.sweeps import as_number, cut

_MOST_CURVES = 8
_MOST_DIAGRAMS = 7
_MOST_SEEDS = 50


def _chosen(ranked: Sequence[Ranked], most: int) -> list[Setting]:
    """Return the best settings, and a baseline in place of the last if there is none among them."""
    chosen = [entry.setting for entry in ranked[:most]]
    used = [entry.baseline for entry in ranked if entry.baseline is not None]
    if used and not any(setting in used for setting in chosen):
        chosen[-1] = used[0]
    return chosen


def learning(ranked: Sequence[Ranked]) -> Section:
    """Draw the learning curves of the best settings."""
    chosen = _chosen(ranked, _MOST_CURVES)
    histories = {
        id(setting): [read_history(run.folder / METRICS_FILE) for run in setting.runs[:_MOST_SEEDS]]
        for setting in chosen
    }
    panels = []
    missing = sum(not any(found.values()) for each in histories.values() for found in each)
    for place, (column, title) in enumerate(CURVES.items()):
        scale = 100 if column.endswith("accuracy") else 1
        drawn = []
        for number, setting in enumerate(chosen):
            found = curve(history.get(column, {}) for history in histories[id(setting)])
            if found is not None:
                drawn.append(
                    charts.Line(
                        found.epochs,
                        [scale * y for y in found.means],
                        [scale * y for y in found.spreads],
                        *style(number),
                    )
                )
        if drawn:
            panels.append(
                charts.lines(
                    f"curve{place}",
                    title,
                    drawn,
                    "epoch",
                    "",  # the title says it
                    bars=False,
                    description=f"{title} by epoch, {len(drawn)} lines.",
                )
            )
    if not panels:
        return _missing("curves", "Learning curves", f"No run has a {METRICS_FILE} with epochs.")
    caption = (
        "Mean over seeds; bands: sample standard deviation. The training loss is each setting's "
        "own: between label strategies it is not the same quantity."
    )
    if len(ranked) > len(chosen):
        caption += f" Of {len(ranked)} settings the best, with a baseline, {len(chosen)} in all."
    if any(len(setting.runs) > _MOST_SEEDS for setting in chosen):
        caption += f" Of each setting {_MOST_SEEDS} seeds at most."
    if missing:
        caption += f" Without a {METRICS_FILE} that can be read: {missing} of these runs."
    legend = [Key(*style(number), setting.name) for number, setting in enumerate(chosen)]
    return Section("curves", "Learning curves", [Figure(caption, panels, legend)])


def calibration(ranked: Sequence[Ranked]) -> Section:
    """Draw the reliability diagrams of the best settings, and of the teacher."""
    title = "Reliability"
    panels: list[Panel] = []
    rows = []
    chosen = [s for s in _chosen(ranked, _MOST_DIAGRAMS) if _bins(s, "student")]
    drawn = [(s.name, _bins(s, "student"), s.test("ece")) for s in chosen]
    for setting in chosen[:1]:
        if bins := _bins(setting, "teacher"):
            theirs = setting.runs[0].test("ece", "teacher")
            drawn.append((f"teacher of {setting.name}", bins, None if theirs is None else [theirs]))
    for place, (name, bins, eces) in enumerate(drawn):
        ece = f"ECE {100 * estimate(eces).mean:.2f} %" if eces else ""
        panels.append(
            charts.reliability(
                f"reliability{place}",
                f"{name}{', ' if ece else ''}{ece}",
                bins,
                style(place)[0],
                f"Accuracy against confidence of {name}. {ece}",
            )
        )
        rows += [
            [
                name,
                f"{100 * b['confidence']:.1f}",
                f"{100 * b['accuracy']:.1f}",
                f"{int(b['count']):,}",
            ]
            for b in bins
            if b["count"]
        ]
    if not panels:
        return _missing(
            "reliability",
            title,
            "These summaries hold no bins: they are from before kdlit kept them.",
        )
    caption = (
        "How often the network is right against how sure it is, in 15 bins of confidence, all "
        "seeds together; larger points are more samples. On the dashed line it is as often right "
        "as it says; below it is too sure."
    )
    if len(ranked) > len(chosen):
        caption += f" Of {len(ranked)} settings {len(chosen)}."
    table = Table(
        "Reliability, in numbers",
        ["network", "confidence, %", "accuracy, %", "samples"],
        rows,
        folded=True,
    )
    return Section("reliability", title, [Figure(caption, panels, (), table)])


def _bins(setting: Setting, who: str) -> list[dict[str, float]]:
    """Return the bins of all seeds together; of a teacher those of the first, which all share."""
    runs = setting.runs if who == "student" else setting.runs[:1]
    kept = [(run.summary.get(who) or {}).get("reliability") for run in runs]
    known = [bins for bins in kept if isinstance(bins, list) and bins]
    size = max(map(len, known), default=0)
    merged = []
    for place in range(size):
        found = [bins[place] for bins in known if len(bins) == size]
        count = sum(entry["count"] for entry in found)
        merged.append(
            {"count": count}
            | {
                key: sum(entry[key] * entry["count"] for entry in found) / count if count else 0.0
                for key in ("confidence", "accuracy")
            }
        )
    return merged


def costs(ranked: Sequence[Ranked]) -> list[Section]:
    """Draw accuracy against parameters and against latency, where they vary and are known."""
    sections = []
    kinds: Sequence[tuple[str, str, str, Callable[[Setting, str], float | None]]] = (
        ("size", "Accuracy against size", "parameters", _parameters),
        ("latency", "Accuracy against latency", "latency, ms", _latency),
    )
    for anchor, title, axis, measure in kinds:
        known = [(entry, x) for entry in ranked if (x := measure(entry.setting, "student"))]
        if len({x for _, x in known}) < (2 if anchor == "size" else 1):
            continue
        drawn, legend, rows = [], [], []
        for place, (entry, x) in enumerate(known[:MOST_LINES]):
            color, dashes = style(place)
            half = 100 * (entry.accuracy.half or 0.0)
            marker = "s" if dashes else "o"
            drawn.append(charts.Point(x, 100 * entry.accuracy.mean, half, color, marker))
            legend.append(Key(color, dashes, entry.setting.name))
            rows.append([entry.setting.name, f"{x:,.6g}", interval(entry.accuracy)])
        first = known[0][0].setting
        teacher, accuracy = measure(first, "teacher"), first.runs[0].test("accuracy", "teacher")
        if teacher and accuracy:
            drawn.append(charts.Point(teacher, 100 * accuracy, 0.0, "#808080", "*"))
            legend.append(Key("#808080", "1 2", f"teacher of {first.name} (star)"))
            rows.append([f"teacher of {first.name}", f"{teacher:,.6g}", f"{100 * accuracy:.2f}"])
        panel = charts.points(
            anchor, title, drawn, axis, "accuracy, %", f"{title}: {len(drawn)} points."
        )
        caption = "Mean accuracy on the test set; bars: 95 % interval over seeds."
        if anchor == "latency":
            caption += (
                " Latency of one image in eager mode, from the "
                f"{EVALUATION_FILE} of each setting's first run that has one"
                f"{_taken_on([entry.setting for entry, _ in known[:MOST_LINES]])}."
            )
        caption += cut(len(known), MOST_LINES, "settings")
        table = Table(f"{title}, in numbers", ["network", axis, "accuracy, %"], rows, folded=True)
        blocks: list[Block] = [Figure(caption, [panel], legend, table)]
        sections.append(Section(anchor, title, blocks))
    return sections


def _parameters(setting: Setting, who: str) -> float | None:
    return as_number((setting.runs[0].summary.get(who) or {}).get("parameters"))


def _latency(setting: Setting, who: str) -> float | None:
    """Return the milliseconds that a run's `evaluation.json` has for one image, if any."""
    for run in setting.runs:
        found = latency_in(run.folder / EVALUATION_FILE, who)
        if found is not None:
            return found
    return None


def _taken_on(settings: Sequence[Setting]) -> str:
    """Say where the latencies were taken, and whether they can be compared."""
    machines: dict[str, None] = {}
    for setting in settings:
        paths = [run.folder / EVALUATION_FILE for run in setting.runs]
        path = next(path for path in paths if latency_in(path, "student") is not None)
        device = json.loads(path.read_text(encoding="utf-8")).get("device")
        try:
            told = f"{device['type']} ({device['name']}), threads: {device['threads']}"
        except (KeyError, TypeError):
            told = "a machine that is not named"
        machines[told] = None
    apart = "; they are of unlike machines and do not compare" if len(machines) > 1 else ""
    return f", on {'; '.join(machines)}{apart}"


def latency_in(path: Path, who: str) -> float | None:
    """Return the median ms of one image in eager mode that an `evaluation.json` has, or None."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["latency"]["rows"]
        return next(
            as_number(row["median_ms"])
            for row in rows
            if (row["network"], row["backend"], row["batch_size"]) == (who, "eager", 1)
        )
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        return None


def _missing(anchor: str, title: str, reason: str) -> Section:
    return Section(anchor, title, [Text(reason)])
