"""A report as one page that needs nothing else, and as Markdown with the same numbers."""

import re
from collections.abc import Sequence

from kdlit.errors import ConfigError
from kdlit.report.content import Block, Figure, Gallery, Items, Report, Sample, Table, Text


def html(report: Report) -> str:
    """Return the page: styles, drawings and pictures are in it, and every value is escaped.

    Raises:
        ConfigError: if Jinja is not installed.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise ConfigError(
            'a report is a page made with Jinja: it comes with pip install "kdlit[report]"'
        ) from error
    environment = Environment(
        loader=PackageLoader("kdlit.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["kind"] = lambda block: type(block).__name__
    return environment.get_template("page.html.jinja").render(report=report) + "\n"


def markdown(report: Report) -> str:
    """Return the report in Markdown: its tables whole, and of drawings their numbers."""
    lines = [f"# {escape(report.title)}", "", escape(report.origin), ""]
    for section in report.sections:
        lines += [f"## {escape(section.title)}", ""]
        for block in section.blocks:
            lines += [*_block(block), ""]
    return "\n".join(lines).rstrip() + "\n"


def escape(text: str) -> str:
    r"""Return text that Markdown shows as it is.

    >>> escape("a|b <script> label_smoothing _target_")
    'a\\|b &lt;script&gt; label_smoothing \\_target\\_'
    """
    text = " ".join(text.split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*|\[\]])", r"\\\1", text)
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)


def _block(block: Block) -> list[str]:
    if isinstance(block, Text):
        return [escape(block.text)]
    if isinstance(block, Items):
        more = [f"- and {block.more:,} more"] if block.more else []
        return [*(f"- {escape(item)}" for item in block.items), *more]
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Figure):
        titles = ", ".join(escape(panel.title) for panel in block.panels)
        told = [f"{escape(block.caption)} (Drawn in the page: {titles}.)"]
        return [*told, "", *_table(block.table)] if block.table else told
    return _gallery(block)


def _table(table: Table) -> list[str]:
    marks = ["---"] * table.words + ["---:"] * (len(table.header) - table.words)
    header, *rows = (f"| {' | '.join(map(escape, r))} |" for r in (table.header, *table.rows))
    lines = [header, f"|{'|'.join(marks)}|", *rows]
    if table.more:
        lines += ["", f"And {table.more:,} more rows."]
    if table.folded:
        return [
            f"<details><summary>{escape(table.caption)}</summary>",
            "",
            *lines,
            "",
            "</details>",
        ]
    return [f"{escape(table.caption)}:", "", *lines]


def _gallery(gallery: Gallery) -> list[str]:
    header = ["sample", "truth", "teacher", "student"]
    rows = [
        [str(sample.index), sample.truth, _said(sample, "teacher"), _said(sample, "student")]
        for sample in gallery.samples
    ]
    return _table(Table(gallery.caption, header, rows, words=4))


def _said(sample: Sample, who: str) -> str:
    bars: Sequence = getattr(sample, who)
    return ", ".join(f"{bar.name} {100 * bar.share:.1f} %" for bar in bars)
