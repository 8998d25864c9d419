"""The plots of the conflict between the tasks' gradients in training."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from mtl_nlp.balancing.verdicts import verdict_of
from mtl_nlp.messages import counted
from mtl_nlp.report.blocks import Plot, Plots, Table, Text
from mtl_nlp.report.heat_maps import heat_map, rows_plot, signed, without_diagonal
from mtl_nlp.report.insight_files import Conflict
from mtl_nlp.report.material import RunFiles
from mtl_nlp.report.plots import Series, key_plot, line_plot

_MOST_PAIRS = 6
"""The number of pairs of tasks in a plot, which is the number of colours."""

_READING = (
    "The gradients of two tasks on the same encoder conflict if their cosine is below 0 (orange): a step that helps "
    "one task then hurts the other. A cosine near 0 is usual, and blue cells are tasks that pull in one direction. "
    "The percentage is the share of measurements with a conflict. The verdict is a conflict if the 95 % interval of "
    "the mean is below 0. Two tasks fight most in the layer with the strongest orange. Word embeddings are left out."
)

_Pair = tuple[int, int]
"""The places of two tasks in the file."""


def conflict_blocks(run: RunFiles, prefix: str, tasks: Sequence[str]) -> list[object]:
    """Return the plots of a run's `conflict.json`; an empty list without measurements.

    Args:
        run: the files of the run.
        prefix: the start of the names of the plots.
        tasks: the tasks to draw.
    """
    found = run.conflict
    if found is None or not found.measurements:
        return []
    places = [place for place, name in enumerate(found.tasks) if name in tasks]
    pairs = sorted(combinations(places, 2), key=lambda pair: found.mean.cosine[pair[0]][pair[1]] or 0.0)
    if not pairs:
        return []
    drawn = pairs[:_MOST_PAIRS]
    plots = [
        _cosines(found, prefix, places, pairs),
        _by_layer(found, prefix, drawn),
        *_over_steps(found, prefix, drawn),
    ]
    legend = [
        (key_plot(f"{prefix}-pair-key-{number}", _name(found, pair), number), _name(found, pair))
        for number, pair in enumerate(drawn, start=1)
    ]
    note = f"{counted(len(found.measurements), 'measurement')}, one every {counted(found.every, 'step')}."
    if len(drawn) < len(pairs):
        note += f" The layers and curves are those of the {len(drawn)} pairs with the lowest cosines."
    return [Text(_READING), _verdicts(found, pairs), Plots(plots, legend if len(plots) > 2 else (), note)]


def _name(found: Conflict, pair: _Pair) -> str:
    return f"{found.tasks[pair[0]]} · {found.tasks[pair[1]]}"


def _verdicts(found: Conflict, pairs: Sequence[_Pair]) -> Table:
    """Return the verdict on each two tasks, with its evidence."""
    rows = []
    for a, b in pairs:
        verdict = verdict_of([each.cosine[a][b] for each in found.measurements])
        share = _percent(found.mean.conflicting[a][b])
        rows.append([_name(found, (a, b)), signed(verdict.mean), verdict.interval(), share, verdict.word])
    head = ["tasks", "mean cosine", "95 % interval", "measurements in conflict", "verdict"]
    return Table("Conflict of each two tasks", head, rows)


def _cosines(found: Conflict, prefix: str, places: Sequence[int], pairs: Sequence[_Pair]) -> Plot:
    mean = found.mean
    names = [found.tasks[place] for place in places]
    values = without_diagonal([[mean.cosine[y][x] for x in places] for y in places])
    shares = [[mean.conflicting[y][x] for x in places] for y in places]
    texts = [
        [
            f"{signed(value)}\n{_percent(share)}".strip() if value is not None else ""
            for value, share in zip(*each, strict=True)
        ]
        for each in zip(values, shares, strict=True)
    ]
    svg = heat_map(f"{prefix}-cosine", "Mean cosine of gradients", names, names, values, texts=texts)
    rows = [[_name(found, (a, b)), signed(mean.cosine[a][b]), _percent(mean.conflicting[a][b])] for a, b in pairs]
    return Plot(svg, Table("Cosine of gradients", ["tasks", "mean", "measurements in conflict"], rows))


def _by_layer(found: Conflict, prefix: str, pairs: Sequence[_Pair]) -> Plot:
    names = [_name(found, pair) for pair in pairs]
    values = [[matrix[a][b] for a, b in pairs] for matrix in found.mean.cosine_by_layer]
    texts = [[signed(value) for value in row] for row in values]
    return rows_plot(f"{prefix}-cosine-layers", "Mean cosine by layer", found.layers, names, values, texts)


def _over_steps(found: Conflict, prefix: str, pairs: Sequence[_Pair]) -> list[Plot]:
    """Return the plot of the cosines over training, if a pair was measured twice."""
    series = []
    for number, (a, b) in enumerate(pairs, start=1):
        measured = [(float(each.step), each.cosine[a][b]) for each in found.measurements]
        points = [(step, value) for step, value in measured if value is not None]
        if len(points) > 1:
            series.append(Series(_name(found, (a, b)), number, points))
    if not series:
        return []
    rows = [[each.name, signed(each.points[0][1]), signed(each.points[-1][1])] for each in series]
    svg = line_plot(f"{prefix}-cosine-steps", "Cosine over training", series, "step")
    return [Plot(svg, Table("Cosine over training", ["tasks", "first", "last"], rows))]


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"
