"""Whether a run keeps its teacher's outputs, and what it says of them."""

from collections.abc import Callable
from typing import Any

from torch import nn

from kdlit.app.options import TeacherOption
from kdlit.errors import ConfigError
from kdlit.mixup import Mix
from kdlit.objectives import Objective
from kdlit.teachers import TeacherSource, as_source


def source_of(
    network: nn.Module,
    cache: Callable[[nn.Module], TeacherSource],
    why_not: str | None,
) -> TeacherSource:
    """Return the teacher with or without its outputs kept."""
    return as_source(network) if why_not else cache(network)


def why_not_kept(
    option: TeacherOption,
    cache: Callable[[nn.Module], TeacherSource],
    data: Any,
    mix: Mix,
    objectives: list[Objective],
) -> str | None:
    """Return why a run asks its teacher itself, or None if it can keep its outputs.

    Raises:
        ConfigError: if the settings of the cache cannot work.
    """
    blank = option.blank()
    if blank is None:
        return "there is no teacher"
    teacher = as_source(blank)
    if teacher.changes:
        return "the teacher changes in training"
    try:
        kept = cache(teacher)
    except (ConfigError, TypeError) as error:
        raise ConfigError(f"cache: {error}") from error
    if not kept.by_sample:
        return "cache=none"
    if not hasattr(getattr(data.train_dataloader(), "dataset", None), "fingerprint"):
        return "the samples have no numbers; see kdlit.data.Indexed"
    if any(objective.needs_teacher for objective in objectives):
        if not mix.keeps_target:
            return "images are mixed"
        if getattr(data, "view_count", 1) is None:
            return "images are augmented anew in every epoch (data.views=null)"
    return None


def describe(source: TeacherSource | None, why_not: str | None) -> dict[str, Any]:
    """Return what the summary says of a teacher's outputs."""
    tables = getattr(source, "tables", {})
    if why_not or not tables:
        return {"kept": False, "why": why_not or "there was nothing to keep"}
    return {
        "kept": True,
        "seconds": round(getattr(source, "seconds", 0.0), 3),
        "tables": {
            name: {"file": table.place.name, "samples": table.samples, "views": table.views,
                   "bytes": table.bytes}
            for name, table in tables.items()
        },
    }  # fmt: skip
