"""The picture of what a generator makes of noise, from a run's files."""

import json

import pytest
import torch
from PIL import Image
from torch import nn

from kdlit import save_weights
from kdlit.errors import ConfigError
from kdlit.models import MLP, ImageGenerator
from kdlit.report.generated import draw


@pytest.fixture
def run(tmp_path):
    """The files of a run whose images have their class as brightness of the upper left corner."""
    generator = ImageGenerator(4, channels=(4, 4)).eval()
    with torch.no_grad():
        corner = generator(torch.randn(99, 4))[:, 0, 0, 0].median()
    node = {"_target_": "kdlit.models.MLP", "widths": [], "num_classes": 3}
    student = MLP(widths=[], num_classes=3)
    nn.init.zeros_(student.classifier.weight)
    student.classifier.weight.data[2, 0] = 1.0
    student.classifier.bias.data = torch.tensor([0.0, -1e3, -corner])  # 1 never wins
    save_weights(tmp_path / "student.safetensors", student, {"student": node})
    made = {"_target_": "kdlit.models.ImageGenerator", "noise": 4, "channels": [4, 4]}
    config = {"data": {"generator": made, "noise": 4}}
    (tmp_path / "config.yaml").write_text(json.dumps(config), encoding="utf-8")  # which YAML is
    kept = {"GeneratedImages": {"generator": generator.state_dict(), "optimizer": None}}
    torch.save(kept, tmp_path / "last.ckpt")
    return tmp_path


def test_draws_a_row_for_each_class_and_leaves_gaps(run):
    draw(run / "picture.png", run, columns=5, noise=60)
    with Image.open(run / "picture.png") as picture:
        shades = torch.tensor(list(picture.convert("L").get_flattened_data()))
        rows = shades.reshape(picture.height, picture.width).float()
    assert len(set(shades.tolist())) > 50
    # Away from the labels; the class that the student never sees is white.
    third = rows[:, picture.width // 4 :].split(picture.height // 3)
    grey = [(part[10:-10] < 250).float().mean().item() for part in third[:3]]
    assert grey[1] < 0.1 < min(grey[0], grey[2])


def test_says_what_is_missing(run):
    (run / "last.ckpt").unlink()
    with pytest.raises(ConfigError, match=r"last\.ckpt holds no generator"):
        draw(run / "picture.png", run)
    (run / "config.yaml").write_text("data: {batch_size: 3}", encoding="utf-8")
    with pytest.raises(ConfigError, match="was not run with data=generated"):
        draw(run / "picture.png", run)
