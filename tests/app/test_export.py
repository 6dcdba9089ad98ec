"""The command that exports a finished run: what it writes, what it refuses, what it leaves."""

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hydra.core.global_hydra import GlobalHydra

from app.conftest import summary
from app.test_crd_and_simkd import SIMKD
from kdlit import load_student, read_card
from kdlit.app import demo
from kdlit.app.export import main
from kdlit.app.exporting import CARD_FILE, EXPORT_FILE
from kdlit.app.finished import FinishedRun
from kdlit.export import formats

ALL = "formats=[safetensors,onnx,program,int8]"


@pytest.fixture
def export(monkeypatch):
    """Call the command in this process; returns what `export.json` holds, by format."""

    def call(run: Path, *overrides: str, out: Path | None = None) -> dict[str, dict]:
        where = [] if out is None else [f"out={out}"]
        arguments = [f"run={run}", "samples=500", *where, *overrides]
        monkeypatch.setattr(sys, "argv", ["export.py", *arguments])
        GlobalHydra.instance().clear()
        main()
        return listed(out or run / "export")

    return call


@pytest.fixture
def refused(export, capsys):
    """Call the command, expect one line of error, and return it."""

    def call(*arguments, **options) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            export(*arguments, **options)
        assert stopped.value.code == 1
        error = capsys.readouterr().err.strip()
        assert error.startswith("kdlit: ")
        assert "\n" not in error
        return error

    return call


def listed(folder: Path) -> dict[str, dict]:
    files = json.loads((folder / EXPORT_FILE).read_text())["files"]
    return {file["format"]: file for file in files}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_everything(finished, export, capsys, tmp_path, monkeypatch):
    run = finished()
    monkeypatch.setenv("COLUMNS", "80")
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    capsys.readouterr()
    found = export(run, ALL)
    told = capsys.readouterr()
    folder = run / "export"
    assert names(folder) == {
        "student.safetensors", "student.onnx", "student.pt2", "student.int8.onnx",
        EXPORT_FILE, CARD_FILE,
    }  # fmt: skip
    for file in found.values():
        assert file["bytes"] == (folder / file["file"]).stat().st_size
        assert file["samples"] == 500
        assert file["takes"] == "prepared"
        assert file["accuracy_of_student"] == found["safetensors"]["accuracy"]
        assert file["bytes"] < 250_000
        assert file["file"] in told.out
        assert f"{100 * file['accuracy']:.2f} %" in told.out
    assert found["safetensors"]["largest_difference"] == 0
    assert 0 < found["onnx"]["largest_difference"] < 1e-4
    assert found["int8"]["bytes"] < 0.5 * found["onnx"]["bytes"]
    assert max(map(len, told.out.splitlines())) <= max(80, len(f"Written to {folder}/"))
    assert told.err == ""
    # The run is as it was, and Hydra leaves nothing.
    assert before == {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    assert names(tmp_path) == {"finished"}
    check_card(run, found, monkeypatch)


def test_both_files_of_weights_can_be_loaded_alone(finished, export):
    run = finished()
    export(run, "formats=[safetensors]")
    student = FinishedRun.read(run).student
    images = torch.randn(3, 1, 28, 28)
    for path in (run, run / "export", run / "export" / "student.safetensors"):
        assert torch.equal(load_student(path)(images), student(images))
        card = read_card(path)
        assert card.test == summary(run)["student"]["test"]
        assert card.input.shape == (1, 28, 28)
        assert len(card.classes) == 10
        assert card.teacher["type"] == "MLP"
        assert card.label["_target_"] == "kdlit.objectives.SoftLabels"
        assert card.versions["kdlit"]


@pytest.mark.parametrize(
    ("preprocessing", "takes", "names"),
    [("true", "uint8", "[onnx,program]"), ("float32", "float32", "[safetensors,program]")],
)
def test_files_that_prepare_pixels(finished, export, monkeypatch, preprocessing, takes, names):
    run = finished()
    found = export(run, f"formats={names}", f"preprocessing={preprocessing}")
    assert {f["takes"] for name, f in found.items() if name != "safetensors"} == {takes}
    check_card(run, found, monkeypatch)


def check_card(run: Path, found: dict[str, dict], monkeypatch) -> None:
    """Read the model card, and run the code that it tells to load each file with."""
    text = (run / "export" / CARD_FILE).read_text()
    front = yaml.safe_load(text.split("---\n")[1])
    accuracy = summary(run)["student"]["test"]["accuracy"]
    (result,) = front["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "accuracy", "value": accuracy}]
    for part in ("MLP distilled from MLP", "SoftLabels (temperature 4.0, alpha 0.9)",
                 f"{100 * accuracy:.2f} %", "300 images", "logits: 0, 1, 2"):  # fmt: skip
        assert part in text
    monkeypatch.chdir(run / "export")
    data = FinishedRun.read(run).data
    pixels, target = data.test_data.images[:500], data.test_data.labels[:500]
    blocks = re.findall(r"### (\S+)\n\n```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == len(found)
    for name, code in blocks:
        given = {"pixels": pixels.numpy() if name.endswith("onnx") else pixels}
        exec(code, given)
        decided = np.asarray(given["logits"].argmax(1))
        (file,) = (file for file in found.values() if file["file"] == name)
        assert (decided == target.numpy()).mean() == pytest.approx(file["accuracy"], abs=0.003)


def test_the_card_tells_what_the_student_was_shown(finished, export):
    shown = ("data.classes=[0,1,2,4,5,6,7,8,9]", "data/augment=shift", "teacher=none")
    run = finished(*shown, "label=truth", "data.train_size=90", "data.label_noise=0.25")
    export(run, "formats=[safetensors]")
    text = (run / "export" / CARD_FILE).read_text()
    assert "| classes trained on | 0, 1, 2, 4, 5, 6, 7, 8, 9 |" in text
    assert "| wrong training labels | 25 % |" in text
    assert "| images | RandomShift (pixels 2) |" in text
    assert "| training | 1 epochs, 6 steps of 16 images, seed 0 |" in text


def test_a_later_call_adds_to_what_is_there(finished, export, tmp_path):
    run, out = finished(), tmp_path / "elsewhere" / "files"
    export(run, "formats=[safetensors]", out=out)
    found = export(run, "formats=[program]", "preprocessing=true", out=out)
    assert [(f["format"], f["takes"]) for f in found.values()] == [
        ("safetensors", "prepared"), ("program", "uint8"),
    ]  # fmt: skip
    assert not (run / "export").exists()


def test_a_file_that_answers_otherwise_is_not_left(finished, export, refused, monkeypatch):
    run = finished()
    error = refused(run, "formats=[safetensors,onnx]", "tolerance=0")
    assert "student.onnx is not written: its logits differ from the student's by up to" in error
    assert "100.00 % of 500 decisions are equal" in error
    # The one before it was good.
    assert names(run / "export") == {"student.safetensors", EXPORT_FILE, CARD_FILE}
    assert set(listed(run / "export")) == {"safetensors"}

    good = export(run, "formats=[program]")
    kept = (run / "export" / "student.pt2").read_bytes()
    monkeypatch.setattr(formats, "write_program", damaged(formats.write_program))
    refused(run, "formats=[program]", "preprocessing=true")
    assert (run / "export" / "student.pt2").read_bytes() == kept
    assert listed(run / "export") == good


def damaged(write):
    def call(program, path):
        write(program, path)
        path.write_bytes(path.read_bytes()[:-200])

    return call


def test_damaged_files_are_not_left(finished, refused, monkeypatch):
    run = finished()
    monkeypatch.setattr(formats, "save_weights", lambda path, *_: path.write_bytes(b"damaged"))
    monkeypatch.setattr(formats, "to_onnx", lambda program: b"damaged")
    monkeypatch.setattr(formats, "write_program", damaged(formats.write_program))
    for kind in ("safetensors", "onnx", "program"):
        assert "is not written: " in refused(run, f"formats=[{kind}]")
        assert not (run / "export").exists()


def test_int8_that_loses_too_much_is_not_left(finished, refused, monkeypatch):
    quantise = formats.write_int8
    # Calibrated on images that are not like those to come.
    monkeypatch.setattr(
        formats, "write_int8", lambda source, path, images: quantise(source, path, images * 1e-4)
    )
    run = finished()
    error = refused(run, "formats=[int8]")
    assert re.search(r"[\d.]+ points less, and 0\.5 are allowed \(int8_tolerance\)", error)
    assert not (run / "export").exists()


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
@pytest.mark.parametrize("kind", ["onnx", "int8"])
def test_a_missing_extra_is_told_before_any_work(refused, monkeypatch, tmp_path, package, kind):
    monkeypatch.setitem(sys.modules, package, None)
    error = refused(tmp_path / "no-such-run", f"formats=[safetensors,{kind}]")
    assert f'{kind} needs {package}, which is not installed: it comes with pip install "kdlit[' \
        'export]"' in error  # fmt: skip


def test_without_the_extra_there_are_two_formats(finished, export, monkeypatch):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        monkeypatch.setitem(sys.modules, package, None)
    assert set(export(finished(), "formats=[safetensors,program]")) == {"safetensors", "program"}


def test_simkd(finished, export, cache):
    run = finished(*SIMKD)
    found = export(run, "formats=[safetensors,program]")
    assert set(found) == {"safetensors", "program"}
    assert found["safetensors"]["largest_difference"] == 0
    text = (run / "export" / CARD_FILE).read_text()
    assert "cannot be loaded without more: SimKD has put parts of its teacher" in text
    for path in (run, run / "export"):
        with pytest.raises(ValueError, match=r"SimKD has put .* student\.pt2"):
            load_student(path)
    student = FinishedRun.read(run).student
    images = torch.randn(5, 1, 28, 28)
    program = torch.export.load(run / "export" / "student.pt2").module()
    torch.testing.assert_close(program(images), student(images))
    other = FinishedRun.read(run).student
    other.load_state_dict({name: t * 0 for name, t in other.state_dict().items()})
    loaded = load_student(run / "export", network=other)
    assert torch.equal(loaded(images), student(images))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["formats=[onx]"], ["formats", "onx", "did you mean onnx?"]),
        (["formats=onnx"], ["formats=onnx", "list"]),
        (["preprocessing=int4"], ["preprocessing=int4", "uint8", "float32"]),
        (["preprocessing=true", "formats=[safetensors]"], ["preprocessing=True", "weights"]),
        (["samples=0"], ["samples", "0"]),
        (["tolerance=-1"], ["tolerance", "-1"]),
        (["int8_tolerance=x"], ["int8_tolerance", "x"]),
        (["calibration_samples=0"], ["calibration_samples", "0"]),
        (["nonsense=1"], ["there is no key nonsense"]),
        ([], ["there is no such directory"]),
    ],
)
def test_bad_input(refused, tmp_path, overrides, words):
    error = refused(tmp_path / "none", *overrides)
    assert all(word in error for word in words), error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [[], ["run=null"], ["run="]])
@pytest.mark.parametrize("command", [main, demo.main])
def test_without_a_run(monkeypatch, capsys, command, arguments):
    monkeypatch.setattr(sys, "argv", ["kdlit", *arguments])
    GlobalHydra.instance().clear()
    with pytest.raises(SystemExit):
        command()
    assert "kdlit: name the run: run=<its directory>" in capsys.readouterr().err


def test_a_folder_with_a_number_or_accents_as_name(finished, export, refused, monkeypatch):
    run = finished()
    monkeypatch.chdir(run.parent)
    run.rename("0")
    assert set(export(Path("0"), "formats=[safetensors]")) == {"safetensors"}
    shutil.move("0", "größer, a=b")
    told = refused(Path("größer, a=b"), "formats=[safetensors]")
    assert "a value with accents, commas or an equals sign needs quotes of its own" in told
    quoted = told.split('"')[1].removeprefix("run=")
    assert quoted == "'größer, a=b'"
    monkeypatch.setattr(sys, "argv", ["export.py", f"run={quoted}", "formats=[program]"])
    GlobalHydra.instance().clear()
    main()
    assert set(listed(Path("größer, a=b", "export"))) == {"safetensors", "program"}


def test_another_students_files_are_not_mixed_with(finished, export, refused):
    run = finished()
    export(run, "formats=[program]")
    path = run / "export" / EXPORT_FILE
    path.write_text(path.read_text().replace('"weights": "', '"weights": "other'))
    before = names(run / "export")
    assert "student with other weights: remove it" in refused(run, "formats=[safetensors]")
    assert names(run / "export") == before


@pytest.mark.parametrize("name", ["README.md", "student.safetensors"])
def test_what_no_export_has_written_is_not_overwritten(finished, refused, tmp_path, name):
    (tmp_path / "project").mkdir()
    theirs = tmp_path / "project" / name
    theirs.write_text("mine")
    error = refused(finished(), "formats=[safetensors]", out=tmp_path / "project")
    assert f"holds {name}, which no export has written" in error
    assert theirs.read_text() == "mine"
    assert names(tmp_path / "project") == {name}


def test_a_folder_that_cannot_be_written(finished, refused, tmp_path):
    (tmp_path / "file").touch()
    assert "cannot be written" in refused(finished(), out=tmp_path / "file" / "out")
