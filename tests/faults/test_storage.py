"""A disk that is full, only read, or gone, at each moment at which something is written."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from small import SMALL

FEW = [*SMALL, "data.val_size=100", "trainer.limit_test_batches=2"]
LAST, ANEW = ("ckpt_path=last",), ()
# What is being written: the file that is opened then, the how-manieth time, the way on.
PHASES = {
    "teacher": (r"/\.mnist-mlp-seed0-\w+\.safetensors\.", 1, ANEW),
    "card of the teacher": (r"/\.mnist-mlp-seed0-\w+\.json\.", 1, ANEW),
    "outputs": (r"/table/0\.npy$", 1, ANEW),
    "card of the outputs": (r"/\.card\.json\.", 1, ANEW),
    "configuration": (r"/\.config\.yaml\.", 1, ANEW),
    "first best.ckpt": (r"/\.best\.ckpt\.", 1, ANEW),
    "first last.ckpt": (r"/\.last\.ckpt\.", 1, LAST),
    # A file that is written is opened three times.
    "next best.ckpt": (r"/\.best\.ckpt\.", 4, LAST),
    "next last.ckpt": (r"/\.last\.ckpt\.", 4, LAST),
    "metrics.csv": (r"/\.metrics\.csv\.", 7, LAST),
    "events": (r"/events\.out", 1, ANEW),
    "student": (r"/\.student\.safetensors\.", 1, LAST),
    "summary": (r"/\.summary\.json\.", 1, LAST),
}
OF_THE_CACHE = {"teacher", "card of the teacher", "outputs", "card of the outputs"}


class Stage:
    """Where the commands are called, and what came of them."""

    def __init__(self, place: Path) -> None:
        self.place, self.disk = place, place / "disk"
        self.scenes = [self.scene("reference", None, ANEW)]

    def train(self, name: str, cache: Path, *more: str) -> list[str]:
        return ["train", *FEW, f"cache_dir={cache}", f"hydra.run.dir={self.disk / name}", *more]

    def scene(self, name: str, fault: dict | None, way_on, *more: str, cache=None) -> dict:
        cache = cache or self.place / "cache"
        first = self.train(name, cache, *more)
        commands = [first] if fault is None else [first, [*first, *way_on]]
        return {"name": name, "commands": commands, **(fault or {})}

    def phase(self, phase: str, fault: str) -> None:
        at, nth, way_on = PHASES[phase]
        cache = self.disk / f"cache of {phase}" if phase in OF_THE_CACHE else None
        more = ["logger=[tensorboard]"] if phase == "events" else []
        fault = {"fault": fault, "at": at, "nth": nth}
        self.scenes.append(self.scene(phase, fault, way_on, *more, cache=cache))

    def call(self) -> dict[str, list[dict]]:
        plan, found = self.place / "plan.json", self.place / "found.json"
        plan.write_text(
            json.dumps({"folder": str(self.disk), "size": "64m", "scenes": self.scenes})
        )
        driver = Path(__file__).with_name("saboteur.py")
        words = ["unshare", "-rm", sys.executable, str(driver), str(plan), str(found)]
        called = subprocess.run(words, capture_output=True, text=True, cwd=self.place)
        assert called.returncode == 0, called.stderr
        assert called.stderr == "", "something was said at the end"
        return json.loads(found.read_text())


def can_mount() -> bool:
    """Return whether this user can mount a file system, in a name space of its own."""
    if shutil.which("unshare") is None:
        return False
    words = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(words, capture_output=True).returncode == 0


pytestmark = pytest.mark.skipif(
    not can_mount(), reason="no file system can be mounted: `unshare -rm` is not allowed here"
)


@pytest.fixture
def stage(tmp_path) -> Stage:
    return Stage(tmp_path)


def check_error(told: list[dict], why: str, place: Path) -> None:
    """Check that a command failed as it should: one line, nothing lost, nothing that is half."""
    before, failed = told[0]["files"], told[1]
    assert failed["happened"]
    assert failed["code"] == 1, failed["error"]
    assert failed["error"].startswith("kdlit: ")
    assert failed["error"].count("\n") == 1
    assert f"{place}" in failed["error"]
    assert why in failed["error"]
    assert {path: failed["files"].get(path) for path in before} == before
    if "Read-only" not in why:  # else what was begun must stay, for now
        check_nothing_unfinished(failed["files"])


def check_nothing_unfinished(files: dict[str, str]) -> None:
    hidden = {part for path in files for part in Path(path).parts if part.startswith(".")}
    assert hidden <= {".hydra", ".lock"}


def check_right(told: list[dict], reference: list[dict], *but: str) -> None:
    """Check that the command that goes on comes to what a run without a fault comes to."""
    assert told[-1]["code"] == 0, told[-1]["error"]
    found, wanted = told[-1]["result"], reference[-1]["result"]
    assert {key: found[key] for key in found if key not in but} == {
        key: wanted[key] for key in wanted if key not in but
    }
    check_nothing_unfinished(told[-1]["files"])


def test_a_disk_that_is_full_when_a_checkpoint_is_written(stage):
    stage.phase("next last.ckpt", "full")
    found = stage.call()
    check_error(found["next last.ckpt"], "No space left on device: make room there", stage.disk)
    assert "last.ckpt cannot be written" in found["next last.ckpt"][1]["error"]
    assert "ckpt_path=last" in found["next last.ckpt"][1]["error"]
    check_right(found["next last.ckpt"], found["reference"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "why"), [("full", "No space left on device"), ("read-only", "Read-only file system")]
)
def test_whatever_is_written_when_the_disk_fails(stage, figures, fault, why):
    for phase in PHASES:
        stage.phase(phase, fault)
    found = stage.call()
    reference = found.pop("reference")
    for phase, told in found.items():
        check_error(told, why, stage.disk)
        check_right(told, reference, *(["rows"] if phase == "events" else []))
    figures(f"storage: {fault}", {"phases": len(found), "right afterwards": len(found)})


@pytest.mark.slow
def test_a_disk_that_is_full_from_the_start(stage):
    stage.scenes.append(stage.scene("start", {"fault": "full", "at": r"conf/train\.yaml$"}, ANEW))
    found = stage.call()
    check_error(found["start"], "there is no room", stage.disk)
    assert found["start"][1]["files"] == found["start"][0]["files"]
    check_right(found["start"], found["reference"])


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["full", "read-only"])
def test_an_export_and_a_report(stage, fault):
    run = stage.disk / "reference"
    export = ["export", f"run={run}", f"out={stage.disk / 'export'}", "formats=[safetensors,onnx]",
              "samples=100"]  # fmt: skip
    report = ["report", str(run), "--out", str(stage.disk / "report"), "--no-pictures"]
    scenes = {
        "first file": (r"/student\.safetensors$", export),
        "second file": (r"/student\.onnx$", export),
        "card": (r"/\.README\.md\.", export),
        "page": (r"/\.report\.html\.", report),
    }
    for name, (at, words) in scenes.items():
        stage.scenes.append({"name": name, "fault": fault, "at": at, "commands": [words, words]})
    found = stage.call()
    why = "No space left on device" if fault == "full" else "Read-only file system"
    for name in scenes:
        check_error(found[name], why, stage.disk)
        assert found[name][2]["code"] == 0
        check_nothing_unfinished(found[name][2]["files"])


@pytest.mark.slow
def test_a_folder_that_is_removed_while_a_run_writes_to_it(stage):
    before, during = stage.disk / "before", stage.disk / "during"
    for place, at in ((before, r"/val-\w+/0\.npy$"), (during, r"/\.best\.ckpt\.")):
        fault = {"fault": "gone", "what": str(place), "at": at}
        stage.scenes.append(stage.scene(place.name, fault, ANEW))
    found = stage.call()
    assert found["before"][1]["code"] == 0, found["before"][1]["error"]
    told = found["during"]
    assert told[1]["code"] == 1
    assert told[1]["error"].startswith(f"kdlit: {during / 'best.ckpt'} cannot be written: No such")
    check_right(told, found["reference"])
