"""Matplotlib's SVG made small, the same in every run, and coloured by the page around it."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from kdlit.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's palette, which the colour-blind can tell apart, without black and yellow, which
# are lost on a page of their own darkness; then the same with dashes.
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9")
DASHES = ("", "6 3", "2 2")
MOST_LINES = len(PALETTE) * 2

# Stand for the page's colours of text and of fine lines.
_INK, _FAINT = "#123456", "#654321"

_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "kdlit",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.grid": True,
    "grid.color": _FAINT,
    "grid.linewidth": 0.6,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "lines.linewidth": 1.6,
    "axes.formatter.useoffset": False,
    # Names are no formulas.
    "text.parse_math": False,
    "path.simplify_threshold": 0.5,
}


def style(place: int) -> tuple[str, str]:
    """Return colour and dashes of the line at a place.

    >>> style(0), style(6)
    (('#0072b2', ''), ('#0072b2', '6 3'))
    """
    return PALETTE[place % len(PALETTE)], DASHES[place // len(PALETTE) % len(DASHES)]


def line_style(dashes: str) -> Any:
    """Return SVG's dashes as matplotlib's.

    >>> line_style("6 3"), line_style("")
    ((0, (6.0, 3.0)), '-')
    """
    return (0, tuple(float(part) for part in dashes.split())) if dashes else "-"


@contextmanager
def canvas(width: float = 3.6, height: float = 2.6, left: float = 0.62) -> "Iterator[Figure]":
    """Give a figure of a size in inches, in this module's style.

    Args:
        width: of the whole.
        height: likewise.
        left: the margin for the labels of the vertical axis.

    Raises:
        ConfigError: if matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError(
            'a report draws with matplotlib: it comes with pip install "kdlit[report]"'
        ) from error
    # Not pyplot, which keeps every figure.
    with mpl.rc_context(cast("Any", _STYLE)):
        figure = Figure(figsize=(width, height))
        # Fixed margins: a layout engine would draw everything twice.
        figure.subplots_adjust(
            left=left / width, right=1 - 0.1 / width, bottom=0.48 / height, top=1 - 0.08 / height
        )
        yield figure


def to_svg(figure: "Figure", name: str) -> str:
    """Return a figure as an SVG element to stand in a page.

    Args:
        figure: made within :func:`canvas`, and still within it.
        name: a word that no other drawing of the page has; its ids begin with it.
    """
    buffer = io.StringIO()
    empty = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=empty)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    # An element of a page needs no name spaces.
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
    svg = svg.replace("xlink:href", "href").replace(' version="1.1"', "")
    used = set(re.findall(r"(?:url\(|href=\")#([^)\"]+)", svg))
    svg = re.sub(
        r' id="([^"]+)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", svg
    )
    svg = re.sub(r'(url\(|href=")#', rf"\g<1>#{name}-", svg)
    svg = svg.replace(_INK, "currentColor").replace(_FAINT, "var(--faint)")
    svg = re.sub(r"font: ([\d.]+px) [^;\"]+", r"font-size: \1", svg)
    svg = re.sub(r"<svg ", '<svg aria-hidden="true" focusable="false" ', svg, count=1)
    return re.sub(r"\n\s*", "\n", svg).strip()
