"""A student from its file alone."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from kdlit import Preprocessing, load_student, read_card, save_weights
from kdlit.errors import ConfigError
from kdlit.models import MLP

NODE = {"_target_": "kdlit.models.MLP", "widths": [4]}


@pytest.fixture
def network():
    return MLP(widths=[4])


@pytest.fixture
def file(tmp_path, network):
    save_weights(tmp_path / "student.safetensors", network, {"student": NODE})
    return tmp_path / "student.safetensors"


def same(one, two) -> bool:
    return all(map(torch.equal, one.state_dict().values(), two.state_dict().values()))


@pytest.mark.parametrize("kind", [str, lambda path: path, lambda path: path.parent])
def test_a_file_or_its_folder(file, network, kind):
    loaded = load_student(kind(file))
    assert type(loaded) is MLP
    assert not loaded.training
    assert same(loaded, network)


def test_into_a_network_of_the_callers(tmp_path, network):
    save_weights(tmp_path / "a.safetensors", network, {"student": {"_target_": "my_project.Net"}})
    mine = MLP(widths=[4]).train()
    with pytest.raises(ConfigError, match=r"a\.safetensors: 'my_project\.Net' is not .*network="):
        load_student(tmp_path / "a.safetensors")
    assert load_student(tmp_path / "a.safetensors", network=mine) is mine
    assert same(mine, network)
    assert not mine.training


def test_a_student_that_was_put_together(tmp_path, network):
    save_weights(tmp_path / "a.safetensors", network, {"student": NODE, "rebuilt_by": "SimKD"})
    with pytest.raises(ConfigError, match=r"SimKD has put .*student\.pt2 with torch\.export\.load"):
        load_student(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, "does not name a network"),
        (None, "does not name a network"),
        ({"student": json.dumps({**NODE, "widths": [5]})}, "holds the weights of another network"),
        ({"student": "{"}, "cannot be read"),
        ({"student": "[" * 100_000}, "cannot be read"),
        ({"student": json.dumps(NODE).replace("[4]", "[" * 600 + "]" * 600)}, "kdlit.models.MLP"),
        ({"student": json.dumps(NODE), "input": "[1]"}, "the metadata have another form"),
        ({"student": json.dumps({"_target_": "os.system", "command": "touch x"})}, "not among"),
    ],
)
def test_bad_metadata(tmp_path, monkeypatch, network, metadata, message):
    monkeypatch.chdir(tmp_path)
    save_file(network.state_dict(), tmp_path / "a.safetensors", metadata=metadata)
    with pytest.raises(ConfigError, match=rf"a\.safetensors.*{message}"):
        load_student(tmp_path / "a.safetensors")
    assert not (tmp_path / "x").exists()


def test_what_is_no_file_of_a_student(tmp_path):
    torch.save(MLP(widths=[4]).state_dict(), tmp_path / "net.pt")
    (tmp_path / "a.safetensors").write_bytes(b"damaged")
    for path, message in (
        (tmp_path, "there is no file .*student.safetensors"),
        (tmp_path / "none.safetensors", "there is no file"),
        (tmp_path / "net.pt", "kdlit.load_weights"),
        (tmp_path / "a.safetensors", "a.safetensors cannot be read"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_student(path)


def test_the_card_of_a_file(tmp_path, network):
    given = {"shape": [3, 2, 2], "mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.25], "scale": 255}
    metadata = {"student": NODE, "input": given, "classes": ["a", "b"], "test": {"accuracy": 0.5}}
    save_weights(tmp_path / "a.safetensors", network, metadata)
    card = read_card(tmp_path / "a.safetensors")
    assert card.input == Preprocessing((3, 2, 2), (0.1, 0.2, 0.3), (0.5, 0.5, 0.25), 255.0)
    assert (card.network, card.classes, card.teacher) == (NODE, ("a", "b"), None)
    assert card.test == {"accuracy": 0.5}


def test_preprocessing_by_channel():
    preprocessing = Preprocessing((2, 1, 1), (0.0, 0.2), (1.0, 0.1), 10)
    found = preprocessing(torch.tensor([[[[10]], [[3]]]], dtype=torch.uint8))
    assert torch.equal(found, torch.tensor([[[[1.0]], [[1.0]]]]))


def test_preprocessing_is_that_of_the_datamodule():
    from kdlit.data import FashionMNISTDataModule, MNISTDataModule

    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    for kind in (MNISTDataModule, FashionMNISTDataModule):
        ours = Preprocessing((1, 16, 16), kind.mean, kind.std, kind.pixel_scale)
        assert torch.equal(ours(pixels), kind().normalize(pixels))


def test_neither_lightning_nor_hydra_is_needed(file):
    code = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in {'lightning', 'hydra', 'omegaconf', 'torchmetrics'}:\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "import torch, kdlit\n"
        f"student = kdlit.load_student({str(file)!r})\n"
        f"assert kdlit.read_card({str(file)!r}).network['widths'] == [4]\n"
        "print(tuple(student(torch.zeros(2, 1, 28, 28)).shape))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "(2, 10)\n", done.stderr
