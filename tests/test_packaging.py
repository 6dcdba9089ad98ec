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


# What the required dependencies bring to a program that only distils.
PLAIN = """
import sys
import lightning, torch, torchmetrics
from torch.utils.data import DataLoader, TensorDataset
theirs = set(sys.modules)  # torchmetrics imports what it finds installed
import kdlit
data = TensorDataset(torch.randn(64, 4), torch.randint(3, (64,)))
module = kdlit.DistillationModule(student=torch.nn.Linear(4, 3), teacher=torch.nn.Linear(4, 3))
lightning.Trainer(
    max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False
).fit(module, DataLoader(data, 16))
heavy = {"hydra", "transformers", "timm", "jinja2", "onnx", "onnxruntime", "optuna", "starlette"}
print("imported:", sorted(heavy & (set(sys.modules) - theirs)))
"""


def test_distilling_imports_no_hydra_and_no_extra():
    done = subprocess.run(
        [sys.executable, "-c", PLAIN], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "imported: []"


@pytest.mark.slow  # installs torch once more
def test_the_wheel_alone_in_a_new_environment(wheel, tmp_path):
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = environment / "bin" / "python"
    install = [python, "-m", "pip", "install", "-q", "-c", REPOSITORY / "constraints.txt"]
    subprocess.run([*install, wheel], check=True, cwd=tmp_path)

    plain = subprocess.run(
        [python, "-c", PLAIN], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert plain.returncode == 0, plain.stderr
    assert plain.stdout.splitlines()[-1] == "imported: []"

    def call(command, *words):
        return subprocess.run(
            [environment / "bin" / f"kdlit-{command}", *words],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip

    shown = call("train", "--help")
    assert shown.returncode == 0, shown.stderr
    assert "label=soft" in shown.stdout
    refused = call("demo", "run=.")
    assert refused.returncode == 1
    assert "kdlit[demo]" in refused.stderr, refused.stderr
