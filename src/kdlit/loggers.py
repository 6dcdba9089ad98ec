"""A metrics file that a resumed run continues."""

import csv
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from kdlit.files import write_atomically


class CSVMetricsLogger(Logger):
    """Writes one row per step and one column per metric; the file is always whole.

    Where the file exists already, its rows are kept as far as the first step that is logged, and
    those behind it are written again: a run that was resumed has the file of one that was not.

    Args:
        path: the file, such as `metrics.csv`.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "metrics.csv")
    >>> logger = CSVMetricsLogger(path)
    >>> logger.log_metrics({"loss": 0.5}, step=9)
    >>> logger.finalize("success")
    >>> path.read_text().splitlines()
    ['step,loss', '9,0.5']
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.path = Path(path)
        self._rows: dict[int, dict[str, Any]] | None = None

    @property
    def name(self) -> str:
        """The file's name without its suffix."""
        return self.path.stem

    @property
    def version(self) -> str:
        """None of its own."""
        return ""

    @property
    def save_dir(self) -> str:
        """The file's folder."""
        return str(self.path.parent)

    @property
    def experiment(self) -> "CSVMetricsLogger":
        """The logger itself."""
        return self

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kw: Any) -> None:
        """Do nothing: the composed configuration lies beside the file."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add values to the row of a step."""
        step = 0 if step is None else step
        if self._rows is None:
            self._rows = {at: row for at, row in self._read().items() if at <= step}
        self._rows.setdefault(step, {"step": step}).update(metrics)

    def _read(self) -> dict[int, dict[str, Any]]:
        if not self.path.is_file():
            return {}
        with self.path.open(newline="", encoding="utf-8") as file:
            return {
                int(row["step"]): {name: value for name, value in row.items() if value}
                for row in csv.DictReader(file)
            }

    @rank_zero_only
    def save(self) -> None:
        """Write the file anew, atomically."""
        if self._rows:
            write_atomically(self.path, self._write)

    def _write(self, path: Path) -> None:
        rows = [self._rows[step] for step in sorted(self._rows)] if self._rows else []
        names = sorted({name for row in rows for name in row} - {"step", "epoch"})
        first = ["step", "epoch"] if any("epoch" in row for row in rows) else ["step"]
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=[*first, *names], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)

    @rank_zero_only
    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """Keep the file as far as the checkpoint that a run may be resumed from."""
        self.save()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what is left."""
        self.save()
