"""Experiments that end in a table: what `papers/<name>.yaml`, beside this file, says of one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from omegaconf import OmegaConf

from kdlit.checks import did_you_mean
from kdlit.errors import ConfigError

# No group of Hydra's: an experiment is many runs.
_FOLDER = resources.files("kdlit.app") / "papers"


@dataclass(frozen=True)
class Experiment:
    """One experiment in one size: rows by columns, each cell a sweep over seeds.

    Attributes:
        name: of the experiment.
        size: of it, such as `full`.
        seeds: of every cell.
        settings: overrides of every run.
        rows: overrides by the row's name.
        columns: by the column's name, overrides, or `of`: the column whose runs it reads.
        places: where in a run's summary a column's numbers stand, such as `student.test`.
        after: what is measured of each finished run, by name: a `function` of the run's directory,
            and its further arguments.
        shows: pictures of one run: `draw`, a function of the picture's path and the run's
            directory, `row` and `column`, `title` and `text`.
        text: what the table says beside the numbers: `title`, `about`, `measures`, `rows_are`,
            `differences`, and, where there are any, `picture`, `baseline`, `reference` and
            `finding`, which says in words what the numbers show.
    """

    name: str
    size: str
    seeds: Sequence[int]
    settings: Sequence[str]
    rows: Mapping[str, Sequence[str]]
    columns: Mapping[str, Sequence[str] | Mapping[str, str]]
    places: Mapping[str, str]
    after: Mapping[str, Mapping[str, Any]]
    shows: Sequence[Mapping[str, str]]
    text: Mapping[str, Any]

    @classmethod
    def read(cls, name: str, size: str) -> "Experiment":
        """Read an experiment of `papers/`.

        Raises:
            ConfigError: if there is none of this name, or it has no such size.
        """
        known = experiments()
        if name not in known:
            raise ConfigError(f"there is no experiment {name}: {did_you_mean(name, known)}")
        text = (_FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
        found: Any = OmegaConf.to_container(OmegaConf.create(text))
        sizes, columns = found.pop("sizes"), found.pop("columns")
        if size not in sizes:
            raise ConfigError(f"{name} has no size {size}: {did_you_mean(size, sizes)}")
        chosen = sizes[size]
        kept = {column: columns[column] for column in chosen.get("columns", columns)}
        place = found.pop("at", "student.test")
        places = {
            column: does.get("at", place) if isinstance(does, dict) else place
            for column, does in kept.items()
        }
        after, shows = found.pop("after", {}), found.pop("shows", [])
        # A size that is to be quick shows what is in it.
        shows = [show for show in shows if show["row"] in chosen["rows"] and show["column"] in kept]
        return cls(
            name, size, chosen["seeds"], chosen["settings"], chosen["rows"], kept, places, after,
            shows, found,
        )  # fmt: skip

    @property
    def cells(self) -> list[tuple[str, str]]:
        """The cells that have runs of their own, by row and column."""
        return [
            (row, column)
            for row in self.rows
            for column in self.columns
            if self.of(column) == column
        ]

    def of(self, column: str) -> str:
        """Return the column whose runs a column reads: most often itself."""
        does = self.columns[column]
        return does["of"] if isinstance(does, Mapping) else column

    def overrides(self, row: str, column: str) -> list[str]:
        """Return what a cell overrides, the seed left out."""
        return [*self.settings, *self.rows[row], *self.columns[self.of(column)]]


def experiments() -> list[str]:
    """Return the names of the experiments that there are.

    >>> "few_labels" in experiments()
    True
    """
    names = (path.name for path in _FOLDER.iterdir())
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))
