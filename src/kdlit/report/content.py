"""What a report is made of; the page and its Markdown twin are two ways to show it."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Items:
    """A list; `more` is how many were left out."""

    items: Sequence[str]
    more: int = 0


@dataclass(frozen=True)
class Table:
    """Rows of cells under a header; all columns but the first `words` are numbers.

    Attributes:
        caption: what the table shows.
        header: the headings.
        rows: the cells.
        words: how many columns, from the left, hold words.
        more: how many rows were left out.
        folded: whether a reader opens it first.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 1
    more: int = 0
    folded: bool = False


@dataclass(frozen=True)
class Panel:
    """One drawing: an SVG, its title, and its description for those who cannot see it."""

    svg: str
    title: str
    description: str


@dataclass(frozen=True)
class Key:
    """An entry of a legend: the colour, the dashes, and what they stand for."""

    color: str
    dashes: str
    name: str


@dataclass(frozen=True)
class Figure:
    """Drawings with one caption and one legend, and their numbers as a table."""

    caption: str
    panels: Sequence[Panel]
    legend: Sequence[Key] = ()
    table: Table | None = None


@dataclass(frozen=True)
class Bar:
    """A probability of one class, in [0, 1]."""

    name: str
    share: float


@dataclass(frozen=True)
class Sample:
    """A picture (PNG, base64), its number in the test set, and what was said of it."""

    png: str
    index: int
    truth: str
    teacher: Sequence[Bar]
    student: Sequence[Bar]


@dataclass(frozen=True)
class Gallery:
    """Pictures with one caption."""

    caption: str
    samples: Sequence[Sample]


Block = Text | Items | Table | Figure | Gallery


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    anchor: str
    title: str
    blocks: Sequence[Block] = field(default_factory=list)


@dataclass(frozen=True)
class Report:
    """The whole: a title, a line on where it comes from, and the sections."""

    title: str
    origin: str
    sections: Sequence[Section]
