"""Each format of several networks, read again and compared, with and without preprocessing."""

import json
import pickle

import pytest
import torch
from safetensors import safe_open
from torch import nn

from kdlit.errors import ConfigError, ExportError
from kdlit.export.check import Reference
from kdlit.export.formats import FORMATS, Student, formats_of
from kdlit.export.quiet import quiet
from kdlit.models import MLP, ArticleCNN, ConvNet

INPUT = {"shape": [1, 28, 28], "mean": 0.1307, "std": 0.3081, "scale": 255}


class Namespaced(nn.Module):
    """Returns its logits in `.logits`, as networks of some libraries do."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = MLP(widths=[8])

    def forward(self, images):
        from types import SimpleNamespace

        return SimpleNamespace(logits=self.inner(images))


def timms() -> nn.Module:
    timm = pytest.importorskip("timm")
    return timm.create_model("test_resnet", in_chans=1, num_classes=10)


NETWORKS = {
    "mlp": (lambda: MLP(widths=[16]), {"_target_": "kdlit.models.MLP", "widths": [16]}),
    "article": (ArticleCNN, {"_target_": "kdlit.models.ArticleCNN"}),
    "convnet": (
        lambda: ConvNet([4, 8]),
        {"_target_": "kdlit.models.ConvNet", "channels": [4, 8]},
    ),
    "timm": (
        timms,
        {
            "_target_": "timm.create_model",
            "model_name": "test_resnet",
            "in_chans": 1,
            "num_classes": 10,
        },
    ),
    "namespaced": (Namespaced, {"_target_": "tests.Namespaced"}),
}


def student(name: str, pixels: torch.dtype | None = None) -> Student:
    """Return a network with statistics of its own in every batch norm."""
    make, node = NETWORKS[name]
    torch.manual_seed(5)
    network = make()
    raw = torch.randint(0, 256, (200, 1, 28, 28), dtype=torch.uint8)
    metadata = {"student": node, "input": INPUT}
    found = Student(network, metadata, raw, raw, lambda: raw)
    images = found.card.input(raw)
    network.train()(images)
    given = None if pixels is None else raw.to(pixels)
    calibration = images if given is None else given
    return Student(network.eval(), metadata, images, given, lambda: calibration)


def written(kind: str, ours: Student, folder):
    path = folder / FORMATS[kind].file
    with quiet():
        FORMATS[kind].write(ours, path)
        run = FORMATS[kind].read(ours, path)
    target = torch.zeros(len(ours.images), dtype=torch.long)
    reference = Reference(ours.network, ours.images, target)
    return reference.compare(run, FORMATS[kind].takes(ours)[1])


# The real command exports an MLP in every format; the others of each kind are slow.
QUICK = {("safetensors", name) for name in NETWORKS} | {
    ("program", "convnet"),
    ("program", "namespaced"),
    ("onnx", "article"),
}
CASES = [
    pytest.param(kind, name, marks=() if (kind, name) in QUICK else pytest.mark.slow)
    for kind in ("safetensors", "program", "onnx")
    for name in NETWORKS
]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_answers_as_the_student_for_any_batch(kind, name, tmp_path, capfd):
    found = written(kind, student(name), tmp_path)
    assert found.largest_difference <= (0 if kind == "safetensors" else 1e-4)
    assert found.equal_decisions == 1.0
    assert [path.name for path in tmp_path.iterdir()] == [FORMATS[kind].file]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("kind", "pixels"),
    [
        pytest.param("onnx", torch.uint8, marks=pytest.mark.slow),
        ("program", torch.uint8),
        pytest.param("program", torch.float32, marks=pytest.mark.slow),
    ],
)
def test_preprocessing_in_the_graph(kind, pixels, tmp_path):
    ours = student("convnet", pixels)
    assert FORMATS[kind].takes(ours)[0] == str(pixels).removeprefix("torch.")
    assert written(kind, ours, tmp_path).largest_difference < 1e-4


@pytest.mark.parametrize(
    ("name", "pixels"),
    [pytest.param("mlp", None, marks=pytest.mark.slow), ("convnet", torch.uint8)],
)
def test_int8_decides_alike_and_is_small(name, pixels, tmp_path):
    import onnx

    ours = student(name, pixels)
    found = written("int8", ours, tmp_path)
    # Rounding alone: nothing is cut off, and no kernel saturates.
    assert 1e-4 < found.largest_difference < 0.03 * found.largest_logit
    assert found.equal_decisions > 0.9
    model = onnx.load(tmp_path / "student.int8.onnx")
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    weights = [t for t in model.graph.initializer if len(t.dims) >= 2]
    assert weights
    assert {kinds[t.name] for t in weights} == {onnx.TensorProto.UINT8}


def test_a_program_holds_no_pickle_and_none_of_the_images(tmp_path, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("something is unpickled")

    ours = student("mlp")
    path = tmp_path / "student.pt2"
    with quiet():
        FORMATS["program"].write(ours, path)
    for module, name in ((torch, "load"), (pickle, "loads"), (pickle, "load")):
        monkeypatch.setattr(module, name, never)
    run = FORMATS["program"].read(ours, path)
    torch.testing.assert_close(run(ours.images), ours.network(ours.images))
    assert torch.export.load(path).example_inputs is None


def test_a_network_that_cannot_be_traced(tmp_path):
    class Restless(nn.Module):
        def forward(self, images):
            return images.flatten(1)[:, :10] * (2 if images.sum() > 0 else 1)

    ours = student("mlp")
    ours = Student(Restless(), ours.metadata, ours.images, None, ours.calibration)
    with pytest.raises(ExportError, match=r"torch\.export cannot follow this network"):
        FORMATS["program"].write(ours, tmp_path / "student.pt2")


def test_metadata_are_texts_of_json(tmp_path):
    ours = student("mlp")
    FORMATS["safetensors"].write(ours, tmp_path / "student.safetensors")
    with safe_open(tmp_path / "student.safetensors", framework="pt") as opened:
        assert json.loads(opened.metadata()["input"]) == INPUT


@pytest.mark.parametrize("names", ["onnx", [], None])
def test_formats_must_be_a_list(names):
    with pytest.raises(ConfigError, match="must be a list"):
        formats_of(names)


def test_an_unknown_format():
    with pytest.raises(ConfigError, match=r"there is no onx: did you mean onnx\?"):
        formats_of(["onx"])
