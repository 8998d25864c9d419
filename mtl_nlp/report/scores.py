"""The sections on scores, differences and cost of a comparison, and on the scores of a run."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from mtl_nlp.hub.comparison import (
    COSTS,
    MINUS,
    comparison_rows,
    cost_of,
    cost_rows,
    count_text,
    difference_of,
    joint_sides,
    spread_of,
    unit_of,
)
from mtl_nlp.report.blocks import Plot, Plots, Section, Table, Text
from mtl_nlp.report.material import OWN, Material
from mtl_nlp.report.plots import Dot, Point, Series, dot_plot, key_plot, line_plot, scatter_plot

HOW = (
    "Δ is the mean over seeds of a side minus that of the reference. The 95 % interval covers both sources of chance: "
    "seeds (Student's t with Satterthwaite's degrees of freedom) and test texts (a paired bootstrap over texts), added "
    "as variances. Intervals are not adjusted for the number of tasks. The words are: a task is called helped or hurt "
    "if its p-value, adjusted over all tasks by Holm's method, is below 0.05. The smallest difference is the one that "
    "this data would show in 80 % of repetitions. Δm is the mean over tasks of the relative change in percent "
    "(Vandenhende et al. 2021). Shares such as accuracy and F1 are shown in percent and their differences in points; "
    "correlations are shown as they are."
)

_COST_PLOTS = (
    ("ms_per_1000_texts", "ms to answer 1,000 texts"),
    ("answering_passes", "encoder passes per text"),
    ("bytes", "MB on disk"),
    ("training_passes", "encoder passes in training"),
)


def places_of(material: Material) -> dict[str, int]:
    """Return the index of each side, which chooses its colour: 0 for the reference, 1 and more for the others."""
    reference = OWN if material.comparison is None else material.comparison["reference"]
    others = [side for side in material.runs if side != reference]
    return {reference: 0, **{side: place for place, side in enumerate(others, start=1)}}


def legend(material: Material, section: str) -> list[tuple[Markup, str]]:
    """Return a key for each side, as in the plots of a section."""
    if material.comparison is None:
        return []
    sides = material.comparison["sides"]
    return [
        (key_plot(f"{section}-key-{place}", side, place), f"{side} ({sides[side]['title']})")
        for side, place in places_of(material).items()
    ]


def scores_section(material: Material, comparison: Mapping[str, Any]) -> Section:
    """Return the section with the differences of all tasks, as a plot for each unit and as a table."""
    head, rows = comparison_rows(comparison)
    section = Section("scores", "Scores and differences")
    dots: dict[str, list[Dot]] = {}
    for name, task in comparison["tasks"].items():
        for side in joint_sides(comparison):
            found = difference_of(comparison, name, side)
            if found is None or found["delta"] is None:
                continue
            factor = unit_of(task["metric"]).factor
            ends = (None if found[end] is None else found[end] * factor for end in ("low", "high"))
            unit = "points" if factor == 100 else task["metric"]
            dots.setdefault(unit, []).append(Dot(name, places_of(material)[side], found["delta"] * factor, *ends))
    reference = comparison["reference"]
    plots = []
    for number, (unit, of_unit) in enumerate(dots.items()):
        title = f"Change from {reference}, in {unit}"
        svg = dot_plot(f"delta-{number}", title, of_unit, f"Δ to {reference}, {unit} (right: better)")
        values = [[dot.name, _side_at(material, dot.place), *map(_signed, dot[2:])] for dot in of_unit]
        plots.append(Plot(svg, Table(title, ["task", "side", "Δ", "low", "high"], values)))
    if plots:
        section.blocks.append(Plots(plots, legend(material, "scores")))
    section.blocks.append(Table(f"Scores on {comparison['split']}, mean ± standard deviation over seeds", head, rows))
    section.blocks += _all_metrics(comparison)
    return section


def _side_at(material: Material, place: int) -> str:
    return next(side for side, own in places_of(material).items() if own == place)


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.3g}".replace("-", MINUS)


def _all_metrics(comparison: Mapping[str, Any]) -> list[object]:
    """Return the table of all scores, if a task has more than its primary score."""
    rows = []
    for name, task in comparison["tasks"].items():
        metrics = dict.fromkeys(metric for of_side in task["scores"].values() for metric in of_side)
        for metric in metrics:
            sides = [task["scores"].get(side, {}).get(metric) for side in comparison["sides"]]
            rows.append([name, metric, *(spread_of(values).text(unit_of(metric)) for values in sides)])
    if len(rows) <= len(comparison["tasks"]):
        return []
    return [Table("All metrics", ["task", "metric", *comparison["sides"]], rows)]


def cost_section(material: Material, comparison: Mapping[str, Any]) -> Section:
    """Return the section on quality against cost."""
    head, rows = cost_rows(comparison)
    section = Section("cost", "Cost beside quality")
    if not rows:
        section.blocks.append(Text("The cost of no side is known, such as for files of predictions."))
        return section
    quality = {side: _quality(comparison, side) for side in comparison["sides"]}
    plots: list[Plot] = []
    for key, label in _COST_PLOTS:
        points = []
        for side, place in places_of(material).items():
            cost, mean = cost_of(comparison, side, key), quality[side]
            if cost is not None and mean is not None:
                points.append(Point(side, place, cost / 1e6 if key == "bytes" else cost, mean))
        if len(points) > 1 and len(plots) < 2:
            values = [[point.name, count_text(point.cost), f"{point.quality:.2f}"] for point in points]
            table = Table(f"Quality and {label}", ["side", label, "mean score"], values)
            svg = scatter_plot(
                f"cost-{key}".replace("_", "-"), f"Quality against {COSTS[key]}", points, label, "mean score"
            )
            plots.append(Plot(svg, table))
    if plots:
        note = "Quality is the mean of the tasks' primary scores × 100. The best place is the upper left corner."
        section.blocks.append(Plots(plots, legend(material, "cost"), note))
    section.blocks.append(Table("Cost of all models of a side together", head, rows))
    return section


def _quality(comparison: Mapping[str, Any], side: str) -> float | None:
    """Return the mean of a side's primary scores × 100, or None if one is not defined."""
    means = [spread_of(task["values"].get(side)).mean for task in comparison["tasks"].values()]
    known = [mean for mean in means if mean is not None]
    return 100 * statistics.fmean(known) if known and len(known) == len(means) else None


def learning_curves(material: Material, comparison: Mapping[str, Any], tasks: Sequence[str]) -> list[object]:
    """Return the plots of scores by share of the training rows, if the comparison has them."""
    plots = []
    for number, name in enumerate(tasks):
        task = comparison["tasks"][name]
        series = []
        for side, of_share in (task.get("learning_curve") or {}).items():
            means = [(float(share), spread_of(values).mean) for share, values in of_share.items()]
            points = sorted((share, mean * unit_of(task["metric"]).factor) for share, mean in means if mean is not None)
            if points:
                series.append(Series(side, places_of(material).get(side, 0), points))
        if series:
            svg = line_plot(f"learning-{number}", name, series, "% of the training rows")
            rows = [[each.name, ", ".join(f"{y:.2f} at {x:g} %" for x, y in each.points)] for each in series]
            plots.append(Plot(svg, Table(f"Learning curve of {name}", ["side", task["metric"]], rows)))
    return [Plots(plots, legend(material, "learning"), "Scores by number of training rows.")] if plots else []


def run_scores_section(material: Material) -> Section:
    """Return the section with the scores of a run."""
    results = material.runs[OWN][0].results
    rows = [
        [task, metric, unit_of(metric).value(value)]
        for task, scores in results.get("tasks", {}).items()
        for metric, value in scores.items()
    ]
    section = Section("scores", "Scores")
    if rows:
        section.blocks.append(Table(f"Scores on {results['split']}", ["task", "metric", "value"], rows))
    else:
        section.blocks.append(Text("The run has no scores yet."))
    return section
