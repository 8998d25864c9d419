"""The plots of the report: differences with intervals, curves over training, and quality against cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from mtl_nlp.hub.comparison import count_text
from mtl_nlp.report.svg import COLOURS, DASHES, GRID, MARKERS, MUTED, axes_of, drawing, shortened, to_svg

_WIDTH = 340
"""The width of a plot in CSS pixels: that of a phone, so that its text stays readable there."""

_MOST_POINTS = 120
"""The number of points of a curve. Longer curves are thinned, since a plot has fewer pixels than such points."""


class Dot(NamedTuple):
    """A difference with its interval, in points.

    Attributes:
        name: the task.
        place: the index of the side, from 1.
        value: the difference.
        low: the lower end of the interval; None if there is no interval.
        high: the upper end.
    """

    name: str
    place: int
    value: float
    low: float | None
    high: float | None


class Series(NamedTuple):
    """A curve.

    Attributes:
        name: the name in the table.
        place: the index of the side, which chooses colour, dashes and marker; 0 is the reference.
        points: the points (x, y) in order.
    """

    name: str
    place: int
    points: Sequence[tuple[float, float]]


class Point(NamedTuple):
    """A side in the plot of quality against cost."""

    name: str
    place: int
    cost: float
    quality: float


def style_of(place: int) -> dict[str, Any]:
    """Return colour and marker of the side with an index."""
    return {"color": COLOURS[place % len(COLOURS)], "marker": MARKERS[place % len(MARKERS)]}


def dot_plot(name: str, title: str, dots: Sequence[Dot], label: str) -> Markup:
    """Return the plot of differences: a row for each task, a dot and an interval for each side, and a line at 0."""
    names = list(dict.fromkeys(dot.name for dot in dots))
    places = sorted({dot.place for dot in dots})
    step = 0.6 / max(len(places), 1)
    with drawing(name):
        figure, axes = axes_of(_WIDTH, 60 + len(names) * max(22, 13 * len(places) + 6))
        for dot in dots:
            height = names.index(dot.name) + (places.index(dot.place) - (len(places) - 1) / 2) * step
            style = style_of(dot.place)
            if dot.low is not None and dot.high is not None:
                axes.plot([dot.low, dot.high], [height, height], color=style["color"], linewidth=2)
            axes.plot([dot.value], [height], linestyle="none", markersize=6.5, **style)
        axes.axvline(0, color=MUTED, linewidth=1.2)
        axes.set_yticks(range(len(names)), shortened(names, 18))
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlabel(label)
        axes.grid(axis="y", visible=False)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.tick_params(axis="y", length=0)
        described = "; ".join(f"{dot.name} {dot.value:+.2f}" for dot in dots[:12])
        return to_svg(figure, name, title, f"Each dot is a difference and each line its 95 % interval: {described}.")


def line_plot(
    name: str,
    title: str,
    series: Sequence[Series],
    x_label: str,
    mark: float | None = None,
    end: float | None = None,
) -> Markup:
    """Return the plot of curves over training.

    Args:
        name: the name of the plot, unique on the page.
        title: the title, shown above the plot.
        series: the curves.
        x_label: the label of the horizontal axis.
        mark: the place of the kept model on the horizontal axis, if it is known.
        end: the place from which on the task was not trained, if there is one.
    """
    with drawing(name):
        figure, axes = axes_of(_WIDTH, 210)
        for each in series:
            points = thinned(each.points)
            xs, ys = [x for x, _ in points], [y for _, y in points]
            style = style_of(each.place)
            few = len(points) <= 12
            axes.plot(
                xs,
                ys,
                color=style["color"],
                linestyle=DASHES[each.place % len(DASHES)],
                marker=style["marker"] if few else None,
                linewidth=1.4,
            )
            if points and not few:
                axes.plot(xs[-1:], ys[-1:], **style)
        if mark is not None:
            axes.axvline(mark, color=MUTED, linewidth=1, linestyle=(0, (2, 2)))
        if end is not None:
            axes.axvline(end, color=MUTED, linewidth=1)
        axes.set_title(shortened([title], 40)[0])
        axes.set_xlabel(x_label)
        axes.margins(x=0.03)
        ends = "; ".join(f"{each.name}: {each.points[0][1]:.4g} to {each.points[-1][1]:.4g}" for each in series[:8])
        return to_svg(figure, name, title, f"{len(series)} curves, from the first to the last value. {ends}.")


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return at most 120 points of a curve at even distances, with the first and the last one."""
    if len(points) <= _MOST_POINTS:
        return list(points)
    return [points[round(place * (len(points) - 1) / (_MOST_POINTS - 1))] for place in range(_MOST_POINTS)]


def scatter_plot(name: str, title: str, points: Sequence[Point], x_label: str, y_label: str) -> Markup:
    """Return the plot of quality against cost. The upper left corner is the best."""
    with drawing(name):
        figure, axes = axes_of(_WIDTH, 240)
        middle = max(point.cost for point in points) / 2
        for point in points:
            axes.plot([point.cost], [point.quality], linestyle="none", markersize=8, **style_of(point.place))
            right = point.cost <= middle
            axes.annotate(
                shortened([point.name], 16)[0],
                (point.cost, point.quality),
                xytext=(9 if right else -9, 0),
                textcoords="offset points",
                ha="left" if right else "right",
                va="center",
                fontsize=11,
            )
        axes.set_xlim(0, middle * 2.2)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.margins(y=0.25)
        axes.set_title(title)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        costs = [f"{each.name}: cost {count_text(each.cost)}, quality {each.quality:.2f}" for each in points]
        return to_svg(figure, name, f"{y_label} against {x_label}", f"{'; '.join(costs)}.")


def bar_plot(name: str, title: str, bars: Sequence[tuple[str, float, float]], legend: tuple[str, str]) -> Markup:
    """Return pairs of bars, such as the planned and the drawn share of each dataset.

    Args:
        name: the name of the plot, unique on the page.
        title: the title.
        bars: (name, first value, second value) from top to bottom.
        legend: the names of the first and the second value.
    """
    with drawing(name):
        figure, axes = axes_of(_WIDTH, 70 + 30 * len(bars))
        for place, (_, first, second) in enumerate(bars):
            axes.barh(place - 0.18, first, 0.32, color=GRID, edgecolor=MUTED, linewidth=1, hatch="////")
            axes.barh(place + 0.18, second, 0.32, color=COLOURS[1], edgecolor=COLOURS[1])
        axes.set_yticks(range(len(bars)), shortened([bar[0] for bar in bars], 18))
        axes.set_ylim(len(bars) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
        axes.set_title(shortened([title], 40)[0])
        axes.set_xlabel(f"% of rows: hatched {legend[0]}, filled {legend[1]}")
        described = "; ".join(f"{each} {first:.1f} and {second:.1f}" for each, first, second in bars[:12])
        return to_svg(figure, name, title, f"{legend[0]} and {legend[1]} in percent: {described}.")


def calibration_plot(name: str, title: str, series: Sequence[Series]) -> Markup:
    """Return the share of right answers against the mean probability, with the diagonal of perfect calibration."""
    with drawing(name):
        figure, axes = axes_of(_WIDTH, 260)
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (1, 2)))
        for each in series:
            xs, ys = [x for x, _ in each.points], [y for _, y in each.points]
            axes.plot(xs, ys, linestyle=DASHES[each.place % len(DASHES)], **style_of(each.place))
        axes.set_title(shortened([title], 40)[0])
        axes.set_xlabel("probability of the answer")
        axes.set_ylabel("share of right answers")
        described = "; ".join(
            f"{each.name}: {', '.join(f'{y:.2f} at {x:.2f}' for x, y in each.points)}" for each in series
        )
        return to_svg(figure, name, f"Calibration of {title}", f"{described}.")


def key_plot(name: str, title: str, place: int) -> Markup:
    """Return the line and marker of a side or curve, for a legend."""
    with drawing(name):
        figure, axes = axes_of(40, 14)
        axes.set_axis_off()
        style = style_of(place)
        axes.plot([0, 2], [0, 0], color=style["color"], linestyle=DASHES[place % len(DASHES)])
        axes.plot([1], [0], markersize=6, **style)
        return to_svg(figure, name, title, "A line with its marker.")
