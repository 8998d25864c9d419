"""The parts of the page as data. The template `page.html.j2` turns each kind into HTML and escapes all texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from markupsafe import Markup

_LONGEST_CELL = 200


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True)
class Code:
    """A text in a fixed width, such as a recipe."""

    kind: ClassVar[str] = "code"
    text: str
    label: str = "code"


@dataclass(frozen=True)
class Table:
    """A table. The first column names the rows; columns of numbers are aligned to the right.

    Attributes:
        caption: the title.
        head: the names of the columns.
        rows: the cells of each row.
        heat: for each row, how dark each cell after the first is, from 0 to 1; empty for no shades.
    """

    kind: ClassVar[str] = "table"
    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[object]]
    heat: Sequence[Sequence[float]] = ()

    @property
    def columns(self) -> list[tuple[str, bool]]:
        """The name of each column, and whether the column has numbers."""
        cells = [[str(row[place]) for row in self.rows] for place in range(len(self.head))]
        return [
            (name, place > 0 and bool(self.rows) and all(map(_is_number, cells[place])))
            for place, name in enumerate(self.head)
        ]

    @property
    def cells(self) -> list[list[tuple[str, bool, float]]]:
        """The rows as (text, whether the column has numbers, shade), with long texts shortened."""
        numeric = [is_numeric for _, is_numeric in self.columns]
        shades = self.heat or [[0.0] * (len(self.head) - 1)] * len(self.rows)
        return [
            [(short(str(cell)), right, shade) for cell, right, shade in zip(row, numeric, [0.0, *dark], strict=True)]
            for row, dark in zip(self.rows, shades, strict=True)
        ]


def short(text: str, limit: int = _LONGEST_CELL) -> str:
    """Return a text of at most the given number of characters."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _is_number(cell: str) -> bool:
    return not cell or cell.lstrip("+-−")[:1].isdigit() or cell in {"not defined", "unknown"}


@dataclass(frozen=True)
class Plot:
    """A plot with its values as a table."""

    kind: ClassVar[str] = "plot"
    svg: Markup
    table: Table


@dataclass(frozen=True)
class Plots:
    """Plots side by side, with a legend of the sides."""

    kind: ClassVar[str] = "plots"
    plots: Sequence[Plot]
    legend: Sequence[tuple[Markup, str]] = ()
    note: str = ""


@dataclass(frozen=True)
class Example:
    """A text with its gold label and the answers of both sides.

    Attributes:
        where: the dataset and row.
        text: the text, shortened around the error.
        answers: (name, answer, whether it is right) of gold and sides.
        marked: whether the answers are marked as right or wrong, which numbers are not.
    """

    where: str
    text: str
    answers: Sequence[tuple[str, str, bool]]
    marked: bool = True


@dataclass(frozen=True)
class Examples:
    """Texts on which the sides disagree."""

    kind: ClassVar[str] = "examples"
    title: str
    examples: Sequence[Example]


@dataclass(frozen=True)
class Fold:
    """Blocks behind a line that opens them.

    Attributes:
        summary: the line.
        blocks: the hidden blocks.
        open: whether the blocks are shown at first.
    """

    kind: ClassVar[str] = "fold"
    summary: str
    blocks: Sequence[object]
    open: bool = False


@dataclass
class Section:
    """A section of the page.

    Attributes:
        key: the anchor.
        title: the heading.
        blocks: the content.
    """

    key: str
    title: str
    blocks: list[object] = field(default_factory=list)
