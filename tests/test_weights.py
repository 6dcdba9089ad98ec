import os
import pickle
import random
import shutil
import warnings
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn
from torch.utils.data import DataLoader

from kdlit import load_weights, save_weights
from kdlit.errors import ConfigError
from kdlit.weights import read_metadata


class Bomb:
    def __reduce__(self):
        return os.system, ("touch exploded",)


class Evil:
    """Would write a file, by a function of a module that torch does not block."""

    def __reduce__(self):
        return shutil.copyfile, (__file__, "exploded")


@pytest.fixture
def net():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def fresh():
    torch.manual_seed(99)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def same(one: nn.Module, two: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_safetensors_and_its_metadata_survive(net, tmp_path):
    save_weights(tmp_path / "net.safetensors", net, {"recipe": {"lr": 0.1}, "name": "é"})
    other = fresh()
    load_weights(other, tmp_path / "net.safetensors")
    assert same(net, other)
    assert read_metadata(tmp_path / "net.safetensors") == {"recipe": {"lr": 0.1}, "name": "é"}


@pytest.mark.parametrize("prefix", ["", "student.", "network.", "model.", "model._orig_mod."])
@pytest.mark.parametrize("wrapped", [True, False])
def test_prefixes_of_wrappers_come_off(net, tmp_path, prefix, wrapped):
    state = {prefix + name: tensor for name, tensor in net.state_dict().items()}
    if prefix:
        state["label.projector.weight"] = torch.zeros(2)
    content = {"state_dict": state, "epoch": 3} if wrapped else state
    torch.save(content, tmp_path / "net.pt")
    other = fresh()
    load_weights(other, tmp_path / "net.pt")
    assert same(net, other)


class Theirs(pl.LightningModule):
    """Keeps objects among its hyperparameters, as other people's modules do."""

    def __init__(self, backbone, where=Path("some/where"), loss=None, config=None):
        super().__init__()
        self.save_hyperparameters()
        self.backbone, self.head = backbone, nn.Linear(2, 5)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)

    def training_step(self, batch, batch_idx):
        return self.head(self.backbone(batch)).sum()


def test_the_network_in_somebody_elses_checkpoint_is_found(net, tmp_path):
    """Its hyperparameters hold a path, modules and a configuration: none of them is made."""
    options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    fit = pl.Trainer(max_epochs=1, accelerator="cpu", enable_checkpointing=False, **options)
    loader = DataLoader(torch.randn(4, 3), batch_size=2)
    config = OmegaConf.create({"lr": 0.1, "widths": [1, 2]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that modules should not be hyperparameters
        fit.fit(Theirs(net, loss=nn.CrossEntropyLoss(), config=config), loader)
        fit.save_checkpoint(tmp_path / "their.ckpt")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "their.ckpt", weights_only=True)
    for prefix in (None, "backbone", "backbone."):
        other = fresh()
        assert load_weights(other, tmp_path / "their.ckpt", prefix) is other
        assert same(net, other)
    with pytest.raises(ConfigError, match="under 'bone': `prefix` must begin with one of backbone"):
        load_weights(fresh(), tmp_path / "their.ckpt", "bone")
    head = load_weights(nn.Linear(2, 5), tmp_path / "their.ckpt", "head")
    assert head.weight.shape == (5, 2)


def test_of_several_networks_that_fit_one_must_be_named(net, tmp_path):
    other = fresh()
    both = nn.ModuleDict({"online": net, "target": other})
    torch.save(both.state_dict(), tmp_path / "both.pt")
    with pytest.raises(ConfigError, match="with `prefix` which of online, target is meant"):
        load_weights(fresh(), tmp_path / "both.pt")
    assert same(load_weights(fresh(), tmp_path / "both.pt", "online"), net)
    student = nn.ModuleDict({"student": net, "features": nn.ModuleDict({"peer": other})})
    torch.save(student.state_dict(), tmp_path / "student.pt")
    assert same(load_weights(fresh(), tmp_path / "student.pt"), net)


def test_a_compiled_network_loads_and_is_loaded(net, tmp_path):
    module = nn.ModuleDict({"encoder": torch.compile(net, backend="eager")})
    torch.save(module.state_dict(), tmp_path / "compiled.pt")
    assert same(load_weights(fresh(), tmp_path / "compiled.pt"), net)
    assert same(load_weights(fresh(), tmp_path / "compiled.pt", "encoder"), net)
    compiled = torch.compile(fresh(), backend="eager")
    assert same(load_weights(compiled, tmp_path / "compiled.pt"), net)


def test_no_code_of_a_checkpoint_runs(net, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": net.state_dict(), "x": Evil()}, "evil.ckpt")
    assert same(load_weights(fresh(), "evil.ckpt"), net)
    torch.save({"state_dict": net.state_dict(), "x": Bomb()}, "bomb.ckpt")
    with pytest.raises(ConfigError, match="could run code"):
        load_weights(fresh(), "bomb.ckpt")
    assert not (tmp_path / "exploded").exists()


def damaged(path, net):
    save_weights(path, net)
    path.write_bytes(path.read_bytes()[:-20])


def truncated_zip(path, net):
    torch.save(net.state_dict(), path)
    path.write_bytes(path.read_bytes()[:-200])


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("none.pt", lambda path, net: None, "there is no file .*none.pt"),
        ("net.safetensors", damaged, "damaged"),
        ("net.safetensors", lambda path, net: path.write_bytes(b""), "damaged"),
        ("net.pt", truncated_zip, "damaged"),
        ("net.pt", lambda path, net: path.write_bytes(b"hello"), "net.pt"),
        ("net.pt", lambda path, net: torch.save([1, 2], path), "not a state dict"),
        ("net.pt", lambda path, net: torch.save({"a": 1}, path), "not a state dict"),
        ("net.pt", lambda path, net: torch.save(net, path), "could run code"),
        ("net.ckpt", lambda path, net: torch.save({"state_dict": Bomb()}, path), "could run code"),
        (
            "net.pt",
            lambda path, net: path.write_bytes(pickle.dumps(Bomb(), protocol=2)),
            "net.pt holds objects other than tensors|net.pt is damaged",
        ),
        (
            "net.pt",
            lambda path, net: torch.save(nn.Linear(3, 2).state_dict(), path),
            "missing keys: 0.weight, .* and 4 more; unexpected keys: weight, bias",
        ),
        (
            "net.pt",
            lambda path, net: torch.save(net.state_dict() | {"0.weight": torch.zeros(5, 3)}, path),
            r"0.weight is \(5, 3\) where \(4, 3\) is needed",
        ),
    ],
)
def test_bad_files_are_refused_and_change_nothing(net, tmp_path, monkeypatch, name, write, message):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / name, net)
    other = fresh()
    with pytest.raises(ConfigError, match=message):
        load_weights(other, tmp_path / name)
    assert same(other, fresh())
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_whatever_byte_is_damaged_the_error_is_ours(net, tmp_path, zipped):
    path, chance = tmp_path / "net.pt", random.Random(0)
    torch.save(net.state_dict(), path, _use_new_zipfile_serialization=zipped)
    whole, refused = path.read_bytes(), 0
    for _ in range(200):
        content = bytearray(whole)
        for place in chance.sample(range(600), 3):
            content[place] = chance.randrange(256)
        path.write_bytes(content)
        try:
            load_weights(fresh(), path)
        except ConfigError:
            refused += 1
    assert refused > 50
