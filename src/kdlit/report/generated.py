"""What a generator has learned to make of noise, as a picture."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from yaml import YAMLError, safe_load

from kdlit.allowlist import build_network
from kdlit.errors import ConfigError
from kdlit.loading import load_student
from kdlit.report.drawing import canvas

_INK, _GAP = "#24292f", 2


def draw(path: Path, run_dir: Path, columns: int = 12, noise: int = 2000) -> None:
    """Draw images of a run with `data=generated`, a row for each class, as PNG.

    The generator of the run's last checkpoint makes images of noise; the student says which class
    each is, and the first of each class are shown. A class of which there are too few has gaps.

    Args:
        path: where the picture goes.
        run_dir: a finished run.
        columns: images of each class.
        noise: how many images are made to choose from.

    Raises:
        ConfigError: if the run has made no images, or a file of it is missing.
    """
    student = load_student(run_dir)
    images = _images(Path(run_dir), noise)
    with torch.no_grad():
        logits = student(images)
    shades = images.mean(dim=1)
    low, high = shades.quantile(0.005), shades.quantile(0.995)
    shades = ((shades - low) / (high - low)).clamp(0, 1)
    classes, (height, width) = logits.shape[1], shades.shape[1:]
    decisions = logits.argmax(dim=1)
    sheet = torch.ones(classes * (height + _GAP), columns * (width + _GAP))
    for digit in range(classes):
        for place, image in enumerate(shades[decisions == digit][:columns]):
            top, left = digit * (height + _GAP), place * (width + _GAP)
            sheet[top : top + height, left : left + width] = image
    with canvas(6.4, 6.2 * classes / columns) as figure:
        figure.subplots_adjust(left=0.06, right=0.99, bottom=0.01, top=0.99)
        axes = figure.add_subplot()
        axes.imshow(sheet.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        centres = [digit * (height + _GAP) + height / 2 for digit in range(classes)]
        axes.set_yticks(centres, [str(digit) for digit in range(classes)])
        axes.set_xticks([])
        axes.grid(visible=False)
        axes.tick_params(length=0, colors=_INK)
        for spine in axes.spines.values():
            spine.set_visible(False)
        figure.savefig(path, format="png", dpi=160, facecolor="white", metadata={"Software": None})


@torch.no_grad()
def _images(run_dir: Path, count: int) -> Tensor:
    """Return images of noise by the generator of a run's last checkpoint."""
    data = _data_of(run_dir / "config.yaml")
    generator = build_network(data["generator"])
    checkpoint = run_dir / "last.ckpt"
    try:
        kept: Any = torch.load(checkpoint, map_location="cpu", weights_only=True)
        generator.load_state_dict(kept["GeneratedImages"]["generator"])
    except (OSError, KeyError, RuntimeError) as error:
        raise ConfigError(f"{checkpoint} holds no generator of images: {error}") from error
    source = torch.Generator().manual_seed(0)
    images: Tensor = _evaluated(generator, torch.randn(count, data["noise"], generator=source))
    return images


def _evaluated(network: nn.Module, inputs: Tensor) -> Tensor:
    outputs: Tensor = network.eval()(inputs)
    return outputs


def _data_of(path: Path) -> dict[str, Any]:
    try:
        data: Any = safe_load(path.read_text(encoding="utf-8"))["data"]
    except (OSError, YAMLError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is not the configuration of a run: {error}") from error
    if not isinstance(data, dict) or not {"generator", "noise"} <= data.keys():
        raise ConfigError(f"{path.parent} has made no images: it was not run with data=generated")
    return data
