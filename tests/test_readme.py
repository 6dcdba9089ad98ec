"""What the README tells people to type works."""

import re
import shlex
import subprocess
import sys

import pytest
from hydra.core.global_hydra import GlobalHydra

from app.conftest import SMALL
from conftest import REPOSITORY
from kdlit import report
from kdlit.app import train

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
    assert {words[0] for words in COMMANDS} <= {"scripts/train.py", "scripts/report.py"}


def smaller(words: list[str]) -> list[str]:
    """Keep what the command chooses, and make everything small that it leaves open."""
    chosen = {word.split("=")[0] for word in words}
    groups = " ".join(words)
    extra = []
    for line in SMALL:
        key = line.split("=")[0]
        if key.startswith("student") and ("student=" in groups or "experiment=" in groups):
            continue
        if key.startswith(("teacher/", "teacher.network")) and "experiment=" in groups:
            continue
        if key.startswith("teacher") and ("teacher=" in groups):
            continue
        if key == "trainer" and "trainer=" in groups:
            continue
        if key not in chosen:
            extra.append(line)
    limits = ["++trainer.max_epochs=1", "++trainer.limit_test_batches=2", "data.train_size=300"]
    flags = [word for word in words if word.startswith("-")]
    return [*flags, *extra, *(word for word in words if not word.startswith("-")), *limits]


@pytest.mark.parametrize("words", TRAIN, ids=" ".join)
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
