"""Bad input: one line that names key, value and way out; nothing left behind."""

import pickle
import shutil
import subprocess
import sys

import pytest
import torch

from conftest import REPOSITORY

TABLE = [
    # overrides, what the line must say
    (["label.temperature=0"], ["label", "temperature", "> 0", "got 0"]),
    (["label.temperature=-3.0"], ["temperature", "got -3.0"]),
    (["label.temperature=nan"], ["temperature", "got nan"]),
    (["label.temperature=hot"], ["temperature", "must be a number", "'hot'"]),
    (["label.alpha=1.5"], ["alpha", "[0, 1]", "got 1.5"]),
    (["label.alpha=-0.1"], ["alpha", "got -0.1"]),
    (["label=hard", "label.temperature=8"], ["label.temperature", "label=hard", "alpha"]),
    (["label=hard", "+label.temperature=8"], ["label", "temperature"]),
    (["label.temprature=8"], ["label.temprature", "did you mean temperature?"]),
    (["label=truth", "label.alpha=1"], ["label.alpha", "label=truth has no keys"]),
    (["label=truth", "label/transform=top_k"], ["label/transform"]),
    (["label/transform=top_k", "label.transform.k=1"], ["label.transform", "k", ">= 2", "got 1"]),
    (["label=reverse_kl", "label/transform=top_k"], ["label", "transform", "TopK", "infinite"]),
    (["label=mlkd", "label.temperatures=[]"], ["label", "temperatures", "[2,4]"]),
    (["label=dkd", "label.warmup_steps=-1"], ["warmup_steps", ">= 0", "got -1"]),
    (["label=sofd"], ["label/sofd", "hard", "soft", "truth"]),
    (["optimizer=adamm"], ["optimizer/adamm", "adamw", "sgd"]),
    (["lable=soft"], ["lable", "label"]),
    (["label=smooth", "label.smoothing=1"], ["smoothing", "[0, 1)", "got 1"]),
    (["label=blend", "label.soft=0", "label.hard=0", "label.truth=0"], ["at least one of"]),
    (["optimizer.lr=-1"], ["optimizer", "-1"]),
    (["optimizer.lr=fast"], ["optimizer", "fast"]),
    (["data.train_size=70000"], ["train_size", "at most 59500", "got 70000"]),
    (["data.train_size=0"], ["train_size", ">= 1", "got 0"]),
    (["data.batch_size=0"], ["batch_size", "got 0"]),
    (["data.classes=[1,11]"], ["classes", "0 to 9", "[1, 11]"]),
    (["data.val_size=60000"], ["val_size", "60000"]),
    (["data.root=nowhere/at/all", "data=fashion_mnist"], ["train-images", "data.root"]),
    (["student.num_classes=9"], ["student", "9 classes", "10"]),
    (["teacher.network.num_classes=9"], ["teacher.network", "9 classes", "10"]),
    (["student.widths=[0]"], ["student", "widths", "got 0"]),
    (["student.in_features=100"], ["student", "(1, 28, 28)"]),
    (["student._target_=kdlit.models.Nothing"], ["student", "kdlit.models.Nothing"]),
    (["seed=-1"], ["seed", ">= 0", "got -1"]),
    (["seed=one"], ["seed", "'one'"]),
    (["task=train"], ["task=train", "distil"]),
    (["trainer.precision=17"], ["trainer", "17"]),
    (["trainer.max_epochs=many"], ["trainer"]),
    (["trainer=gpu"], ["trainer"]),
    (["ckpt_path=last"], ["ckpt_path=last", "hydra.run.dir"]),
    (["ckpt_path=missing.ckpt"], ["missing.ckpt"]),
    (["teacher=checkpoint"], ["teacher.path"]),
    (["teacher=checkpoint", "teacher.path=missing.pt"], ["teacher.path", "missing.pt"]),
    (["teacher=none"], ["SoftLabels needs a teacher", "teacher=auto"]),
    (["teacher=none", "task=teacher"], ["teacher=auto"]),
    (
        ["trainer.precision=16-mixed", "trainer.gradient_clip_val=1"],
        ["trainer.gradient_clip_val=1", "optimizer.fused=false"],
    ),
    (["teacher.trainer.max_epochs=0"], ["max_epochs", "got 0"]),
    (["cache_dir=/proc/none"], ["cache_dir"]),
    (["trainer.log_every_n_steps=0"], ["trainer.log_every_n_steps", "got 0"]),
    (["trainer.max_epochs=5", "trainer.check_val_every_n_epoch=2"], ["divisor"]),
    (["teacher.trainer.precision=17"], ["teacher.trainer", "17"]),
    (["teacher.data.train_size=70000"], ["teacher.data", "got 70000"]),
    (["task=teacher", "ckpt_path=last"], ["ckpt_path=last"]),
    (["--config-dir=.", "label.temprature=8"], ["did you mean temperature?"]),
    (["feature=hint", "feature.hint.student_layer=hiden1"], ["feature", "'hiden1'", "hidden1"]),
    (["feature=review"], ["feature", "MLP has no layer 'block1'"]),
    (["feature=hint", "feature.hint.weight=-1"], ["feature.hint", "weight", "got -1"]),
    (["compile=quick"], ["compile=quick", "default"]),
    (["compile=default", "feature=pkt"], ["compile=default", "feature=pkt"]),
    (["label=none"], ["nothing would be learned"]),
    (["logger=[wandb]"], ['pip install "kdlit[wandb]"']),
]


@pytest.mark.parametrize(("overrides", "words"), TABLE, ids=lambda value: " ".join(value)[:50])
def test_bad_values(refused, overrides, words):
    error = refused(*overrides)
    assert all(word in error for word in words), error
    assert len(error) < 600


def write_truncated(path):
    torch.save(torch.nn.Linear(2, 2).state_dict(), path)
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (write_truncated, ["teacher.path", "damaged"]),
        (lambda path: path.write_bytes(b""), ["teacher.path", "weights.pt"]),
        (lambda path: path.write_bytes(pickle.dumps([1])), ["teacher.path", "weights.pt"]),
        (lambda path: torch.save([1, 2], path), ["teacher.path", "not a state dict"]),
        (lambda path: torch.save(torch.nn.Linear(2, 2), path), ["could run code", "state_dict()"]),
        (
            lambda path: torch.save(torch.nn.Linear(2, 2).state_dict(), path),
            ["another network", "missing keys: hidden1.0.weight", "unexpected keys: weight, bias"],
        ),
    ],
)
def test_bad_teacher_files(refused, tmp_path, write, words):
    write(tmp_path / "weights.pt")
    error = refused("teacher=checkpoint", "teacher.path=weights.pt")
    assert all(word in error for word in words), error


def test_damaged_data(refused, tmp_path):
    shutil.copytree(REPOSITORY / "data" / "MNIST" / "raw", tmp_path / "MNIST" / "raw")
    archive = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte.gz"
    archive.write_bytes(archive.read_bytes()[:100_000])
    error = refused(f"data.root={tmp_path}")
    assert "train-images-idx3-ubyte.gz is damaged" in error


def test_a_data_folder_that_cannot_be_written(refused, tmp_path):
    (tmp_path / "file").touch()
    error = refused(f"data.root={tmp_path / 'file'}")
    assert "cannot be written" in error
    assert "data.root" in error


def test_a_directory_of_sweeps_that_cannot_be_written(command, capsys, tmp_path):
    (tmp_path / "sweeps").touch()
    with pytest.raises(SystemExit):
        command("-m", "seed=0,1")
    error = capsys.readouterr().err
    assert "cannot be written: name another with hydra.sweep.dir=<directory>" in error


def test_resuming_with_another_configuration(command, capsys):
    command(name="run")
    capsys.readouterr()
    with pytest.raises(SystemExit):
        command("ckpt_path=last", "label.temperature=2", name="run")
    error = capsys.readouterr().err
    assert "label.temperature=2 where it was 4" in error


def test_a_sweep_over_options_of_which_some_lack_a_key(command, capsys):
    with pytest.raises(SystemExit):
        command("-m", "label=soft,hard", "label.temperature=2")
    assert "sweep those labels that have it" in capsys.readouterr().err


def test_full_tracebacks_on_request_and_exit_codes():
    def call(**environment):
        return subprocess.run(
            [sys.executable, str(REPOSITORY / "scripts" / "train.py"), "label=sofd"],
            capture_output=True,
            text=True,
            env={"PATH": "", **environment},
            check=False,
        )

    plain, full = call(), call(HYDRA_FULL_ERROR="1")
    assert plain.returncode == 1
    assert plain.stderr.count("\n") == 1
    assert "Traceback" in full.stderr
    assert full.returncode == 1
