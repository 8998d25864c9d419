"""The sections on scores, differences and cost."""

from __future__ import annotations

import json

from comparison_folder import TASKS, write_comparison

from mtl_nlp.report.blocks import Plots, Table, Text
from mtl_nlp.report.material import read_material
from mtl_nlp.report.scores import (
    cost_section,
    learning_curves,
    legend,
    places_of,
    run_scores_section,
    scores_section,
)


def test_the_reference_has_the_colour_of_the_text_and_the_sides_others(comparison, run):
    assert places_of(read_material(comparison)) == {"single": 0, "hard": 1, "adapters": 2}
    assert places_of(read_material(run)) == {"run": 0}
    assert [name for _, name in legend(read_material(comparison), "x")] == [
        "single (each task alone)",
        "hard (hard.yaml)",
        "adapters (adapters.yaml)",
    ]
    assert legend(read_material(run), "x") == []


def test_differences_have_a_plot_for_each_unit_with_its_values(comparison):
    material = read_material(comparison)
    plots, table = scores_section(material, material.comparison).blocks
    assert isinstance(plots, Plots)
    assert [plot.table.caption for plot in plots.plots] == [
        "Change from single, in points",
        "Change from single, in pearson",
    ]
    assert plots.plots[0].table.rows[0] == ["ner", "hard", "−1.7", "−2.7", "−0.7"]
    assert isinstance(table, Table)
    assert len(table.rows) == 8


def test_an_undefined_difference_has_no_dot_and_stays_in_the_table(tmp_path):
    folder = write_comparison(tmp_path / "c", TASKS[:1], runs=False, sides=("hard",))
    content = json.loads((folder / "comparison.json").read_text())
    content["tasks"]["ner"]["values"]["hard"] = [0.5, None, 0.5]
    content["tasks"]["ner"]["differences"]["hard - single"] |= {"delta": None, "low": None, "high": None, "word": None}
    (folder / "comparison.json").write_text(json.dumps(content))
    material = read_material(folder)
    (table,) = scores_section(material, material.comparison).blocks
    assert table.rows[0][3:7] == ["not defined", "80.20 ± 0.20", "not defined", ""]


def test_a_second_metric_adds_a_table_of_all_metrics(comparison):
    material = read_material(comparison)
    content = json.loads(json.dumps(material.comparison))
    content["tasks"]["ner"]["scores"]["hard"]["recall"] = [0.5, 0.5, 0.5]
    table = scores_section(material, content).blocks[-1]
    assert table.caption == "All metrics"
    assert ["ner", "recall", "not defined", "50.00 ± 0.00", "not defined"] in table.rows


def test_quality_is_drawn_against_two_costs(comparison):
    material = read_material(comparison)
    plots, table = cost_section(material, material.comparison).blocks
    assert [plot.table.caption for plot in plots.plots] == [
        "Quality and ms to answer 1,000 texts",
        "Quality and encoder passes per text",
    ]
    assert ["hard", "1,000", "80.07"] in plots.plots[0].table.rows
    assert table.head == ["cost", "single", "hard", "adapters"]


def test_unknown_costs_are_said(tmp_path):
    material = read_material(write_comparison(tmp_path / "c", cost=False, runs=False))
    (text,) = cost_section(material, material.comparison).blocks
    assert isinstance(text, Text)


def test_learning_curves_are_drawn_where_the_comparison_has_them(comparison):
    material = read_material(comparison)
    assert learning_curves(material, material.comparison, ["ner"]) == []
    content = json.loads(json.dumps(material.comparison))
    content["tasks"]["ner"]["learning_curve"] = {"hard": {"100": [0.8, 0.8], "25": [0.5, 0.6], "50": [0.7, None]}}
    (plots,) = learning_curves(material, content, ["ner"])
    assert plots.plots[0].table.rows == [["hard", "55.00 at 25 %, 80.00 at 100 %"]]


def test_a_run_shows_its_scores_or_that_it_has_none(run, tmp_path):
    (table,) = run_scores_section(read_material(run)).blocks
    assert table.rows[0] == ["ner", "f1", "80.00"]
    (tmp_path / "results.json").write_text('{"training": {}}')
    (text,) = run_scores_section(read_material(tmp_path)).blocks
    assert text.text == "The run has no scores yet."
