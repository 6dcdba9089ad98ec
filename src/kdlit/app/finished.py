"""A run that is over: its networks and data made again from its directory, or from its files."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn
from yaml import YAMLError

from kdlit.app.build import build, build_all, build_part, real_data
from kdlit.app.options import PreparedTeacher, TeacherOption
from kdlit.app.resume import CONFIG_FILE, SUMMARY_FILE
from kdlit.errors import ConfigError, TeacherError
from kdlit.loading import STUDENT_FILE
from kdlit.teachers import TeacherSource
from kdlit.teachers.frozen import as_source
from kdlit.weights import load_weights


@dataclass(frozen=True)
class FinishedRun:
    """A run's directory, read; what it holds is made when it is first asked for.

    Attributes:
        folder: the run's directory.
        config: its configuration, as it was composed.
        summary: its `summary.json`; empty where there are a student's file and a configuration
            alone.
        student_file: the student's weights.
    """

    folder: Path
    config: DictConfig
    summary: dict[str, Any]
    student_file: Path

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
        config = _configuration(folder / CONFIG_FILE, f"run={folder}", folder, overrides)
        return cls(folder, config, _json(folder / SUMMARY_FILE), folder / STUDENT_FILE)

    @classmethod
    def of_files(
        cls, student: str | Path, config: str | Path, overrides: dict[str, Any] | None = None
    ) -> "FinishedRun":
        """Read a student's file and a configuration like that of a run, wherever they lie.

        Args:
            student: the weights.
            config: says with `student` which network it is, and with `data` which data there are;
                without `teacher` there is none. SimKD needs its `feature`, too.
            overrides: see :meth:`read`.

        Raises:
            ConfigError: if one of the files is missing or is no such file.
        """
        student, config = Path(student), Path(config)
        if not student.is_file():
            raise ConfigError(f"weights={student}: there is no such file")
        if not config.is_file():
            raise ConfigError(f"config={config}: there is no such file")
        found = _configuration(config, f"config={config}", student.parent, overrides)
        for key in ("student", "data"):
            if key not in found:
                raise ConfigError(
                    f"config={config}: there is no key {key}, as a run's {CONFIG_FILE} has"
                )
        return cls(student.parent, found, {}, student)

    @cached_property
    def data(self) -> Any:
        """The datamodule of real samples, set up."""
        data = build_part(real_data(self.config), "data")
        data.prepare_data()
        data.setup()
        return data

    @cached_property
    def prepared_teacher(self) -> PreparedTeacher | None:
        """The teacher, and what is known of it; None where `teacher` is None.

        None is trained: it would take as long as it did then, in a cache that may have been
        named from another folder, and on another machine have other weights.

        Raises:
            TeacherError: if it is not in the cache, or not the one that the student learned from.
        """
        if self.config.get("teacher") is None:
            return None
        option = build(self.config, "teacher")
        if not isinstance(option, TeacherOption):
            raise ConfigError(f"teacher: {self.config.teacher._target_} is no option of the group")
        if not option.gives_network or not option.outlives_run:
            return None
        if not option.is_cached(self.config):
            raise TeacherError(
                f"run={self.folder}: its teacher is not in {self.config.cache_dir}, and none is "
                "trained for a finished run: cache_dir=<folder> says where it is; train.py with "
                "the run's settings and task=teacher trains it again"
            )
        option.check(self.config)
        prepared = option.prepare(self.config)
        learned_from = _weights((self.summary.get("teacher") or {}).get("card", {}))
        if learned_from and learned_from != _weights(prepared.card):
            raise TeacherError(
                f"run={self.folder}: the teacher in {self.config.cache_dir} has other weights than "
                "the one that this student learned from (trained anew since, or on another "
                "machine): cache_dir=<folder> names another cache"
            )
        return None if prepared.network is None else prepared

    @cached_property
    def teacher(self) -> TeacherSource | None:
        """The teacher; None without one, or where it was the student's own average.

        Raises:
            TeacherError: as :attr:`prepared_teacher`.
        """
        prepared = self.prepared_teacher
        if prepared is None or prepared.network is None:
            return None
        return as_source(prepared.network)

    @cached_property
    def student(self) -> nn.Module:
        """The student with its trained weights, in evaluation mode."""
        student: nn.Module = build(self.config, "student")
        label = [build(self.config, "label")] if self.config.get("label") is not None else []
        for objective in (*label, *build_all(self.config, "feature").values()):
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


def _weights(card: dict[str, Any]) -> list[str]:
    """Return the fingerprints of a teacher's weights, or of all members' of an ensemble."""
    cards = card.get("members", [card])
    return [one["weights"] for one in cards if one.get("weights")]


def _configuration(
    path: Path, told: str, folder: Path, overrides: dict[str, Any] | None
) -> DictConfig:
    try:
        config = OmegaConf.load(path)
    except (OSError, ValueError, YAMLError) as error:
        raise ConfigError(f"{told}: {path.name} cannot be read: {error}") from error
    if not isinstance(config, DictConfig):
        raise ConfigError(f"{told}: {path.name} is not a configuration")
    config.run_dir = str(folder)
    for key, value in (overrides or {}).items():
        if value is not None:
            OmegaConf.update(config, key, value)
            if key == "data.root" and "real" in config.data:
                config.data.real.root = value
    return config


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path} cannot be read: it holds no object")
    return found
