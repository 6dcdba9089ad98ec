"""A finished run is made again from what it left: the same networks, or a clear refusal."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from app.conftest import summary
from app.test_crd_and_simkd import SIMKD
from kdlit.app.finished import FinishedRun
from kdlit.errors import ConfigError, TeacherError
from kdlit.evaluation.answers import ask, batches_of_test
from kdlit.evaluation.statistics import describe_answers
from kdlit.files import read_sealed_json, state_fingerprint, write_sealed_json
from kdlit.teachers import EnsembleTeacher, FrozenTeacher
from kdlit.weights import read_state


def measured(finished: FinishedRun) -> dict[str, dict]:
    """Return what the networks of a finished run reach on its test set."""
    asked = {"student": lambda batch: batch.run(finished.student)}
    if finished.teacher is not None:
        asked["teacher"] = finished.teacher
    logits, target = ask(asked, batches_of_test(finished.data, torch.device("cpu")))
    return {name: describe_answers(answers, target) for name, answers in logits.items()}


@pytest.mark.parametrize(
    ("options", "teacher"),
    [
        ([], FrozenTeacher),
        (SIMKD, FrozenTeacher),
        (["teacher=none", "label=truth"], None),
        (["teacher=ema", "label.temperature=1"], None),
        (["teacher=ensemble", "teacher.seeds=[0,1]"], EnsembleTeacher),
    ],
    ids=["plain", "SimKD", "none", "ema", "ensemble"],
)
def test_its_networks_are_those_of_its_summary(finished, options, teacher):
    run = finished(*options)
    made = FinishedRun.read(run)
    assert type(made.teacher) is (type(None) if teacher is None else teacher)
    found = measured(made)
    assert set(found) == ({"student", "teacher"} if teacher else {"student"})
    for name in found:
        for metric in ("accuracy", "nll", "ece"):
            told = summary(run)[name]["test"][metric]
            assert found[name][metric] == pytest.approx(told, rel=1e-4, abs=1e-6), (name, metric)
    assert found["student"]["accuracy"] > 0.2
    state = read_state(run / "student.safetensors")
    for key, value in made.student.state_dict().items():
        assert torch.equal(state[key], value), key
    assert not made.student.training


def test_a_run_that_was_moved(finished, tmp_path, mnist_root, cache):
    run = finished()
    moved = tmp_path / "elsewhere"
    run.rename(moved)
    shutil.copytree(mnist_root / "MNIST", tmp_path / "data" / "MNIST")
    places = {"data.root": str(tmp_path / "data"), "cache_dir": str(cache), "seed": None}
    made = FinishedRun.read(moved, {**places, "data.test_on_train": True})
    assert made.config.run_dir == str(moved)
    assert made.data.root == tmp_path / "data"
    assert made.config.seed == 0
    told = summary(moved)["student"]["test"]["accuracy"]
    # Of the two test sets it is the first.
    assert measured(made)["student"]["accuracy"] == pytest.approx(told)


def test_a_file_and_a_configuration(finished, tmp_path):
    run = finished()
    student = shutil.copy(run / "student.safetensors", tmp_path / "mine.safetensors")
    config = shutil.copy(run / "config.yaml", tmp_path / "mine.yaml")
    whole = FinishedRun.of_files(student, config)
    assert whole.student_file == tmp_path / "mine.safetensors"
    assert measured(whole) == measured(FinishedRun.read(run))
    lines = (tmp_path / "mine.yaml").read_text().split("\n")
    starts = [n for n, line in enumerate(lines) if line and not line.startswith((" ", "-"))]
    blocks = ["\n".join(lines[a:b]) for a, b in zip(starts, [*starts[1:], None], strict=True)]
    kept = [block for block in blocks if block.startswith(("student:", "data:"))]
    (tmp_path / "least.yaml").write_text("\n".join(kept) + "\n")
    least = FinishedRun.of_files(student, tmp_path / "least.yaml")
    assert least.teacher is None
    assert measured(least)["student"] == measured(whole)["student"]


def test_files_that_are_not_there_or_say_too_little(tmp_path):
    with pytest.raises(ConfigError, match=r"weights=.*there is no such file"):
        FinishedRun.of_files(tmp_path / "a.safetensors", tmp_path / "b.yaml")
    (tmp_path / "a.safetensors").write_text("")
    with pytest.raises(ConfigError, match=r"config=.*there is no such file"):
        FinishedRun.of_files(tmp_path / "a.safetensors", tmp_path / "b.yaml")
    for text, told in (
        ("student: {}", "there is no key data"),
        ("- 1", "is not a configuration"),
        ("a: [", "cannot be read"),
    ):
        (tmp_path / "b.yaml").write_text(text)
        with pytest.raises(ConfigError, match=told):
            FinishedRun.of_files(tmp_path / "a.safetensors", tmp_path / "b.yaml")


def test_what_is_no_finished_run_is_refused(finished, tmp_path):
    with pytest.raises(ConfigError, match=r"run=.*nowhere: there is no such directory"):
        FinishedRun.read(tmp_path / "nowhere")
    run = finished()
    (run / "student.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"there is no student\.safetensors: it is no run of"):
        FinishedRun.read(run)
    (run / "summary.json").unlink()
    with pytest.raises(
        ConfigError,
        match=r"there is no summary\.json and no student\.safetensors: .*did not finish",
    ):
        FinishedRun.read(run)


def test_damaged_files_are_refused(finished):
    run = finished()
    whole = (run / "summary.json").read_text()
    for text in (whole[: len(whole) // 2], "[]"):
        (run / "summary.json").write_text(text)
        with pytest.raises(ConfigError, match=r"summary\.json cannot be read"):
            FinishedRun.read(run)
    (run / "summary.json").write_text(whole)
    weights = run / "student.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ConfigError, match="damaged"):
        _ = FinishedRun.read(run).student


@pytest.mark.parametrize(
    "options", [[], ["teacher=ensemble", "teacher.seeds=[0,1]"]], ids=["one", "ensemble"]
)
def test_a_teacher_that_has_changed_is_refused(finished, cache, tmp_path, options):
    run, own = finished(*options), {"cache_dir": str(shutil.copytree(cache, tmp_path / "own"))}
    assert FinishedRun.read(run, own).teacher is not None
    _put_other_weights(tmp_path / "own", summary(run)["teacher"]["card"])
    with pytest.raises(TeacherError, match=r"other weights than .* learned from.*cache_dir="):
        _ = FinishedRun.read(run, own).teacher


@pytest.mark.parametrize(
    "options", [[], ["teacher=ensemble", "teacher.seeds=[0,1]"]], ids=["one", "ensemble"]
)
def test_a_teacher_that_is_gone_is_not_trained(finished, tmp_path, options):
    empty = tmp_path / "empty"
    made = FinishedRun.read(finished(*options), {"cache_dir": str(empty)})
    with pytest.raises(TeacherError, match=r"teacher is not in .*empty, .*cache_dir=<folder>"):
        _ = made.teacher
    assert not empty.exists()
    # What does not need it goes on.
    assert not made.student.training


def _put_other_weights(cache, card: dict) -> None:
    """Change the last teacher of a card, and its own card: as if it had been trained so."""
    wanted = card.get("members", [card])[-1]["weights"]
    cards = {json.loads(path.read_text())["weights"]: path for path in cache.glob("*.json")}
    path = cards[wanted].with_suffix(".safetensors")
    state = {name: tensor + 0.5 for name, tensor in read_state(path).items()}
    save_file(state, path)
    card = read_sealed_json(path.with_suffix(".json"))
    write_sealed_json(path.with_suffix(".json"), {**card, "weights": state_fingerprint(state)})


def test_a_teacher_alone_and_a_checkpoint_that_has_changed_are_refused(command, tmp_path):
    alone = command("task=teacher", f"cache_dir={tmp_path / 'own'}", name="teacher")
    with pytest.raises(ConfigError, match="this run trained a teacher and has no student"):
        FinishedRun.read(alone)
    (file,) = (tmp_path / "own").glob("*.safetensors")
    run = command("trainer.max_epochs=1", "teacher=checkpoint", f"teacher.path={file}")
    told = summary(run)["teacher"]["test"]["accuracy"]
    assert measured(FinishedRun.read(run))["teacher"]["accuracy"] == pytest.approx(told)
    save_file({name: tensor + 0.5 for name, tensor in read_state(file).items()}, file)
    with pytest.raises(TeacherError, match="other weights than the one"):
        _ = FinishedRun.read(run).teacher
