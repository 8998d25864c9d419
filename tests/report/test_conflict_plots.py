"""The plots of conflict."""

from __future__ import annotations

import json

from insight_folder import LAYERS, conflict

from mtl_nlp.report.blocks import Plots, Text
from mtl_nlp.report.conflict_plots import conflict_blocks
from mtl_nlp.report.material import RunFiles

TASKS = ["pos", "ner", "topic"]


def blocks_of(folder, tasks, shown=None, **options):
    (folder / "conflict.json").write_text(json.dumps(conflict(tasks, **options)))
    return conflict_blocks(RunFiles(folder), "p", tasks if shown is None else shown)


def test_the_mean_the_layers_and_the_steps_are_drawn_with_the_worst_pair_first(tmp_path):
    text, verdicts, plots = blocks_of(tmp_path, TASKS)
    assert isinstance(text, Text)
    assert verdicts.rows[0] == ["pos · topic", "−0.45", "", "40%", "too few measurements"]
    assert verdicts.rows[1] == ["pos · ner", "−0.20", "−0.40 to 0.00", "40%", "conflict"]
    assert isinstance(plots, Plots)
    mean, layers, steps = plots.plots
    assert mean.table.rows[0] == ["pos · topic", "−0.40", "40%"]
    assert [row[0] for row in layers.table.rows] == LAYERS
    assert layers.table.head[1] == "pos · topic"
    assert steps.table.rows[0] == ["pos · topic", "−0.30", "−0.60"]  # the first batch has no row of topic
    assert [name for _, name in plots.legend] == ["pos · topic", "pos · ner", "ner · topic"]
    assert plots.note == "5 measurements, one every 100 steps."


def test_many_tasks_have_curves_of_the_worst_pairs_only(tmp_path):
    tasks = [f"task-{number}" for number in range(8)]
    *_, plots = blocks_of(tmp_path, tasks)
    assert len(plots.legend) == 6
    assert "the 6 pairs with the lowest cosines" in plots.note
    assert len(plots.plots[0].table.rows) == 28
    *_, fewer = blocks_of(tmp_path, tasks, shown=tasks[:2])
    assert len(fewer.plots[0].table.rows) == 1


def test_one_measurement_has_no_curve_and_a_single_task_no_conflict(tmp_path):
    *_, plots = blocks_of(tmp_path, TASKS, measurements=1)
    assert len(plots.plots) == 2
    assert plots.legend == ()
    assert blocks_of(tmp_path, TASKS, measurements=0) == []
    assert blocks_of(tmp_path, TASKS, shown=["pos"]) == []
    (tmp_path / "conflict.json").unlink()
    assert conflict_blocks(RunFiles(tmp_path), "p", TASKS) == []
