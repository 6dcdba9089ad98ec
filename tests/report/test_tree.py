"""The picture of a soft decision tree."""

import json

import pytest
import torch
from PIL import Image

from conftest import REPOSITORY
from kdlit.errors import ConfigError
from kdlit.models import MLP, SoftDecisionTree
from kdlit.report.tree import draw
from kdlit.weights import save_weights


def a_run(folder, network, node):
    """Write what the picture is made of."""
    data = {"_target_": "kdlit.data.MNISTDataModule", "root": str(REPOSITORY / "data")}
    data |= {"val_size": 50, "split_seed": 0}
    save_weights(folder / "student.safetensors", network, {"student": node})
    text = json.dumps({"config": {"student": node, "data": data}})
    (folder / "summary.json").write_text(text, encoding="utf-8")


@pytest.mark.parametrize("depth", [1, 5])
def test_shows_what_the_filters_are(tmp_path, depth):
    tree = SoftDecisionTree(depth=depth)
    a_run(tmp_path, tree, {"_target_": "kdlit.models.SoftDecisionTree", "depth": depth})
    draw(tmp_path / "one.png", tmp_path)
    with torch.no_grad():  # the root's filter the other way about, and with it all ways
        tree.filters.weight[0] *= -1
        tree.filters.bias[0] *= -1
    a_run(tmp_path, tree, {"_target_": "kdlit.models.SoftDecisionTree", "depth": depth})
    draw(tmp_path / "two.png", tmp_path)
    with Image.open(tmp_path / "one.png") as one, Image.open(tmp_path / "two.png") as two:
        middle = (one.width // 2, int(0.105 * one.height))
        colours = [picture.convert("RGB").getpixel(middle) for picture in (one, two)]
        assert one.size == two.size
    # Red where it was blue.
    assert (colours[0][0] > colours[0][2]) == (colours[1][0] < colours[1][2])


def test_draws_nothing_else(tmp_path):
    a_run(tmp_path, MLP(widths=[4]), {"_target_": "kdlit.models.MLP", "widths": [4]})
    with pytest.raises(ConfigError, match=r"student is MLP: choose student=soft_decision_tree"):
        draw(tmp_path / "one.png", tmp_path)
