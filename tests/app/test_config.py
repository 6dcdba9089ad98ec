"""Every option of every group composes and instantiates."""

import importlib.util

import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf

from conftest import REPOSITORY
from kdlit.app.build import build
from kdlit.app.cli import register_resolvers

CONF = REPOSITORY / "conf"
# Of `paper` nothing is composed into a run: it says which runs make a table.
OPTION_FILES = [path for path in CONF.rglob("*.yaml") if path.parent != CONF]
GROUPS = {path.parent.relative_to(CONF) for path in OPTION_FILES}
OPTIONS = sorted((str(path.parent.relative_to(CONF)), path.stem) for path in OPTION_FILES)


def composed(*overrides: str) -> DictConfig:
    register_resolvers()
    GlobalHydra.instance().clear()
    with initialize_config_module("kdlit.conf", version_base="1.3"):
        config = compose("train", [*overrides, "run_dir=somewhere"])
    OmegaConf.resolve(config)
    return config


def test_the_groups_are_those_that_the_architecture_names():
    assert {str(group) for group in GROUPS} == {
        "cache", "callbacks", "data", "data/augment", "experiment", "feature", "label",
        "label/transform", "logger", "mix", "optimizer", "scheduler", "student", "teacher",
        "teacher/network", "trainer",
    }  # fmt: skip


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_instantiates(group, option, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    extra = ["teacher.path=missing.pt"] if (group, option) == ("teacher", "checkpoint") else []
    choice = f"[{option}]" if group in {"logger", "feature"} else option
    config = composed(f"{group}={choice}", *extra)
    key = group.split("/")[0]
    if group == "experiment":
        assert build(config, "label")
    elif group in {"logger", "callbacks", "feature"}:
        for name in config[key]:
            if name in {"wandb", "mlflow"} and importlib.util.find_spec(name) is None:
                with pytest.raises(ValueError, match=rf'pip install "kdlit\[{name}\]"'):
                    build(config[key], name)
            else:
                assert build(config[key], name)
    elif (group, option) == ("teacher", "checkpoint"):
        with pytest.raises(ValueError, match=r"there is no file missing\.pt"):
            build(config, "teacher")
    elif group == "trainer":
        factory = build(config, "trainer")
        if option == "gpu" and not torch.cuda.is_available():
            with pytest.raises(MisconfigurationException, match=r"CUDA|GPU|gpu"):
                factory()
        else:
            assert factory(accelerator="cpu", logger=False, max_epochs=1).max_epochs == 1
    else:
        assert build(config, key) is not None


def test_every_label_that_can_takes_a_transform():
    labels = [option for group, option in OPTIONS if group == "label"]
    able = [o for o in labels if hasattr(build(composed(f"label={o}"), "label"), "transform")]
    assert {"soft", "hard", "dkd"} <= set(able)
    for option in set(able) - {"truth"}:
        label = build(composed(f"label={option}", "label/transform=standardize"), "label")
        assert type(label.transform).__name__ == "Standardize"


def test_an_experiment_does_not_silence_the_command_line():
    assert composed("experiment=article", "seed=5", "trainer.max_epochs=1").seed == 5
    assert "alpha" in composed("experiment=article", "label=hard").label
    assert "path" in composed("experiment=article", "teacher=checkpoint", "teacher.path=a").teacher


def test_the_article_trains_teacher_and_student_alike():
    config = composed("experiment=article")
    for optimizer in (config.optimizer, config.teacher.optimizer):
        assert (optimizer._target_, optimizer.lr) == ("torch.optim.Adam", 0.001)
    assert config.scheduler == config.teacher.scheduler
    assert config.trainer.max_epochs == config.teacher.trainer.max_epochs == 10
    assert config.data.batch_size == config.teacher.data.batch_size == 64


@pytest.mark.parametrize(
    "override",
    ["label.temperature=8", "label.nonsense=1", "nonsense=1", "+label=soft", "label=sofd"],
)
def test_nonsense_fails_while_composing(override):
    with pytest.raises(ConfigCompositionException):
        composed("label=hard", override)


def test_another_project_composes_ours(tmp_path):
    """With `hydra.searchpath: [pkg://kdlit.conf]` in its own primary configuration."""
    from hydra import initialize_config_dir

    (tmp_path / "config.yaml").write_text(
        "defaults:\n  - label: soft\n  - optimizer: sgd\n  - _self_\n"
        "hydra:\n  searchpath: [pkg://kdlit.conf]\n"
    )
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        config = compose("config", ["label.temperature=2", "label=soft"])
    assert build(config, "label").temperature == 2.0
    assert build(config, "optimizer").keywords["momentum"] == 0.9
