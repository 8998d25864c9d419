"""The plots of a search: its history, the importances of the keys, each key alone, and all keys together."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from markupsafe import Markup
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from mtl_nlp.messages import json_text
from mtl_nlp.report.svg import COLOURS, MUTED, axes_of, drawing, shortened, to_svg

_WIDTH = 340
"""The width of a plot in CSS pixels: that of a phone, so that its text stays readable there."""

_MOST_LINES = 200
"""The number of trials that the plot of all keys draws: the best ones."""

Trial = Mapping[str, Any]


def history_plot(name: str, trials: Sequence[Trial], objective: str, *, is_minimized: bool) -> Markup:
    """Return the value of each complete trial, and the best value so far, by the number of the trial.

    Args:
        name: the name of the plot, unique on the page.
        trials: the complete trials, in their order.
        objective: the name of the value.
        is_minimized: whether a lower value is better.
    """
    choose = min if is_minimized else max
    numbers, values = [each["number"] for each in trials], [each["values"][0] for each in trials]
    best = [choose(values[: place + 1]) for place in range(len(values))]
    with drawing(name):
        figure, axes = axes_of(_WIDTH, 220)
        axes.plot(numbers, values, linestyle="none", color=COLOURS[2], marker="o")
        axes.step(numbers, best, where="post", color=COLOURS[1])
        axes.set_title("Trials, and the best so far")
        axes.set_xlabel("trial")
        axes.set_ylabel(objective)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        described = f"The best value moves from {best[0]:.4g} to {best[-1]:.4g} over {len(values)} complete trials."
        return to_svg(figure, name, "History of the search", described)


def importance_plot(name: str, importances: Mapping[str, float]) -> Markup:
    """Return a bar for the share of each key in the differences between trials."""
    with drawing(name):
        figure, axes = axes_of(_WIDTH, 70 + 26 * len(importances))
        places = range(len(importances))
        axes.barh(places, [100 * share for share in importances.values()], 0.6, color=COLOURS[1])
        axes.set_yticks(places, shortened([*importances], 26))
        axes.set_ylim(len(importances) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("share of the importance, %")
        described = "; ".join(f"{key} {share:.0%}" for key, share in importances.items())
        return to_svg(figure, name, "Importance of the keys", f"{described}.")


def slice_plot(name: str, key: str, space: Any, trials: Sequence[Trial], objective: str) -> Markup:
    """Return the value of each complete trial against the value of one key.

    Args:
        name: the name of the plot, unique on the page.
        key: the key.
        space: the values of the key: a list, or a range with `low`, `high` and `log`.
        trials: the complete trials that have the key.
        objective: the name of the value.
    """
    with drawing(name):
        figure, axes = axes_of(_WIDTH, 220)
        if isinstance(space, list):
            labels = [value_text(each) for each in space]
            xs: list[float] = [float(labels.index(value_text(each["settings"][key]))) for each in trials]
            axes.set_xticks(range(len(labels)), shortened(labels, 60 // len(labels)))
            axes.set_xlim(-0.5, len(labels) - 0.5)
        else:
            xs = [float(each["settings"][key]) for each in trials]
            if space.get("log"):
                axes.set_xscale("log")
                axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=5))
                axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
                axes.xaxis.set_minor_locator(NullLocator())
        axes.plot(xs, [each["values"][0] for each in trials], linestyle="none", color=COLOURS[2], marker="o")
        axes.set_title(shortened([key], 40)[0])
        axes.set_ylabel(objective)
        return to_svg(
            figure, name, f"{objective} by {key}", f"{len(trials)} trials; the table of trials has the values."
        )


def parallel_plot(name: str, content: Mapping[str, Any], trials: Sequence[Trial], best: Sequence[Trial]) -> Markup:
    """Return a line per trial over all keys; the best trials have the colour.

    Args:
        name: the name of the plot, unique on the page.
        content: the content of `search.json`.
        trials: the complete trials, the best first.
        best: the best of them.
    """
    keys = [*content["space"]]
    places = {key: _place_of(content["space"][key]) for key in keys}
    chosen = {each["number"] for each in best}
    with drawing(name):
        figure, axes = axes_of(_WIDTH, 70 + 34 * len(keys))
        for each in reversed(trials[:_MOST_LINES]):
            points = [(places[key](each["settings"][key]), y) for y, key in enumerate(keys) if key in each["settings"]]
            is_best = each["number"] in chosen
            axes.plot(
                [x for x, _ in points],
                [y for _, y in points],
                color=COLOURS[1] if is_best else MUTED,
                linewidth=1.8 if is_best else 0.7,
                alpha=1.0 if is_best else 0.5,
            )
        axes.set_yticks(range(len(keys)), shortened(keys, 26))
        axes.set_ylim(len(keys) - 0.7, -0.3)
        axes.set_xticks([0, 1], ["low", "high"])
        axes.grid(axis="x", visible=False)
        listed = ", ".join(map(str, sorted(chosen)))
        described = f"A line per trial over {len(keys)} keys. The best are the trials {listed}."
        return to_svg(figure, name, "All keys of each trial", described)


def front_plot(name: str, trials: Sequence[Trial], names: Sequence[str], front: Sequence[int]) -> Markup:
    """Return the first two values of each complete trial; the trials that no other trial beats have the colour."""
    with drawing(name):
        figure, axes = axes_of(_WIDTH, 240)
        for is_front in (False, True):
            shown = [each["values"] for each in trials if (each["number"] in front) == is_front]
            style: dict[str, Any] = (
                {"color": COLOURS[1], "marker": "s"} if is_front else {"color": MUTED, "marker": "o"}
            )
            axes.plot([each[1] for each in shown], [each[0] for each in shown], linestyle="none", **style)
        axes.set_title("Trials that no other trial beats")
        axes.set_xlabel(names[1])
        axes.set_ylabel(names[0])
        listed = ", ".join(map(str, sorted(front)))
        return to_svg(figure, name, f"{names[0]} against {names[1]}", f"The front has the trials {listed}.")


def value_text(value: Any) -> str:
    """Return the value of a key as a recipe has it, with at most four digits."""
    return f"{value:.4g}" if isinstance(value, float) else value if isinstance(value, str) else json_text(value)


def _place_of(space: Any) -> Callable[[Any], float]:
    """Return a function from a value of a key to its place between 0 and 1."""
    if isinstance(space, list):
        labels = [value_text(each) for each in space]
        return lambda value: labels.index(value_text(value)) / max(len(labels) - 1, 1)
    scale: Callable[[float], float] = math.log if space.get("log") else float
    low, high = scale(space["low"]), scale(space["high"])
    return lambda value: (scale(value) - low) / (high - low)
