"""What the README tells people to type works."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

import kdlit
from conftest import REPOSITORY
from kdlit.app import evaluate, export, report, search, train
from kdlit.app.cli import register_resolvers

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    shlex.split(line, comments=True)[1:]
    for line in re.sub(r"\\\n\s*", "", README).splitlines()
    if line.startswith("python scripts/")
]
TRAIN = [words[1:] for words in COMMANDS if words[0] == "scripts/train.py"]
AFTER = [words for words in COMMANDS if words[0] in {"scripts/evaluate.py", "scripts/export.py"}]
SEARCH = [words[1:] for words in COMMANDS if words[0] == "scripts/search.py"]
DEMO = [words for words in COMMANDS if words[0] == "scripts/demo.py"]


def test_there_are_commands_and_their_scripts_exist():
    assert len(TRAIN) >= 8
    assert all((REPOSITORY / words[0]).is_file() for words in COMMANDS)
    names = {
        f"scripts/{name}.py"
        for name in (
            "train",
            "report",
            "compare",
            "evaluate",
            "export",
            "demo",
            "search",
            "reproduce",
        )
    }
    assert {words[0] for words in COMMANDS} <= names


VALUES = [
    f"data.root={REPOSITORY / 'data'}",
    "data.train_size=300",
    "data.batch_size=16",
    "data.val_size=500",
    "teacher.trainer.max_epochs=1",
    "teacher.data.train_size=2000",
    "teacher.teacher.trainer.max_epochs=1",
    "teacher.teacher.data.train_size=2000",
    "trainer.max_epochs=1",
    "trainer.limit_test_batches=2",
    "trainer.log_every_n_steps=2",
]
OWN_VALUES = {value.partition("=")[0] for value in VALUES}
# Commands that differ in nothing but what is made small here are one.
DISTINCT = {
    tuple(w for w in words if w.partition("=")[0] not in OWN_VALUES): words for words in TRAIN
}


def smaller(words: list[str]) -> list[str]:
    """Return the command with its own choices, and everything that takes long made short."""
    given = [word for word in words if not word.startswith("-")]
    # Of a long list two say as much; every label strategy has its own tests.
    given = [",".join(w.split(",")[:2]) if w.startswith(("seed=", "label=")) else w for w in given]
    flags = [word for word in words if word.startswith("-")]
    chosen = [word for word in given if "," not in word or "[" in word]
    quick = []
    if not any(word.startswith("trainer=") for word in given):
        quick.append("trainer=cpu")
    if not any(word.startswith(("teacher", "experiment=", "feature")) for word in given):
        quick += ["teacher/network=mlp", "teacher.network.widths=[32]"]
    register_resolvers()
    GlobalHydra.instance().clear()
    with initialize_config_module("kdlit.conf", version_base="1.3"):
        config = compose("train", [word for word in chosen if not word.startswith("ckpt_path")])
    have = [line for line in VALUES if _has(config, line.split("=")[0])]
    return [*flags, *given, *quick, *have]


def _has(config, key: str) -> bool:
    """Return whether a configuration has a key, whatever its value."""
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(config, parent)
    return node is not None and name in node


@pytest.mark.parametrize("words", DISTINCT.values(), ids=" ".join)
def test_training_commands(words, tmp_path, monkeypatch):
    if any(word in {"--help", "-h"} for word in words) or "--cfg" in words:
        pytest.skip("prints and exits")
    monkeypatch.chdir(tmp_path)
    for word in words:
        if word.startswith("teacher.path="):
            pytest.skip("names a file of the user's")
    arguments = [*smaller(words), f"cache_dir={tmp_path / 'cache'}"]

    def call(arguments: list[str]) -> None:
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
        GlobalHydra.instance().clear()
        train.main()

    if "trainer=ddp" in words:  # starts processes with the command line of this one
        script = str(REPOSITORY / "scripts" / "train.py")
        subprocess.run([sys.executable, script, *arguments], check=True)
    else:
        if "ckpt_path=last" in words:
            call([word for word in arguments if word != "ckpt_path=last"])
        call(arguments)
    assert list(tmp_path.rglob("summary.json"))
    monkeypatch.setattr(sys, "argv", ["report.py", str(tmp_path)])
    if "task=teacher" not in words:
        report.main()


@pytest.mark.parametrize("words", SEARCH, ids=" ".join)
def test_searches(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = smaller([word for word in words if "=" in word])
    arguments = [*settings, f"cache_dir={tmp_path / 'cache'}", "--trials", "1"]
    monkeypatch.setattr(sys, "argv", ["search.py", *arguments])
    GlobalHydra.instance().clear()
    search.main()
    assert list(tmp_path.glob("searches/*/0/summary.json"))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Return the directory of a finished run: what stands behind `<time>` in the README."""
    folder = tmp_path_factory.mktemp("readme")
    words = [*smaller(["label=soft"]), f"cache_dir={folder / 'cache'}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train.py", *words, f"hydra.run.dir={folder / 'run'}"])
        GlobalHydra.instance().clear()
        train.main()
    return folder / "run"


def with_names(words: list[str], run: Path) -> list[str]:
    """Put names of files where the README has placeholders."""
    names = {
        "run": run,
        "weights": run / "student.safetensors",
        "config": run / "config.yaml",
        "out": run / "elsewhere",
    }
    given = [word.partition("=") for word in words]
    return [f"{key}={names[key]}" if "<" in value else f"{key}={value}" for key, _, value in given]


@pytest.mark.parametrize("words", AFTER, ids=" ".join)
def test_commands_after_training(words, run, tmp_path, monkeypatch):
    run = shutil.copytree(run, tmp_path / "run")
    given = with_names(words[1:], run)
    if words[0].endswith("evaluate.py"):
        command, made = evaluate.main, "evaluation.json"
        if not any(word.startswith("latency=") for word in given):
            given += ["latency=[eager]", "rounds=3"]  # the compiler alone takes half a minute
    else:
        command, made = export.main, "student.onnx"
        given.append("samples=200")
        if "int8" in " ".join(given):  # so little trained that single decisions are loose
            given.append("int8_tolerance=100")
    monkeypatch.setattr(sys, "argv", [words[0], *given])
    GlobalHydra.instance().clear()
    command()
    assert list(run.rglob(made))


@pytest.mark.parametrize("words", DEMO, ids=" ".join)
def test_the_demo(words, run):
    command = [sys.executable, str(REPOSITORY / words[0]), *with_names(words[1:], run), "port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            address = re.search(r"http://\S+", server.stdout.readline())
            assert b"<canvas" in urlopen(address[0], timeout=20).read()
        finally:
            server.terminate()


def test_the_student_elsewhere(run):
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL)
               if "load_student" in block]  # fmt: skip
    names = {"kdlit": kdlit, "pixels": torch.zeros(2, 1, 28, 28, dtype=torch.uint8)}
    exec(code.replace("outputs/soft-article/<time>", str(run)), names)
    assert names["logits"].shape == (2, 10)
