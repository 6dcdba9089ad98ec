"""The report put together from its sections, and written."""

from collections.abc import Sequence
from pathlib import Path

from kdlit.files import write_atomically
from kdlit.report import page
from kdlit.report.content import Report, Section
from kdlit.report.figures import calibration, costs, learning
from kdlit.report.groups import Settings
from kdlit.report.overview import compared, fixed, left_out, ranking
from kdlit.report.ranking import Ranked
from kdlit.report.runs import Found
from kdlit.report.sweeps import sweeps


def put_together(
    found: Found,
    settings: Settings,
    ranked: Sequence[Ranked],
    origin: str,
    knowledge: Section | None = None,
) -> Report:
    """Return the report of some runs.

    Args:
        found: the runs, and what was left out.
        settings: the same, grouped.
        ranked: the same, compared.
        origin: where it comes from, in a line.
        knowledge: the section with pictures, made by :func:`kdlit.report.knowledge.section`.

    Raises:
        ConfigError: if matplotlib is not installed.
    """
    sections = [
        compared(found, settings),
        ranking(ranked),
        *sweeps(settings),
        learning(ranked),
        calibration(ranked),
        *costs(ranked),
        knowledge,
        fixed(settings),
        left_out(found),
    ]
    count = len(found.runs)
    title = f"{count:,} run{'s' if count > 1 else ''} compared" if count > 1 else "One run"
    return Report(title, origin, [section for section in sections if section is not None])


def write(report: Report, folder: Path) -> tuple[Path, Path]:
    """Write `report.html` and `report.md` into a folder, and return their paths."""
    paths = folder / "report.html", folder / "report.md"
    _write(paths[0], page.html(report))
    _write(paths[1], page.markdown(report))
    return paths


def _write(path: Path, text: str) -> None:
    write_atomically(path, lambda to: to.write_text(text, encoding="utf-8"))
