"""Many runs in one report: `scripts/report.py`, `kdlit-report`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdlit.errors import ConfigError, DataError, KdlitError, TeacherError
from kdlit.files import is_writable
from kdlit.report import compare, group, markdown, read_runs
from kdlit.report.ranking import BASELINE, rank
from kdlit.report.runs import Found

if TYPE_CHECKING:
    from kdlit.app.finished import FinishedRun
    from kdlit.report.content import Section
    from kdlit.report.groups import Setting
    from kdlit.report.knowledge import Seen

_DESCRIPTION = """\
Compare runs: print mean ± sample standard deviation over seeds, on the test set, and
write report.html, a page that needs nothing else, and report.md with the same numbers:
the ranking with intervals and paired tests, sweeps, learning curves, reliability,
size, and what the teacher knows."""
_MOST_ASKED = 10  # settings, for one with a teacher
_EXAMPLES = """\
examples:
  python scripts/report.py sweeps/2026-01-31_12-00-00
  python scripts/report.py sweeps outputs --out reports --baseline smooth
  python scripts/report.py sweeps --table"""


def main() -> None:
    """Report on the folders on the command line."""
    parser = argparse.ArgumentParser(
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("folder", type=Path, nargs="+", help="folders with runs or sweeps below")
    add("--out", type=Path, help="where to write (default: the first folder)")
    add(
        "--baseline",
        metavar="NAME",
        help="what to compare with: a setting as the table names it, or a label in one word "
        f"(default: {BASELINE})",
    )
    add("--table", action="store_true", help="print the table alone")
    add("--no-pictures", action="store_true", help="leave out what needs networks and data")
    add("--data-root", metavar="FOLDER", help="where the data lie now, if not where they lay")
    add("--cache-dir", metavar="FOLDER", help="where the teachers lie now, likewise")
    try:
        _report(parser.parse_args())
    except (KdlitError, OSError) as error:
        print(f"kdlit: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("kdlit: interrupted", file=sys.stderr)
        sys.exit(130)


def _report(asked: argparse.Namespace) -> None:
    found = read_runs(asked.folder)
    settings = group(found.runs)
    ranked = rank(settings.ranked, asked.baseline)
    print(markdown(compare([run.summary for run in found.runs])))
    left_out = _left_out(found)
    if left_out:
        print(f"\nLeft out: {left_out}.")
    if asked.table:
        return
    out: Path = asked.out or asked.folder[0]
    if not is_writable(out):
        raise ConfigError(f"{out} cannot be written: --out names another folder for the report")
    from kdlit.report.whole import put_together, write

    moved = {"data.root": asked.data_root, "cache_dir": asked.cache_dir}
    knowledge = None if asked.no_pictures else _knowledge(settings.ranked, moved)
    origin = f"Made by scripts/report.py from {', '.join(map(str, asked.folder))}."
    report = put_together(found, settings, ranked, origin, knowledge)
    page, text = write(report, out)
    print(f"\nWritten to {page} and {text}")


def _left_out(found: Found) -> str:
    kinds = (
        (len(found.broken), "broken"),
        (len(found.unfinished), "unfinished"),
        (len(found.other_data), "on other data"),
        (found.teachers, "of teachers alone"),
    )
    return ", ".join(f"{count} {kind}" for count, kind in kinds if count)


# Dark knowledge -------------------------------------------------------------------------------


def _knowledge(ranked: "Sequence[Setting]", moved: dict[str, Any]) -> "Section":
    """Return the section on teacher and student of the first seed of the best setting.

    Where its teacher is not there it is that of the best of the next ones that has one.
    """
    from kdlit.report import knowledge

    reasons = []
    for setting in ranked[:_MOST_ASKED]:
        try:
            return knowledge.section(see(setting.runs[0].folder, setting.name, moved))
        except TeacherError as error:
            reasons.append(str(error))
        # Whatever is missing of an old run, the report has all the rest.
        except Exception as error:
            own = isinstance(error, KdlitError)
            reasons.append(str(error) if own else f"{type(error).__name__}: {error}")
            break
    return knowledge.missing(f"{reasons[0]}.")


def see(folder: Path, setting: str, moved: dict[str, Any]) -> "Seen":
    """Ask teacher and student of a run for the test set.

    Args:
        folder: the run's directory.
        setting: what to call it.
        moved: keys of its configuration to replace where they are not None.

    Raises:
        KdlitError: if data, teacher or student are not there; nothing is downloaded or trained.
    """
    import torch
    from rich.progress import track

    from kdlit.app.finished import FinishedRun
    from kdlit.batch import Batch
    from kdlit.report.knowledge import Seen

    run = FinishedRun.read(folder, moved)
    _check_teacher(run)
    _check_data(run)
    data, teacher, student = run.data, run.teacher, run.student
    if teacher is None:
        raise TeacherError(f"{folder} has no teacher")
    loader = data.test_dataloader()
    loader = loader[0] if isinstance(loader, Sequence) else loader
    parts: list[tuple[torch.Tensor, ...]] = []
    with torch.no_grad():
        for raw in track(loader, "Teacher and student", transient=True, disable=_quiet()):
            batch = Batch.of(data.on_after_batch_transfer(raw, 0))
            if not isinstance(batch.inputs, torch.Tensor) or batch.target is None:
                raise DataError("the test set's batches are not images with labels")
            answers = teacher(batch).logits, batch.run(student).logits
            parts.append((batch.inputs, batch.target, *(a.float() for a in answers)))
    images, target, theirs, ours = (torch.cat(column) for column in zip(*parts, strict=True))
    classes = getattr(data, "class_names", None) or range(theirs.shape[1])
    return Seen(images, target, theirs, ours, [*map(str, classes)], setting, run.summary["seed"])


def _quiet() -> bool:
    return not sys.stdout.isatty()


def _check_teacher(run: "FinishedRun") -> None:
    """Raise `TeacherError` if the teacher would have to be trained for a report."""
    from kdlit.app.build import build

    option = build(run.config, "teacher")
    if not option.gives_network:
        raise TeacherError(f"{run.folder} had no teacher")
    if not option.outlives_run:
        raise TeacherError(f"the teacher of {run.folder} is gone with the run")
    if not option.is_cached(run.config):
        raise TeacherError(
            f"the teacher of {run.folder} is not in {run.config.cache_dir}, and none is trained "
            "for a report; --cache-dir says where it is"
        )


def _check_data(run: "FinishedRun") -> None:
    """Raise `DataError` if the data would have to be downloaded for a report."""
    from kdlit.app.build import build_part, real_data

    node = real_data(run.config)
    root = node.get("root")
    downloaded = getattr(build_part(node, "data"), "is_downloaded", True)
    if not downloaded or (root is not None and not Path(root).is_dir()):
        raise DataError(
            f"the data of {run.folder} are not in {root}; --data-root says where they are"
        )
