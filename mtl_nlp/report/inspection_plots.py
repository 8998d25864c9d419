"""The plots of the inspection of a model."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from mtl_nlp.hub.comparison import unit_of
from mtl_nlp.messages import counted
from mtl_nlp.modeling.adapters_multitask import SHARED
from mtl_nlp.report.blocks import Plot, Plots, Table, Text
from mtl_nlp.report.heat_maps import heat_map, matrix_plot, rows_plot, shaded_table, signed, without_diagonal
from mtl_nlp.report.insight_files import Ablation, Adapters, InspectedTask, Movement, Need
from mtl_nlp.report.material import RunFiles
from mtl_nlp.transfer.inspection_tables import (
    change_name,
    change_text,
    describe_chance,
    describe_probes,
    heads_text,
    score_name,
)

_MOST_PAIRS = 6
"""The number of pairs of adapters whose similarity is shown by layer."""

_MOVEMENT = (
    "How far training moved the encoder from the one it started from. The first number is the distance of the weights "
    "relative to their size. 1 − CKA is the change of the hidden states, 0 if they are equal up to rotation and scale. "
    "Training changed the dark layers for the tasks and left the light ones nearly as they were."
)
_NEED = (
    "Each cell is the score on held-out texts if a new linear layer reads only this layer. The darker, the nearer to "
    "the best layer of the task. A task that is dark from a low layer on needs the layers above little."
)
_LAYERS = (
    "The change of each score if a layer passes its input on. Orange: the task needs the layer. Cells without colour: "
    "the task can lose the layer. Colours are relative to the largest change of each task."
)
_HEADS = (
    "The change of a task's score without one attention head. Orange: the score falls, so that the task needs the "
    "head; blue: the score rises. Heads that are orange in the maps of several tasks are shared. {chance}"
)
_OVERLAP = "Spearman's correlation of the changes over all heads. Above 0 (blue), two tasks need the same heads."
_NO_OVERLAP = "No head changes the scores of two tasks, so that their needs have no rank correlation."
_ADAPTERS = (
    "The norm of the change ΔW that each adapter makes to the encoder: in the dark layers, a task needs most of its "
    "own. A cosine of ΔW above 0 (blue) means that two adapters learned a similar change, which they could share; near "
    "0, their changes are unrelated."
)


def inspection_blocks(run: RunFiles, prefix: str, tasks: Sequence[str]) -> list[object]:
    """Return the tables and plots of a run's `inspection.json`; an empty list without this file.

    Args:
        run: the files of the run.
        prefix: the start of the names of the plots.
        tasks: the tasks to draw.
    """
    found = run.inspection
    shown = {} if found is None else {name: task for name, task in found.tasks.items() if name in tasks}
    if found is None or not shown:
        return []
    own, inspected = None if run.config is None else run.config.weights_sha256, found.provenance.weights_sha256
    if own is not None and inspected is not None and own != inspected:
        return [Text("inspection.json is about different weights than those in the folder. Run mtl-nlp inspect again.")]
    texts = ", ".join(f"{counted(count, 'text')} of {name}" for name, count in found.rows.items())
    blocks: list[object] = [Text(f"Measured on {found.split}: {texts}."), *_movement(found.movement, found.layers)]
    if found.need is not None:
        blocks += _need(found.need, found.layers, shown, found.split)
    if found.ablation is not None:
        blocks += _ablation(found.ablation, found.layers[1:], prefix, shown)
    if found.adapters is not None:
        blocks += _adapters(found.adapters, found.layers, prefix, tasks)
    return [*blocks, *(Text(f"Left out: {reason}") for reason in found.left_out)]


def _movement(groups: Sequence[Movement], layers: Sequence[str]) -> list[object]:
    head, columns = ["layer"], []
    for group in groups:
        of = "" if len(groups) == 1 else f", {', '.join(group.tasks)}"
        if group.weights is not None:
            head.append(f"weights moved{of}")
            columns.append(group.weights)
        head.append(f"1 − CKA{of}")
        columns.append([None if value is None else 1 - value for value in group.cka])
    table = shaded_table("Movement of the encoder", head, layers, columns, lambda value: f"{value:.3f}")
    return [Text(_MOVEMENT), table]


def _need(need: Need, layers: Sequence[str], tasks: dict[str, InspectedTask], split: str) -> list[object]:
    scores = {name: need.scores[name] for name in tasks if name in need.scores}
    units = {name: unit_of(tasks[name].metric) for name in scores}
    rows = [[layer, *(units[name].value(scores[name][place]) for name in scores)] for place, layer in enumerate(layers)]
    rows.append(["the task's head", *(units[name].value(tasks[name].score) for name in scores)])
    heat = [[_nearness(of_task, place) for of_task in scores.values()] for place in range(len(layers))]
    head = ["read by a probe", *(score_name(name, tasks[name].metric) for name in scores)]
    learned = describe_probes(need.units, {name: tasks[name].unit for name in scores}, split)
    return [Text(f"{_NEED} {learned}"), Table("Score from each layer", head, rows, [*heat, [0.0] * len(scores)])]


def _nearness(scores: Sequence[float | None], place: int) -> float:
    """Return the position of a score between the lowest and the highest one, from 0 to 1."""
    known = [score for score in scores if score is not None]
    value = scores[place]
    if value is None or max(known) == min(known):
        return 0.0
    return (value - min(known)) / (max(known) - min(known))


def _ablation(ablation: Ablation, layers: Sequence[str], prefix: str, tasks: dict[str, InspectedTask]) -> list[object]:
    names = [name for name in tasks if name in ablation.heads]
    values = [[ablation.layers[name][place] for name in names] for place in range(len(layers))]
    texts = [[_change(tasks[name], value) for name, value in zip(names, row, strict=True)] for row in values]
    largest = [max((abs(value) for value in column if value), default=1.0) for column in zip(*values, strict=True)]
    colours = [
        [None if value is None else value / most for value, most in zip(row, largest, strict=True)] for row in values
    ]
    columns = [change_name(name, tasks[name].metric) for name in names]
    without_layer = rows_plot(f"{prefix}-layers", "Change without a layer", layers, columns, colours, texts)
    maps = [
        _head_map(f"{prefix}-heads-{number}", name, tasks[name], layers, ablation.heads[name])
        for number, name in enumerate(names)
    ]
    chance = describe_chance({name: (tasks[name].units, tasks[name].unit) for name in names})
    blocks: list[object] = [Text(_LAYERS), Plots([without_layer]), Text(_HEADS.format(chance=chance)), Plots(maps)]
    blocks.append(_needed_heads(ablation, names))
    if len(names) > 1:
        order = list(ablation.heads)
        places = [order.index(name) for name in names]
        correlation = [[ablation.correlation[y][x] for x in places] for y in places]
        if any(value is not None for row in without_diagonal(correlation) for value in row):
            plot = matrix_plot(f"{prefix}-overlap", "Rank correlation of needs", names, correlation)
            blocks.append(Plots([plot], (), _OVERLAP))
        else:
            blocks.append(Text(_NO_OVERLAP))
    return blocks


def _change(task: InspectedTask, value: float | None) -> str:
    return "" if value is None else change_text(task.metric, value)


def _head_map(
    plot: str, name: str, task: InspectedTask, layers: Sequence[str], changes: Sequence[Sequence[float | None]]
) -> Plot:
    heads = [str(head) for head in range(max(map(len, changes), default=0))]
    texts = [[_change(task, value) for value in row] for row in changes]
    svg = heat_map(plot, f"{name} without a head", layers, heads, changes, texts=texts, labels=("head", ""))
    rows = [[layer, *own] for layer, own in zip(layers, texts, strict=True)]
    unit = change_name(name, task.metric)
    return Plot(svg, Table(f"Change of {unit} without a head", ["layer", *heads], rows))


def _needed_heads(ablation: Ablation, names: Sequence[str]) -> Table:
    """Return the heads that each task needs most, and the number of heads that it can lose."""
    rows = []
    for name in names:
        with_others = [[each.layer, each.head] for each in ablation.shared if name in each.tasks]
        harmless = f"{ablation.harmless[name]} of {sum(map(len, ablation.heads[name]))}"
        rows.append([name, harmless, heads_text(ablation.own.get(name, [])), heads_text(with_others)])
    head = ["task", "heads without a fall", "needed most by this task alone", "needed most with other tasks"]
    return Table("Heads that tasks need", head, rows)


def _adapters(adapters: Adapters, layers: Sequence[str], prefix: str, tasks: Sequence[str]) -> list[object]:
    places = [place for place, name in enumerate(adapters.names) if name in {*tasks, SHARED}]
    names = [adapters.names[place] for place in places]
    norms = [adapters.norms[name] for name in names]
    table = shaded_table("Norm of ΔW", ["layer", *names], layers, norms, lambda value: f"{value:.3g}")
    blocks: list[object] = [Text(_ADAPTERS), table]
    if len(names) < 2:
        return blocks
    similarity = [[adapters.similarity[y][x] for x in places] for y in places]
    pairs = list(combinations(places, 2))[:_MOST_PAIRS]
    values = [[matrix[a][b] for a, b in pairs] for matrix in adapters.similarity_by_layer]
    texts = [[signed(value) for value in row] for row in values]
    columns = [f"{adapters.names[a]} · {adapters.names[b]}" for a, b in pairs]
    plots = [
        matrix_plot(f"{prefix}-adapters", "Cosine of ΔW", names, similarity),
        rows_plot(f"{prefix}-adapter-layers", "Cosine of ΔW by layer", layers, columns, values, texts),
    ]
    return [*blocks, Plots(plots)]
