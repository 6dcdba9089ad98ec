"""What a student's file says of it, the same wherever it is written."""

from collections.abc import Iterable, Mapping
from typing import Any

from omegaconf import DictConfig

from kdlit.app.build import plain
from kdlit.objectives import Objective

_OF_TEACHER = ("type", "parameters", "training_samples", "test")


def student_metadata(
    config: DictConfig, summary: Mapping[str, Any], data: Any, objectives: Iterable[Objective]
) -> dict[str, Any]:
    """Return the metadata of a student's weights; :func:`kdlit.loading.read_card` reads them.

    Args:
        config: of the run.
        summary: of the run.
        data: the datamodule.
        objectives: of the run; one that has changed the student is named.
    """
    teacher = summary["teacher"]
    return {
        "student": plain(config.student),
        "rebuilt_by": next((type(o).__name__ for o in objectives if hasattr(o, "rebuild")), None),
        "input": _input(data),
        "classes": _classes(data),
        "label": plain(config.label),
        "feature": plain(config.feature) if config.get("feature") else {},
        "teacher": teacher and {
            **{key: teacher[key] for key in _OF_TEACHER if key in teacher},
            "weights": teacher["card"].get("weights"),
        },
        "test": summary["student"]["test"],
        "versions": summary["versions"],
    }  # fmt: skip


def _input(data: Any) -> dict[str, Any] | None:
    """Return how a datamodule prepares pixels, where it says so."""
    said: list[Any] = [
        getattr(data, name, None) for name in ("sample_shape", "mean", "std", "pixel_scale")
    ]
    if any(value is None for value in said):
        return None
    shape, mean, std, scale = said
    return {"shape": list(shape), "mean": _json(mean), "std": _json(std), "scale": float(scale)}


def _json(value: Any) -> float | list[float]:
    return float(value) if isinstance(value, (int, float)) else [float(number) for number in value]


def _classes(data: Any) -> list[str]:
    names = getattr(data, "class_names", None)
    if names is None:
        names = range(getattr(data, "num_classes", 0))
    return [str(name) for name in names]
