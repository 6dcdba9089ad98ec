import os
import pickle

import pytest
import torch
from torch import nn

from kdlit import load_weights, save_weights
from kdlit.errors import ConfigError
from kdlit.weights import read_metadata


class Bomb:
    def __reduce__(self):
        return os.system, ("touch exploded",)


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
