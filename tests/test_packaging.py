"""The wheel holds everything, and serves another project's configuration."""

import os
import shutil
import subprocess
import sys
import zipfile

import pytest

from conftest import REPOSITORY


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = tmp_path_factory.mktemp("source") / "kdlit"
    # A copy, so that nothing stale is built and nothing is left here.
    for name in ("src", "conf"):
        ignored = shutil.ignore_patterns("*.egg-info", "__pycache__")
        shutil.copytree(REPOSITORY / name, source / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source / name)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(folder)],
        cwd=source, check=True, capture_output=True,
    )  # fmt: skip
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_code_configuration_and_licence(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    options = {f"kdlit/conf/{path.relative_to(REPOSITORY / 'conf')}"
               for path in (REPOSITORY / "conf").rglob("*.yaml")}  # fmt: skip
    modules = {f"kdlit/{path.relative_to(REPOSITORY / 'src' / 'kdlit')}"
               for path in (REPOSITORY / "src" / "kdlit").rglob("*.py")}  # fmt: skip
    others = {"kdlit/py.typed", "kdlit/conf/__init__.py"}
    others |= {f"kdlit/report/templates/{name}" for name in ("page.html.jinja", "page.css")}
    assert options | modules | others <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not any(name.startswith(("tests", "data", "scripts")) for name in names)


def test_another_project_composes_from_the_installed_wheel(wheel, tmp_path):
    target = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(target)
    (tmp_path / "config.yaml").write_text(
        "defaults:\n  - label: soft\n  - _self_\nhydra:\n  searchpath: [pkg://kdlit.conf]\n"
    )
    (tmp_path / "app.py").write_text(
        "import hydra, kdlit, kdlit.conf\n"
        "from hydra.utils import instantiate\n"
        "@hydra.main(version_base='1.3', config_path='.', config_name='config')\n"
        "def main(config):\n"
        "    print(kdlit.__file__, kdlit.conf.__file__, instantiate(config.label))\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "app.py", "label=hard", "label.alpha=0.7"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(target)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    code, conf, label = done.stdout.strip().split(" ", 2)
    assert code.startswith(str(target))
    assert conf.startswith(str(target))
    assert label == "HardLabels(hard=0.7, truth=0.3)"
