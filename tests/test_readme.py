"""What the README tells people to type works."""

import re
import shlex
import subprocess
import sys

import pytest
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from conftest import REPOSITORY
from kdlit.app import report, train
from kdlit.app.cli import register_resolvers

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    shlex.split(line, comments=True)[1:]
    for line in re.sub(r"\\\n\s*", "", README).splitlines()
    if line.startswith("python scripts/")
]
TRAIN = [words[1:] for words in COMMANDS if words[0] == "scripts/train.py"]


def test_there_are_commands_and_their_scripts_exist():
    assert len(TRAIN) >= 8
    assert all((REPOSITORY / words[0]).is_file() for words in COMMANDS)
    names = {
        f"scripts/{name}.py"
        for name in ("train", "report", "compare", "evaluate", "export", "demo")
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
    # Of a long list of seeds two say as much.
    given = [",".join(w.split(",")[:2]) if w.startswith("seed=") else w for w in given]
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
