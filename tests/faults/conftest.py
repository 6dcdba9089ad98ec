"""Faults on purpose: runs that are killed, disks that are full, files that are damaged.

    KDLIT_FIGURES=docs/reliability.json python -m pytest -m slow tests/faults

writes down what docs/reliability.md tells of them.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from kdlit.files import write_json


@pytest.fixture
def figures() -> Callable[[str, dict], None]:
    """Note what was counted under a name, in the file that `KDLIT_FIGURES` names, if it does."""

    def note(name: str, found: dict) -> None:
        print(name, found)
        place = os.environ.get("KDLIT_FIGURES")
        if place:
            path = Path(place)
            with FileLock(path.with_suffix(".lock")):
                before = json.loads(path.read_text()) if path.is_file() else {}
                write_json(path, {**before, name: found})

    return note
