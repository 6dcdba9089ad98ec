"""A drawing that stands by itself, on white, for a document."""

from collections.abc import Sequence
from pathlib import Path

from kdlit.report.charts import Line, band, limits
from kdlit.report.drawing import canvas, line_style

_INK, _FAINT = "#24292f", "#d8dee4"


def draw_lines(path: Path, drawn: Sequence[tuple[str, Line]], x: str, y: str) -> None:
    """Draw lines with bands over a logarithmic axis and write them as PNG.

    Args:
        path: where.
        drawn: each line with its name for the legend.
        x: label of the horizontal axis.
        y: label of the vertical one.

    Raises:
        ConfigError: if matplotlib is not installed.
    """
    with canvas(6.4, 3.8) as figure:
        axes = figure.add_subplot()
        for name, line in drawn:
            axes.plot(
                line.xs, line.ys, color=line.color, linestyle=line_style(line.dashes),
                marker="o", markersize=4, label=name,
            )  # fmt: skip
            low, high = band(line)
            axes.fill_between(line.xs, low, high, color=line.color, alpha=0.18, lw=0)
        xs = sorted({value for _, line in drawn for value in line.xs})
        axes.set_xscale("log")
        axes.set_xticks(xs, [f"{value:,}" for value in xs])
        axes.set_xticks([], minor=True)
        bottom, top = limits([line for _, line in drawn])
        axes.set_ylim(bottom, min(top, 100))
        axes.set_xlabel(x, color=_INK)
        axes.set_ylabel(y, color=_INK)
        axes.tick_params(colors=_INK)
        axes.grid(color=_FAINT)
        for spine in axes.spines.values():
            spine.set_color(_INK)
        axes.legend(loc="lower right", labelcolor=_INK, edgecolor=_FAINT)
        figure.savefig(path, format="png", dpi=160, facecolor="white", metadata={"Software": None})
