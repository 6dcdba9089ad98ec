"""The floors of the house: each may import those below it, never above."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "kdlit"

# From the ground up. A name stands for kdlit/<name>.py or the package kdlit/<name>/.
FLOORS = [
    {"errors"},
    {"checks", "files", "randomness"},
    {"functional", "weights", "schedules"},
    {"batch", "models", "tally"},
    {"taps", "mixup", "allowlist", "positions", "metrics", "guest"},
    {"tasks"},
    {"loading", "objectives", "teachers", "loggers", "progress"},
    {"data"},
    {"checkpoints", "interruption", "reproducibility", "passes"},
    {"classifier"},
    {"supervised", "distiller", "optimizers"},
    {"distillation", "callback"},
    {"demo", "evaluation", "export", "report"},
    {"app", "__main__"},
]
FLOOR_OF = {name: floor for floor, names in enumerate(FLOORS) for name in names}
FILES = sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")


def part_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_down(path):
    own = part_of(path)
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "kdlit" and len(parts) > 1 and parts[1] in FLOOR_OF and parts[1] != own:
            assert FLOOR_OF[parts[1]] < FLOOR_OF[own], f"{own} imports {name}"
        assert parts[0] not in {"hydra", "omegaconf"} or own == "app", f"{own} imports {name}"


def test_every_part_has_a_floor():
    assert {part_of(path) for path in FILES} == set(FLOOR_OF)


def test_the_squared_temperature_stands_in_one_place():
    found = [
        f"{path.name}: {line.strip()}"
        for path in FILES
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(r"temperature\s*(\*\*|\.square|\.pow|\*\s*\S*temperature)", line)
    ]
    assert len(found) == 1, found


def test_importing_kdlit_imports_neither_torch_nor_hydra():
    code = "import sys, kdlit; assert not {'torch', 'hydra', 'lightning'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_can_be_imported():
    import kdlit

    assert set(kdlit.__all__) == set(kdlit._HOME_OF)
    assert all(getattr(kdlit, name).__name__ == name for name in set(kdlit.__all__) - {"x"})
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        kdlit.nonsense  # noqa: B018
