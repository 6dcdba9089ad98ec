"""A learned soft decision tree as a picture: filters, what comes by them, and one image's way."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

import kdlit.data
from kdlit.errors import ConfigError
from kdlit.loading import load_student
from kdlit.models import SoftDecisionTree
from kdlit.report.drawing import PALETTE, canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEVELS = 4
"""How many levels of a deeper tree are drawn in full."""

_INK, _FAINT, _BAR = "#24292f", "#c8ced4", PALETTE[0]
_WAY = PALETTE[3]
_WIDTH, _HEIGHT, _MARGIN = 13.0, 9.6, 0.02


def draw(path: Path, run_dir: Path) -> None:
    """Draw the tree that a run has trained and write it as PNG.

    Above are the filters of the first levels, and below each branch the classes of the validation
    images that come there by their greatest path. Beneath is the way of one image, the first of
    them, through all levels to its leaf, which is also marked above.

    Args:
        path: where.
        run_dir: of a run of `train.py` with `student=soft_decision_tree` and images of MNIST's
            form.

    Raises:
        ConfigError: if the student is no such tree, or matplotlib is not installed.
    """
    summary = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))
    tree = _tree(run_dir)
    images, shown, labels = _images(summary["config"]["data"])
    with torch.inference_mode():
        nodes = tree.paths(tree.filters(tree.flatten(images)))
        leaves = nodes[:, -len(tree.leaves) :].argmax(dim=1)
        decisions = tree.leaves.softmax(dim=1)
    filters = tree.filters.weight.detach().reshape(-1, *shown.shape[-2:])
    levels = min(tree.depth, LEVELS)
    comes = [_visitors(leaves, labels, tree, level) for level in range(levels + 1)]
    way = _way(int(leaves[0]), tree.depth)
    with canvas(_WIDTH, _HEIGHT) as figure:
        places = _places(levels)
        _edges(figure, places, comes, way)
        for level in range(levels):
            for number in range(2**level):
                _image(_axes(figure, places[level][number], 0.085 - 0.011 * level),
                       filters[2**level - 1 + number])  # fmt: skip
        for number, (x, y) in enumerate(places[levels]):
            marked = way[levels] == 2**levels - 1 + number
            _shares(_axes(figure, (x, y), 0.05), comes[levels][number], marked)
        _one(figure, shown[0], [filters[node] for node in way[:-1]], way, decisions[leaves[0]])
        _tell(figure, levels, tree.depth, len(labels))
        figure.savefig(path, format="png", dpi=130, facecolor="white", metadata={"Software": None})


# What is drawn ----------------------------------------------------------------------------------


def _tree(run_dir: Path) -> SoftDecisionTree:
    student = load_student(run_dir)
    if isinstance(student, SoftDecisionTree):
        return student
    raise ConfigError(
        f"{run_dir}: only a soft decision tree can be drawn as one, and this run's student is "
        f"{type(student).__name__}: choose student=soft_decision_tree"
    )


def _images(config: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Return validation images as the tree sees them and as one sees them, and their classes."""
    kind = getattr(kdlit.data, str(config["_target_"]).rpartition(".")[2])
    data = kind(root=config["root"], val_size=config["val_size"], split_seed=config["split_seed"])
    data.setup()
    raw = data.val_data.images
    return data.normalize(raw.float()), raw[:, 0], data.val_data.labels


def _visitors(leaves: Tensor, labels: Tensor, tree: SoftDecisionTree, level: int) -> Tensor:
    """Return how many images of each class come to each node of a level, (2^level, C)."""
    classes = tree.leaves.shape[1]
    node = leaves >> (tree.depth - level)
    return torch.bincount(node * classes + labels, minlength=2**level * classes).reshape(
        -1, classes
    )


def _way(leaf: int, depth: int) -> list[int]:
    """Return the nodes from the root to a leaf.

    >>> _way(leaf=2, depth=2)
    [0, 2, 5]
    """
    return [2**level - 1 + (leaf >> (depth - level)) for level in range(depth + 1)]


def _places(levels: int) -> list[list[tuple[float, float]]]:
    """Return where the nodes of each level are, in parts of the figure."""
    top, step = 0.895, 0.565 / levels
    return [
        [((2 * n + 1) / 2 ** (level + 1), top - level * step) for n in range(2**level)]
        for level in range(levels + 1)
    ]


# How it is drawn --------------------------------------------------------------------------------


def _axes(figure: "Figure", place: tuple[float, float], size: float) -> "Axes":
    """Return square axes around a place; `size` is in parts of the figure's width."""
    x, y = _MARGIN + place[0] * (1 - 2 * _MARGIN), place[1]
    height = size * _WIDTH / _HEIGHT
    axes = figure.add_axes((x - size / 2, y - height / 2, size, height))
    axes.grid(visible=False)
    axes.set_xticks([])
    axes.set_yticks([])
    return axes


def _image(axes: "Axes", pixels: Tensor) -> None:
    """Show a filter in colours about white, which is 0."""
    limit = float(pixels.abs().quantile(0.995))
    axes.imshow(pixels.numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit)
    _frame(axes, _FAINT)


def _frame(axes: "Axes", color: str, width: float = 0.8) -> None:
    for spine in axes.spines.values():
        spine.set(visible=True, color=color, linewidth=width)


def _shares(axes: "Axes", counts: Tensor, marked: bool) -> None:
    """Show the classes that come to a node, and name those that are a tenth of them or more."""
    shares = (counts / counts.sum().clamp(min=1)).tolist()
    axes.bar(range(len(shares)), shares, color=_BAR, width=0.9)
    axes.set_xlim(-0.6, len(shares) - 0.4)
    axes.set_ylim(0, 1)
    axes.set_xticks(range(len(shares)), [str(k) for k in range(len(shares))], fontsize=5)
    axes.tick_params(length=0, pad=1, colors=_INK)
    _frame(axes, _WAY if marked else _FAINT, 1.8 if marked else 0.8)
    named = sorted((k for k, share in enumerate(shares) if share >= 0.1), key=lambda k: -shares[k])
    axes.set_title(" ".join(map(str, named)), fontsize=10, color=_INK, pad=3)


def _edges(
    figure: "Figure",
    places: Sequence[Sequence[tuple[float, float]]],
    comes: Sequence[Tensor],
    way: Sequence[int],
) -> None:
    """Draw the branches, as wide as many images come by."""
    axes = figure.add_axes((_MARGIN, 0, 1 - 2 * _MARGIN, 1))
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    for level in range(1, len(places)):
        for number, (x, y) in enumerate(places[level]):
            above = places[level - 1][number // 2]
            share = float(comes[level][number].sum() / comes[0].sum())
            marked = way[level] == 2**level - 1 + number
            axes.plot(
                [above[0], x], [above[1], y], color=_WAY if marked else _FAINT,
                linewidth=0.8 + 9 * share, solid_capstyle="round", zorder=2 if marked else 1,
            )  # fmt: skip


def _one(
    figure: "Figure", image: Tensor, filters: Sequence[Tensor], way: Sequence[int], leaf: Tensor
) -> None:
    """Show an image, the filters on its way with where they send it, and its leaf."""
    y, count = 0.135, len(filters) + 2
    first = _axes(figure, (0.5 / count, y), 0.08)
    first.imshow(image.numpy(), cmap="gray_r")
    _frame(first, _WAY, 1.8)
    first.set_title("one image", fontsize=9, color=_INK)
    for number, pixels in enumerate(filters):
        axes = _axes(figure, ((number + 1.5) / count, y), 0.08)
        _image(axes, pixels)
        turn = "right" if way[number + 1] % 2 == 0 else "left"
        axes.set_title(f"level {number}", fontsize=9, color=_INK)
        axes.set_xlabel(turn, fontsize=9, color=_WAY)
    last = _axes(figure, ((count - 0.5) / count, y), 0.08)
    _shares(last, leaf, marked=True)
    last.set_title("its leaf", fontsize=9, color=_INK)


def _tell(figure: "Figure", levels: int, depth: int, images: int) -> None:
    rest = f", of {depth}" if depth > levels else ""
    figure.text(
        0.02, 0.975, f"The filters of the first {levels} levels{rest}.\nInk on red sends an image "
        "to the right, ink on blue to the left.",
        fontsize=10, color=_INK, va="top",
    )  # fmt: skip
    figure.text(
        0.98, 0.975, f"Below: classes of the {images:,} validation images that come there,\nthe "
        "frequent ones named. Branches are as wide as many come by.",
        fontsize=10, color=_INK, va="top", ha="right",
    )  # fmt: skip
    figure.text(
        0.02, 0.235, "The way of one image, orange above, to the leaf that decides:",
        fontsize=10, color=_INK, va="top",
    )  # fmt: skip
