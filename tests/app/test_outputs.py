"""A teacher's outputs, kept by the command: computed once, shared by runs, never in the way."""

import json
import os
import subprocess
import sys

import pytest

from app.conftest import SMALL, summary
from app.test_run import rows, same_weights
from conftest import REPOSITORY


@pytest.fixture
def own(tmp_path):
    return f"cache_dir={tmp_path / 'own'}"


def without(found: dict, *names: str) -> dict:
    return {name: value for name, value in found.items() if name not in names}


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["data/augment=shift", "data.views=2", "trainer.max_epochs=4"],
        ["trainer.precision=bf16-mixed"],
        ["teacher=ensemble", "teacher.seeds=[0,1]"],
        [
            "feature=hint",
            "feature.hint.student_layer=hidden1",
            "feature.hint.teacher_layer=hidden1",
        ],
        ["label=truth"],
    ],
    ids=lambda options: " ".join(options)[:40] or "plain",
)
def test_a_run_with_kept_outputs_is_the_run_without(command, options):
    live = command(*options, "cache=none", name="live")
    kept = command(*options, name="kept")
    assert summary(live)["outputs"] == {"kept": False, "why": "cache=none"}
    tables = summary(kept)["outputs"]["tables"]
    assert set(tables) == ({"val"} if "label=truth" in options else {"train", "val"})
    # Not to the bit: a matrix product may round otherwise for another number of rows.
    for name in ("accuracy", "nll", "agreement"):
        found = [summary(run)["student"]["test"][name] for run in (live, kept)]
        assert found[0] == pytest.approx(found[1], rel=1e-3, abs=2e-3), name
    for one, two in zip(rows(live), rows(kept), strict=True):
        for name in set(one) - {"step", "epoch"}:
            assert bool(one[name]) == bool(two[name])
            if one[name]:
                assert float(two[name]) == pytest.approx(float(one[name]), rel=5e-2, abs=5e-3)


def test_runs_share_what_they_can(command, own, tmp_path):
    short = (own, "data.train_size=null", "trainer.max_epochs=1", "trainer.limit_train_batches=1")
    first = summary(command(*short, name="first"))
    assert first["outputs"]["seconds"] > 0
    assert first["outputs"]["tables"]["train"]["samples"] == 59_500
    second = command(*short, "seed=1", name="second")
    assert summary(second)["outputs"]["tables"] == first["outputs"]["tables"]
    assert summary(second)["outputs"]["seconds"] == 0
    other = command(*short, "teacher.seed=1", name="other")
    names = {table["file"] for table in summary(other)["outputs"]["tables"].values()}
    assert not names & {table["file"] for table in first["outputs"]["tables"].values()}


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["data/augment=shift"], "augmented anew in every epoch"),
        (["label.alpha=1", "mix=mixup"], "images are mixed"),
        (["teacher=ema"], "the teacher changes in training"),
        (["teacher=none", "label=truth"], "there is no teacher"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_where_nothing_can_be_kept_the_teacher_is_asked(command, own, tmp_path, options, why):
    found = summary(command(own, "trainer.max_epochs=1", *options))
    assert found["outputs"]["kept"] is False
    assert why in found["outputs"]["why"]
    assert not (tmp_path / "own" / "outputs").exists()


def test_what_is_damaged_is_computed_anew(command, own, tmp_path, capsys):
    first = command(own, name="first")
    for card in (tmp_path / "own" / "outputs").glob("*/card.json"):
        content = json.loads(card.read_text())
        array = card.with_name(content["arrays"]["logits"]["file"])
        array.write_bytes(array.read_bytes()[:-4] + b"abcd")
    second = command(own, name="second")
    assert "computed anew" in capsys.readouterr().out
    assert same_weights(first, second)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["cache.dtype=int8"], ["cache", "dtype", "'int8'"]),
        (["cache.top_k=0"], ["cache", "top_k", "got 0"]),
        (["cache.nonsense=1"], ["cache.nonsense", "batch_size"]),
        (["cache=none", "cache.top_k=3"], ["cache.top_k", "cache=none"]),
        (["data.views=0", "data/augment=shift"], ["data", "views", "got 0"]),
    ],
    ids=lambda value: " ".join(value)[:40],
)
def test_bad_values(refused, options, words):
    error = refused(*options)
    assert all(word in error for word in words), error


@pytest.mark.slow
def test_eight_runs_at_once_fill_one_cache(tmp_path):
    """Separate processes on an empty folder: one makes each table, all get the same student."""
    command = [sys.executable, str(REPOSITORY / "scripts" / "train.py"), *SMALL,
               "teacher.trainer.max_epochs=1", f"cache_dir={tmp_path / 'own'}",
               "trainer.max_epochs=1", "trainer.precision=32-true"]  # fmt: skip
    runs = [
        subprocess.Popen(
            [*command, f"hydra.run.dir={tmp_path / str(number)}"], cwd=tmp_path,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for number in range(8)
    ]  # fmt: skip
    told = [run.communicate(timeout=300)[0] for run in runs]
    assert [run.returncode for run in runs] == [0] * 8, "\n".join(told)
    found = [summary(tmp_path / str(number)) for number in range(8)]
    assert sum(one["teacher"]["source"] == "trained now" for one in found) == 1
    for name in ("train", "val"):
        assert len({one["outputs"]["tables"][name]["file"] for one in found}) == 1
    assert all(same_weights(tmp_path / "0", tmp_path / str(number)) for number in range(8))
    left = [path.name for path in (tmp_path / "own" / "outputs").iterdir()]
    assert len(left) == 4, "two tables and their locks"
    assert not [name for name in left if name.startswith(".")]
