"""Plots of matplotlib as inline SVG: selectable text, the colours of the page, and equal bytes for equal input."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

TEXT, MUTED, GRID = "#010101", "#020202", "#030303"
"""Colours that stand for the page's text, muted text and grid lines. The page's style sheet defines the real ones."""

COLOURS = ("#010101", "#04040a", "#04040b", "#04040c", "#04040d", "#04040e", "#04040f")
"""The reference side, which has the colour of the text, and six others, which stand for `--c1` to `--c6`."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES: tuple[str | tuple[int, tuple[int, ...]], ...] = (
    (0, (4, 2)),
    "solid",
    (0, (6, 2, 1, 2)),
    (0, (1, 1)),
    (0, (8, 3)),
    (0, (3, 1, 1, 1, 1, 1)),
    (0, (2, 2)),
)
"""Markers and dashes in the order of `COLOURS`, so that no plot depends on colours alone."""

_VARIABLES = {TEXT: "currentColor", MUTED: "var(--muted)", GRID: "var(--grid)"} | {
    colour: f"var(--c{number})" for number, colour in enumerate(COLOURS) if number
}
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # names of tasks may contain `$`
    "axes.unicode_minus": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": TEXT,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.labelsize": 11,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "text.color": TEXT,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "font.family": ["DejaVu Sans"],  # the font that matplotlib brings, so that widths do not depend on the machine
    "figure.dpi": 72,
    "path.simplify": True,
}


@contextmanager
def drawing(name: str) -> Iterator[None]:
    """Draw in the style of the page inside this context.

    Args:
        name: the name of the plot, unique on the page, from which the ids inside the SVG are computed.
    """
    # Text in scripts that matplotlib's font lacks is measured only, and shown in a font of the browser.
    with matplotlib.rc_context({**_SETTINGS, "svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*Glyph .* missing from")
        warnings.filterwarnings("ignore", message=r".*(Tight layout|constrained_layout) not applied")
        yield


def axes_of(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a transparent figure with one pair of axes.

    Args:
        width: the width in CSS pixels.
        height: the height in CSS pixels.
    """
    figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
    figure.patch.set_visible(False)
    axes = figure.add_subplot()
    axes.patch.set_visible(False)
    return figure, axes


def to_svg(figure: Figure, name: str, title: str, description: str) -> Markup:
    """Return a figure as inline SVG.

    Args:
        figure: the figure.
        name: the name of the plot, unique on the page; letters, digits and hyphens.
        title: the title for screen readers.
        description: the content of the plot in words, for screen readers.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    body = text[text.index("<defs>", text.index("<svg")) :]
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)  # would style the complete page
    body = re.sub(r"<[^>]+>", _for_page, body)
    body = re.sub(r"\n\s*", "\n", body)
    width, height = (float(figure.get_size_inches()[axis] * 72) for axis in (0, 1))
    head = (
        f'<svg viewBox="0 0 {width:g} {height:g}" style="max-width: {width * 1.25:g}px" role="img" '
        f'aria-labelledby="{name}-title {name}-desc"><title id="{name}-title">{escape(title)}</title>'
        f'<desc id="{name}-desc">{escape(description)}</desc>'
    )
    return Markup(head + body)


def _for_page(match: re.Match[str]) -> str:
    """Return a tag with the page's colours and fonts, and without ids that would be equal in all plots of a page."""
    tag = re.sub(r"#0[1-4]0[1-4]0[1-9a-f]", lambda found: _VARIABLES.get(found[0], found[0]), match[0])
    tag = re.sub(r'<g id="[^"]*"', "<g", tag)
    tag = re.sub(r"font-family: [^;\"]*;? ?", "", tag)
    return re.sub(r"\d+\.\d{3,}", lambda found: f"{float(found[0]):.2f}", tag)


def shortened(names: Sequence[str], limit: int = 24) -> list[str]:
    """Return names that fit beside an axis."""
    return [name if len(name) <= limit else f"{name[: limit - 1]}…" for name in names]
