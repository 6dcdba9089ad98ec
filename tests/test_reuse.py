"""The page on reuse: its Python is run as doctests, its YAML and its commands here."""

import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from omegaconf import OmegaConf

from conftest import REPOSITORY, PlainData, network
from foreign import Keeps
from kdlit.__main__ import SAVED, main
from kdlit.app.cli import register_resolvers
from kdlit.models import MLP
from kdlit.objectives import Hint

PAGE = (REPOSITORY / "docs" / "reuse.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)


@pytest.fixture
def command_line(tmp_path, monkeypatch):
    """Call `python -m kdlit` in this process, with the page's job and a datamodule."""
    pytest.importorskip("jsonargparse")
    monkeypatch.chdir(tmp_path)
    # Lightning calls what jsonargparse has renamed.
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    job = yaml.safe_load(blocks("yaml")[0])
    assert job["data"]["class_path"] == "your_project.YourData"
    job["data"] = {"class_path": "conftest.PlainData"}
    job["trainer"] |= {"accelerator": "cpu", "enable_progress_bar": False, "logger": False,
                       "enable_model_summary": False, "enable_checkpointing": False}  # fmt: skip
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    teacher = MLP(in_features=6, widths=[64], num_classes=3)
    torch.save({"state_dict": {f"net.{k}": v for k, v in teacher.state_dict().items()}},
               tmp_path / "teacher.ckpt")  # fmt: skip

    def call(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["kdlit", "fit", "--config", "job.yaml", *arguments])
        main()

    return call


def test_lightnings_command_line_runs_the_job(command_line, monkeypatch):
    fitted = []
    monkeypatch.setattr(
        "kdlit.DistillationModule.on_train_end", lambda self: fitted.append(self), raising=False
    )
    Path("config.yaml").write_text("the user's")
    command_line("--model.label.alpha=0.5", "--seed_everything=1")
    assert Path("config.yaml").read_text() == "the user's"
    assert yaml.safe_load(Path(SAVED).read_text())["model"]["label"]["init_args"]["alpha"] == 0.5
    (module,) = fitted
    assert module.label.weights == {"soft": 0.5, "truth": 0.5}
    assert module.global_step == 8
    assert isinstance(module.features["hint"], Hint)
    saved = torch.load("teacher.ckpt", weights_only=True)["state_dict"]
    found = module.teacher.network.state_dict()
    assert all(torch.equal(found[name.removeprefix("net.")], saved[name]) for name in saved)
    schedule = module.trainer.lr_scheduler_configs[0]
    assert (schedule.interval, schedule.scheduler.total_steps) == ("step", 8)


def test_what_kdlit_refuses_takes_one_line(command_line):
    with pytest.raises(SystemExit) as stopped:
        command_line("--model.features.hint.student_layer=hiden1")
    assert str(stopped.value).startswith("kdlit: student: MLP has no layer 'hiden1'")


def test_the_callback_is_an_entry_of_somebodys_own_command_line(monkeypatch, tmp_path):
    from lightning.pytorch.cli import LightningCLI

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    layers = {"in_features": 6, "widths": [4], "num_classes": 3}
    callback = {
        "class_path": "kdlit.Distillation",
        "init_args": {
            "teacher": {"class_path": "kdlit.models.MLP", "init_args": layers},
            "label": {"class_path": "kdlit.HardLabels", "init_args": {"alpha": 0.25}},
            "features": {"hint": {"class_path": "kdlit.objectives.Hint"}},
            "student": "model",
        },
    }
    quiet = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "max_epochs": 1,
             "enable_model_summary": False, "enable_checkpointing": False}  # fmt: skip
    (tmp_path / "job.yaml").write_text(
        yaml.safe_dump({"trainer": {**quiet, "callbacks": [callback]}})
    )
    arguments = ["kdlit", "fit", "--config", "job.yaml", "--model.lr=0.5"]
    monkeypatch.setattr(sys, "argv", arguments)
    cli = LightningCLI(Keeps, PlainData, save_config_callback=None)
    found = cli.trainer.callback_metrics
    total = 0.75 * found["loss"] + 0.25 * found["train/hard"] + 100 * found["train/hint"]
    assert float(found["train/total"]) == pytest.approx(float(total), rel=1e-5)


def test_without_its_extra_the_command_line_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "jsonargparse", None)
    with pytest.raises(SystemExit, match=r'pip install "kdlit\[cli\]"'):
        main()


def test_another_projects_configuration_takes_the_groups(tmp_path):
    (tmp_path / "config.yaml").write_text(blocks("yaml")[1])
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        assert "alpha" not in compose("config", ["label=dkd"]).label
        config = compose("config", ["label.temperature=2"])
    made = instantiate(OmegaConf.create({k: config[k] for k in ("label", "feature", "optimizer")}))
    assert (made.label.temperature, made.label.weights["soft"]) == (2.0, 0.9)
    assert isinstance(made.feature["hint"], Hint)
    assert made.optimizer(network().parameters()).defaults["weight_decay"] > 0


def test_the_commands_compose():
    register_resolvers()
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    assert len(lines) == 3
    for line in lines:
        program, script, *overrides = shlex.split(line)
        assert (program, script) == ("python", "scripts/train.py")
        GlobalHydra.instance().clear()
        with initialize_config_module("kdlit.conf", version_base="1.3"):
            config = compose("train", [*overrides, "run_dir=x"])
        for override in overrides:
            key, value = override.split("=")
            if "." in key:
                assert OmegaConf.select(config, key) == value
    spoken = re.search(r"`(teacher=checkpoint [^`]*)`", PAGE)
    GlobalHydra.instance().clear()
    with initialize_config_module("kdlit.conf", version_base="1.3"):
        config = compose("train", [*spoken[1].split(), "run_dir=x"])
    assert (config.teacher.prefix, config.teacher.network.name) == ("net", "squeezenet1_1")
