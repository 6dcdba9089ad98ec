"""Experiments that end in a table: what `conf/paper/<name>.yaml` says of one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from omegaconf import OmegaConf

from kdlit.app.cli import CONFIG_MODULE
from kdlit.checks import did_you_mean
from kdlit.errors import ConfigError


@dataclass(frozen=True)
class Experiment:
    """One experiment in one size: rows by columns, each cell a sweep over seeds.

    Attributes:
        name: of the experiment.
        size: of it, such as `full`.
        seeds: of every cell.
        settings: overrides of every run.
        rows: overrides by the row's name.
        columns: overrides by the column's name.
        text: what the table says beside the numbers: `title`, `about`, `measure`, `rows_are`,
            `differences`, and, where there are any, `picture`, `baseline`, `reference` and
            `references`.
    """

    name: str
    size: str
    seeds: Sequence[int]
    settings: Sequence[str]
    rows: Mapping[str, Sequence[str]]
    columns: Mapping[str, Sequence[str]]
    text: Mapping[str, Any]

    @classmethod
    def read(cls, name: str, size: str) -> "Experiment":
        """Read an experiment of `conf/paper`.

        Raises:
            ConfigError: if there is none of this name, or it has no such size.
        """
        folder = resources.files(CONFIG_MODULE) / "paper"
        known = experiments()
        if name not in known:
            raise ConfigError(f"there is no experiment {name}: {did_you_mean(name, known)}")
        text = (folder / f"{name}.yaml").read_text(encoding="utf-8")
        found: Any = OmegaConf.to_container(OmegaConf.create(text))
        sizes, columns = found.pop("sizes"), found.pop("columns")
        if size not in sizes:
            raise ConfigError(f"{name} has no size {size}: {did_you_mean(size, sizes)}")
        chosen = sizes[size]
        kept = chosen.get("columns", list(columns))
        return cls(
            name, size, chosen["seeds"], chosen["settings"], chosen["rows"],
            {column: columns[column] for column in kept}, found,
        )  # fmt: skip

    def overrides(self, row: str, column: str) -> list[str]:
        """Return what a cell overrides, the seed left out."""
        return [*self.settings, *self.rows[row], *self.columns[column]]


def experiments() -> list[str]:
    """Return the names of the experiments that there are.

    >>> "few_labels" in experiments()
    True
    """
    folder = resources.files(CONFIG_MODULE) / "paper"
    return sorted(
        path.name.removesuffix(".yaml") for path in folder.iterdir() if path.name.endswith(".yaml")
    )
