"""A run that is over: its networks and data made again from its directory."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from kdlit.app.build import build, build_all
from kdlit.app.options import TeacherOption
from kdlit.app.resume import CONFIG_FILE
from kdlit.errors import ConfigError, TeacherError
from kdlit.teachers import TeacherSource
from kdlit.teachers.frozen import as_source
from kdlit.weights import load_weights

STUDENT_FILE = "student.safetensors"
SUMMARY_FILE = "summary.json"


@dataclass(frozen=True)
class FinishedRun:
    """A run's directory, read; what it holds is made when it is first asked for.

    Attributes:
        folder: the run's directory.
        config: its configuration, as it was composed.
        summary: its `summary.json`.
    """

    folder: Path
    config: DictConfig
    summary: dict[str, Any]

    @classmethod
    def read(cls, folder: str | Path, overrides: dict[str, Any] | None = None) -> "FinishedRun":
        """Read a run's directory.

        Args:
            folder: as `train.py` has left it.
            overrides: keys of the configuration to replace, by their dotted names: places that
                have moved since, such as `data.root` or `cache_dir`; None leaves a key as it is.

        Raises:
            ConfigError: if there is no such run, if it was not finished, or if it trained a
                teacher alone.
        """
        folder = Path(folder)
        missing = [
            name
            for name in (CONFIG_FILE, SUMMARY_FILE, STUDENT_FILE)
            if not (folder / name).is_file()
        ]
        if missing == [STUDENT_FILE] and _json(folder / SUMMARY_FILE).get("task") == "teacher":
            raise ConfigError(f"run={folder}: this run trained a teacher and has no student")
        if missing:
            told = "there is no such directory" if not folder.is_dir() else (
                f"there is no {' and no '.join(missing)}: it is no run of train.py, or one that "
                "did not finish"
            )  # fmt: skip
            raise ConfigError(f"run={folder}: {told}")
        config = OmegaConf.load(folder / CONFIG_FILE)
        if not isinstance(config, DictConfig):
            raise ConfigError(f"run={folder}: {CONFIG_FILE} is not a configuration")
        config.run_dir = str(folder)
        for key, value in (overrides or {}).items():
            if value is not None:
                OmegaConf.update(config, key, value)
        return cls(folder, config, _json(folder / SUMMARY_FILE))

    @property
    def student_file(self) -> Path:
        """The student's weights."""
        return self.folder / STUDENT_FILE

    @cached_property
    def data(self) -> Any:
        """The datamodule, set up."""
        data = build(self.config, "data")
        data.prepare_data()
        data.setup()
        return data

    @cached_property
    def teacher(self) -> TeacherSource | None:
        """The teacher; None without one, or where it was the student's own average.

        A teacher that is no longer in the cache is trained anew.

        Raises:
            TeacherError: if it is not the one that the student learned from.
        """
        option = build(self.config, "teacher")
        if not isinstance(option, TeacherOption):
            raise ConfigError(f"teacher: {self.config.teacher._target_} is no option of the group")
        if not option.gives_network or not option.outlives_run:
            return None
        option.check(self.config)
        prepared = option.prepare(self.config)
        learned_from = (self.summary.get("teacher") or {}).get("card", {}).get("weights")
        if learned_from not in (None, prepared.card.get("weights")):
            raise TeacherError(
                f"run={self.folder}: the teacher in {self.config.cache_dir} has other weights than "
                "the one that this student learned from (trained anew since, or on another "
                "machine)"
            )
        return None if prepared.network is None else as_source(prepared.network)

    @cached_property
    def student(self) -> nn.Module:
        """The student with its trained weights, in evaluation mode."""
        student: nn.Module = build(self.config, "student")
        for objective in (
            build(self.config, "label"),
            *build_all(self.config, "feature").values(),
        ):
            # What an objective has put together is put together again.
            rebuild = getattr(objective, "rebuild", None)
            if rebuild is not None:
                network = self.teacher and self.teacher.single_network
                if network is None:
                    raise TeacherError(
                        f"run={self.folder}: {type(objective).__name__} needs one network as "
                        "teacher to put its student together"
                    )
                student = rebuild(student, network, torch.zeros(2, *self.data.sample_shape))
        load_weights(student, self.student_file)
        return student.eval()


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path} cannot be read: it holds no object")
    return found
