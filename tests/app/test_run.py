"""The whole job, on the real data, small."""

import csv
import sys

import pytest
import torch
from safetensors.torch import load_file

from app.conftest import summary
from kdlit import load_weights
from kdlit.app.resume import CONFIG_FILE
from kdlit.app.train import _way_on
from kdlit.models import MLP
from kdlit.weights import read_metadata


def rows(run) -> list[dict]:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def same_weights(one, two) -> bool:
    first, second = (load_file(run / "student.safetensors") for run in (one, two))
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_a_run_leaves_everything_that_is_promised(command, capsys):
    run = command("label=soft", "label.temperature=8")
    out = capsys.readouterr().out
    names = {path.name for path in run.iterdir()}
    assert {
        "student.safetensors", "last.ckpt", "best.ckpt", CONFIG_FILE, "metrics.csv",
        "tensorboard", "summary.json", ".hydra",
    } <= names  # fmt: skip
    assert list((run / "tensorboard").glob("events.out.tfevents.*"))

    found = summary(run)
    assert found["config"]["label"]["temperature"] == 8
    assert found["seed"] == 0
    assert found["student"]["parameters"] == 784 * 16 + 16 + 16 * 10 + 10
    assert found["student"]["bytes"] == 4 * found["student"]["parameters"]
    assert found["teacher"]["parameters"] == 784 * 32 + 32 + 32 * 10 + 10
    assert found["student"]["training_samples"] == 300
    assert found["teacher"]["training_samples"] == 2000
    assert set(found["seconds"]) == {"setup", "teacher", "fit", "test"}
    assert {"torch", "lightning", "kdlit", "python"} <= set(found["versions"])
    assert found["device"]["type"] == "cpu"
    for who in ("teacher", "student"):
        assert {"accuracy", "ece", "nll"} <= set(found[who]["test"])
    assert {"agreement", "kl_from_teacher"} <= set(found["student"]["test"])
    accuracy = f"{100 * found['student']['test']['accuracy']:.2f} %"
    for text in ("SoftLabels (temperature 8, alpha 0.9), seed 0\n", "300", accuracy):
        assert text in out
    short = [line for line in out.splitlines() if str(run.parent.parent) not in line]
    assert max(map(len, short)) <= 80

    # The exported file is the student that was tested: the best on validation.
    student = MLP(widths=[16])
    load_weights(student, run / "student.safetensors")
    best = MLP(widths=[16])
    load_weights(best, run / "best.ckpt")
    assert all(map(torch.equal, student.state_dict().values(), best.state_dict().values()))
    scores = [float(row["val/accuracy"]) for row in rows(run) if row["val/accuracy"]]
    assert found["selected"]["score"] == pytest.approx(max(scores))
    assert read_metadata(run / "student.safetensors")["student"]["widths"] == [16]
    assert {"train/soft", "train/truth", "train/loss", "val/agreement"} <= set(rows(run)[0])


def test_the_teacher_is_trained_once_and_the_student_does_not_notice(command, tmp_path):
    folder = f"cache_dir={tmp_path / 'own'}"
    first, second = command(folder, name="first"), command(folder, name="second")
    assert summary(first)["teacher"]["source"] == "trained now"
    assert summary(second)["teacher"]["source"].startswith("cached")
    assert same_weights(first, second)
    card = summary(second)["teacher"]["card"]
    assert card["metrics"]["test/accuracy"] == pytest.approx(
        summary(second)["teacher"]["test"]["accuracy"]
    )
    # Where and how fast the data are read does not make another teacher; how it is trained does.
    command(folder, "data.eval_batch_size=250", name="third")
    assert len(list((tmp_path / "own").glob("*.safetensors"))) == 1
    command(folder, "teacher.optimizer.lr=0.02", name="fourth")
    assert len(list((tmp_path / "own").glob("*.safetensors"))) == 2


@pytest.mark.parametrize(
    "options",
    [
        ["student.dropout=0.3", "data/augment=shift", "trainer.max_epochs=3"],
        ["label=soft", "label.alpha=1", "mix=mixup"],
        ["scheduler=cosine", "optimizer=sgd", "trainer.precision=bf16-mixed"],
    ],
    ids=" ".join,
)
def test_how_many_batches_come_at_once_changes_nothing(command, options):
    one, many = (
        command(*options, f"data.batches_at_once={count}", name=f"by{count}") for count in (1, 8)
    )
    assert same_weights(one, many)
    assert rows(one) == rows(many)
    for key in ("student", "selected", "steps", "epochs"):
        assert summary(one)[key] == summary(many)[key]


def test_what_lightning_does_by_batches_gets_one_batch_at_a_time(command):
    clipped = command("trainer.gradient_clip_val=0.01", "trainer.max_epochs=1", name="clipped")
    assert summary(clipped)["steps"] == 19
    assert not same_weights(clipped, command("trainer.max_epochs=1", name="plain"))
    few = command("trainer.limit_train_batches=3", "trainer.max_epochs=1", name="few")
    assert summary(few)["steps"] == 3


@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(command, seed):
    first = command(f"seed={seed}", "data/augment=shift", name="first")
    torch.manual_seed(99)
    assert same_weights(first, command(f"seed={seed}", "data/augment=shift", name="second"))
    assert not same_weights(first, command(f"seed={seed + 5}", "data/augment=shift", name="third"))


def test_an_interrupted_run_that_goes_on_is_the_uninterrupted_one_to_the_bit(command, monkeypatch):
    options = [
        "data/augment=shift", "student.dropout=0.3", "trainer.max_epochs=4",
        "data.batches_at_once=4",
    ]  # fmt: skip
    whole = command(*options, name="whole")

    class InterruptedByTestError(RuntimeError):
        pass

    from kdlit.distillation import DistillationModule

    def stop(self):
        if self.current_epoch == 2:
            raise InterruptedByTestError
        start(self)

    start = DistillationModule.on_train_epoch_start
    monkeypatch.setattr(DistillationModule, "on_train_epoch_start", stop)
    with pytest.raises(SystemExit):
        command(*options, name="halves")
    monkeypatch.undo()
    monkeypatch.chdir(whole.parent)
    halves = command(*options, "ckpt_path=last", name="halves")
    assert same_weights(whole, halves)
    first, second = (
        torch.load(run / "last.ckpt", weights_only=True)["state_dict"] for run in (whole, halves)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert rows(whole) == rows(halves)
    assert summary(whole)["student"] == summary(halves)["student"]
    assert summary(whole)["selected"] == summary(halves)["selected"]


def test_the_last_checkpoint_is_the_last_one_also_where_the_first_was_the_best(command):
    run = command("optimizer=sgd", "optimizer.lr=0", "trainer.max_epochs=3")
    epochs = {
        name: torch.load(run / f"{name}.ckpt", weights_only=True)["epoch"]
        for name in ("best", "last")
    }
    assert epochs == {"best": 0, "last": 2}


def test_last_finds_the_newest_run_of_the_same_kind(command, tmp_path, capsys):
    command(directory=False)
    (run,) = (tmp_path / "outputs" / "soft-mlp").iterdir()
    before, written = summary(run), (run / "summary.json").read_bytes()
    capsys.readouterr()
    command("ckpt_path=last", directory=False)
    assert f"outputs/soft-mlp/{run.name}/ is finished: left as it is" in capsys.readouterr().out
    assert (run / "summary.json").read_bytes() == written
    (run / "summary.json").unlink()
    command("ckpt_path=last", directory=False)
    assert list((tmp_path / "outputs" / "soft-mlp").iterdir()) == [run]
    assert summary(run)["student"] == before["student"]


@pytest.mark.parametrize(
    ("words", "kept", "told"),
    [
        ("label=soft", True, "label=soft ckpt_path=last"),
        ("label=soft", False, "label=soft"),  # `last` would be that of an earlier run
        ("ckpt_path=last label=soft", True, "label=soft ckpt_path=last"),
        ("ckpt_path=run/best.ckpt label=soft", True, "label=soft ckpt_path=run/last.ckpt"),
        ("ckpt_path=other.ckpt label=soft", False, "ckpt_path=other.ckpt label=soft"),
    ],
)
def test_what_goes_on_with_an_interrupted_run(words, kept, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    if kept:
        (tmp_path / "run" / "last.ckpt").touch()
    monkeypatch.setattr(sys, "argv", ["kdlit-train", *words.split()])
    assert _way_on([tmp_path / "run"]) == f"kdlit-train {told}"


def test_alpha_zero_is_truth(command):
    truth = command("label=truth", name="truth")
    assert same_weights(truth, command("label=soft", "label.alpha=0", name="soft"))
    assert not same_weights(truth, command("label=soft", name="other"))
    assert "agreement" in summary(truth)["student"]["test"]


def test_a_checkpoint_by_its_path_goes_on_in_its_own_directory(command, monkeypatch, tmp_path):
    command(directory=False)
    (run,) = (tmp_path / "outputs" / "soft-mlp").iterdir()
    before = rows(run)
    relative = (run / "last.ckpt").relative_to(tmp_path)
    command(f"ckpt_path={relative}", directory=False)
    assert list((tmp_path / "outputs" / "soft-mlp").iterdir()) == [run]
    assert rows(run) == before
    moved = run.rename(tmp_path / "moved")
    command(f"ckpt_path={moved / 'last.ckpt'}", directory=False)
    assert rows(moved) == before


@pytest.mark.parametrize("label", ["hard", "blend", "smooth"])
def test_every_other_label_runs(command, label):
    assert summary(command(f"label={label}"))["student"]["test"]["accuracy"] > 0.5


def test_without_a_teacher(command, capsys):
    found = summary(command("label=truth", "teacher=none"))
    assert found["teacher"] is None
    assert set(found["student"]["test"]) == {"accuracy", "ece", "nll"}
    assert "student" in capsys.readouterr().out


def test_a_teacher_from_a_file(command, cache, tmp_path):
    reference = command("label=soft", name="reference")
    weights = next(cache.glob("*.safetensors"))
    for found in sorted(cache.glob("*.safetensors")):
        if found.name in summary(reference)["teacher"]["source"]:
            weights = found
    own = command("teacher=checkpoint", f"teacher.path={weights}", name="own")
    assert same_weights(reference, own)


def test_a_teacher_trained_in_half_precision_is_kept_in_float32(command, tmp_path):
    options = ("teacher.trainer.precision=bf16-true", f"cache_dir={tmp_path / 'own'}")
    assert summary(command(*options))["teacher"]["source"] == "trained now"
    assert summary(command(*options, name="second"))["teacher"]["source"].startswith("cached")


def test_a_failed_run_of_a_sweep_does_not_end_it(command, tmp_path, capsys):
    with pytest.raises(SystemExit):
        command("-m", "label.alpha=2,0.5", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    error = capsys.readouterr().err
    assert "kdlit: 1 run of the sweep failed. label.alpha=2: label: `alpha`" in error
    assert [path.parent.name for path in (tmp_path / "sweep").glob("*/summary.json")] == ["1"]


@pytest.mark.slow
def test_a_compiled_student_is_the_same_student(command):
    plain = command("trainer.max_epochs=1", name="plain")
    compiled = command("trainer.max_epochs=1", "compile=default", name="compiled")
    one, two = (load_file(run / "student.safetensors") for run in (plain, compiled))
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=1e-4)


def test_without_loggers(command):
    assert not (command("logger=[]") / "metrics.csv").exists()


def test_training_a_teacher_on_purpose(command, tmp_path):
    run = command("task=teacher", "teacher.seed=3", f"cache_dir={tmp_path / 'own'}")
    found = summary(run)
    assert found["teacher"]["source"] == "trained now"
    assert len(list((tmp_path / "own").glob("*-seed3-*.safetensors"))) == 1


def test_a_sweep_has_a_directory_for_each_run(command, tmp_path):
    command("-m", "label=soft,truth", "seed=0,1", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    found = [summary(tmp_path / "sweep" / str(job)) for job in range(4)]
    kinds = {(run["config"]["label"]["_target_"], run["seed"]) for run in found}
    assert len(kinds) == 4
    assert {run["seed"] for run in found} == {0, 1}


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_a_precision_of_lightnings(command, precision):
    found = summary(command(f"trainer.precision={precision}"))
    assert found["student"]["test"]["accuracy"] > 0.5


def test_training_images_are_tested_on_request(command):
    found = summary(command("data.test_on_train=true"))
    assert set(found["student"]["train"]) == set(found["student"]["test"])
    assert set(found["teacher"]["train"]) == {"accuracy", "ece", "nll"}


def test_a_nan_stops_the_run_and_keeps_the_last_good_checkpoint(
    command, capsys, monkeypatch, tmp_path
):
    from kdlit.objectives import SoftLabels

    forward = SoftLabels.forward
    steps = []

    def fail(self, student, teacher, batch):
        steps.append(1)
        terms = forward(self, student, teacher, batch)
        return {
            name: term * (float("nan") if len(steps) == 25 else 1) for name, term in terms.items()
        }

    monkeypatch.setattr(SoftLabels, "forward", fail)
    with pytest.raises(SystemExit):
        command(name="failed")
    assert "kdlit: the training loss is not finite at step 24" in capsys.readouterr().err
    kept = torch.load(tmp_path / "failed" / "last.ckpt", weights_only=True)
    assert kept["global_step"] == 19
    assert not (tmp_path / "failed" / "summary.json").exists()
