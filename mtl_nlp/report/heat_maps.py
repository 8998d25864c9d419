"""Heat maps: cells in two colours of the page, one above and one below 0, and tables with shaded cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from markupsafe import Markup
from matplotlib.colors import to_rgba
from matplotlib.patches import Rectangle

from mtl_nlp.balancing.verdicts import cosine_text
from mtl_nlp.report.blocks import Plot, Table
from mtl_nlp.report.svg import COLOURS, GRID, axes_of, drawing, shortened, to_svg

_WIDTH = 340
"""The width in CSS pixels: that of a phone, so that the text stays readable there."""

_CELL, _CELL_OF_TWO_LINES = 24, 38
"""The height of a cell in CSS pixels."""

_STRONGEST = 0.5
"""The opacity of the strongest colour, on which text keeps its contrast in light and dark."""

_UPRIGHT = 26
"""The number of characters of all column names that fit below the map without rotation."""

_MOST_TEXTS = 6
"""The number of columns above which cells have no texts. The table below the map has them."""

Values = Sequence[Sequence[float | None]]
"""The value of each cell by row; None for a value that is not defined."""


def heat_map(
    name: str,
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    values: Values,
    *,
    texts: Sequence[Sequence[str]] | None = None,
    strongest: float | None = None,
    labels: tuple[str, str] = ("", ""),
) -> Markup:
    """Return a heat map whose colours diverge around 0: the first above 0, the second below.

    Args:
        name: the name of the plot, unique on the page.
        title: the title, shown above the map.
        rows: the names of the rows, from top to bottom.
        columns: the names of the columns.
        values: the value of each cell; None for a cell without colour.
        texts: the text of each cell, in the cells unless there are many columns, and in the description; None for the
            values themselves in the description.
        strongest: the absolute value with the strongest colour; by default the largest one.
        labels: the labels of the horizontal and the vertical axis.
    """
    described = _described(rows, columns, values, texts)
    texts = texts if len(columns) <= _MOST_TEXTS else None
    known = [abs(value) for row in values for value in row if value is not None]
    strongest = strongest or max(known, default=0.0) or 1.0
    has_two_lines = texts is not None and any("\n" in text for row in texts for text in row)
    names = shortened(columns, 12)
    is_upright = sum(map(len, names)) <= _UPRIGHT
    height = len(rows) * (_CELL_OF_TWO_LINES if has_two_lines else _CELL)
    with drawing(name):
        figure, axes = axes_of(_WIDTH, 64 + height + (0 if is_upright else 44) + (18 if labels[0] else 0))
        for y, row in enumerate(values):
            for x, value in enumerate(row):
                axes.add_patch(_cell(x, y, value, strongest))
                if texts is not None and texts[y][x]:
                    axes.text(x, y, texts[y][x], ha="center", va="center", fontsize=10)
        axes.set_xlim(-0.5, len(columns) - 0.5)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        turned: dict[str, Any] = {} if is_upright else {"rotation": 35, "ha": "right", "rotation_mode": "anchor"}
        axes.set_xticks(range(len(columns)), names, **turned)
        axes.set_yticks(range(len(rows)), shortened(rows, 16))
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.set_title(shortened([title], 40)[0])
        axes.set_xlabel(labels[0])
        axes.set_ylabel(labels[1])
        return to_svg(figure, name, title, described)


def _cell(x: int, y: int, value: float | None, strongest: float) -> Rectangle:
    share = 0.0 if value is None else min(abs(value) / strongest, 1.0)
    colour = to_rgba(COLOURS[1 if value is None or value > 0 else 2], _STRONGEST * share)
    return Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colour, edgecolor=GRID, linewidth=0.6)


def _described(
    rows: Sequence[str], columns: Sequence[str], values: Values, texts: Sequence[Sequence[str]] | None
) -> str:
    """Return the six cells with the largest absolute values in words, for screen readers."""
    cells = []
    for y, (row, of_row) in enumerate(zip(rows, values, strict=True)):
        for x, (column, value) in enumerate(zip(columns, of_row, strict=True)):
            if value is not None:
                text = f"{value:+.3g}" if texts is None else texts[y][x].replace("\n", ", ")
                cells.append((value, f"{row} and {column}: {text}"))
    strongest = sorted(cells, key=lambda cell: -abs(cell[0]))[:6]
    return f"{len(rows)} rows and {len(columns)} columns. {'; '.join(text for _, text in strongest)}."


def matrix_plot(name: str, title: str, names: Sequence[str], values: Values) -> Plot:
    """Return a heat map of a correlation or cosine of each two names, without its diagonal.

    Args:
        name: the name of the plot, unique on the page.
        title: the title.
        names: the names of rows and columns.
        values: the values from -1 to 1, shape (names, names).
    """
    without = without_diagonal(values)
    texts = [[signed(value) for value in row] for row in without]
    svg = heat_map(name, title, names, names, without, texts=texts, strongest=1.0)
    rows = [[each, *row] for each, row in zip(names, texts, strict=True)]
    return Plot(svg, Table(title, ["", *names], rows))


def rows_plot(
    name: str, title: str, rows: Sequence[str], columns: Sequence[str], values: Values, texts: Sequence[Sequence[str]]
) -> Plot:
    """Return a heat map of layers, with its texts as a table.

    Args:
        name: the name of the plot, unique on the page.
        title: the title.
        rows: the layers.
        columns: the names of the columns.
        values: the value of each cell.
        texts: the text of each cell.
    """
    svg = heat_map(name, title, rows, columns, values, texts=texts)
    return Plot(svg, Table(title, ["layer", *columns], [[row, *own] for row, own in zip(rows, texts, strict=True)]))


def shaded_table(
    caption: str, head: Sequence[str], rows: Sequence[str], columns: Values, text: Callable[[float], str]
) -> Table:
    """Return a table of numbers of at least 0, whose cells are the darker, the larger they are in their column.

    Args:
        caption: the title.
        head: the names of the first column and of the others.
        rows: the cells of the first column.
        columns: the numbers of each other column.
        text: returns the text of a number.
    """
    largest = [max((value for value in column if value is not None), default=0.0) or 1.0 for column in columns]
    cells = [[column[place] for column in columns] for place in range(len(rows))]
    shown = [
        [row, *("" if value is None else text(value) for value in own)] for row, own in zip(rows, cells, strict=True)
    ]
    heat = [[max(0.0, (value or 0.0) / most) for value, most in zip(own, largest, strict=True)] for own in cells]
    return Table(caption, head, shown, heat)


def without_diagonal(values: Values) -> list[list[float | None]]:
    """Return a square matrix with None on its diagonal."""
    return [[None if x == y else value for x, value in enumerate(row)] for y, row in enumerate(values)]


def signed(value: float | None) -> str:
    """Return a number with its sign and two decimals, such as `−0.12`; an empty text for None."""
    return "" if value is None else cosine_text(value)
