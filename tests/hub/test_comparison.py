"""The file of a comparison: its checks, units, and the rows of its tables."""

from __future__ import annotations

import json

import pytest
from comparison_folder import change, many_tasks, write_comparison

from mtl_nlp.errors import DataError
from mtl_nlp.hub.comparison import (
    PERCENT,
    comparison_of,
    comparison_rows,
    cost_ratio,
    cost_rows,
    count_text,
    read_comparison,
    spread_of,
    unit_of,
)


@pytest.fixture
def folder(tmp_path):
    return write_comparison(tmp_path / "c", runs=False)


def test_a_comparison_is_read_as_it_was_written(folder):
    content = read_comparison(folder / "comparison.json")
    written = json.loads((folder / "comparison.json").read_text())
    assert {name: task | {"learning_curve": None} for name, task in written["tasks"].items()} == content["tasks"]
    assert content["sides"] == {name: side | {"predictions": None} for name, side in written["sides"].items()}
    assert content["match"] == "passes"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "line 1"),
        ("[]", "valid dictionary"),
        ("[" * 100_000, "recursion"),
        ('{"split": "test"}', "seeds: Field required"),
    ],
)
def test_a_damaged_comparison_is_named_in_one_line(tmp_path, text, reason):
    path = tmp_path / "comparison.json"
    path.write_text(text)
    with pytest.raises(DataError, match="is damaged") as caught:
        read_comparison(path)
    assert reason in str(caught.value) or "dict" in str(caught.value)
    assert "mtl-nlp compare" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_side_without_an_entry_and_a_nan_are_refused(folder):
    change(folder, reference="nobody")
    with pytest.raises(DataError, match="`sides` has no 'nobody'"):
        read_comparison(folder / "comparison.json")
    change(folder, reference="single", delta_m={"hard": {"value": 1.0}})
    text = (folder / "comparison.json").read_text().replace("1.0", "NaN", 1)
    (folder / "comparison.json").write_text(text)
    with pytest.raises(DataError, match="finite number"):
        read_comparison(folder / "comparison.json")


@pytest.mark.parametrize(
    "changes",
    [
        {"tasks": {}},
        {"match": ["passes"]},
        {"provenance": {"versions": "2.13"}},
        {"provenance": {"recipes": {"hard": {"encoder": "bert"}}}},
    ],
)
def test_values_of_a_wrong_form_are_refused(folder, changes):
    with pytest.raises(DataError, match=f"is damaged .{next(iter(changes))}"):
        read_comparison(change(folder, **changes) / "comparison.json")


def test_a_learning_curve_has_percents(folder):
    tasks = json.loads((folder / "comparison.json").read_text())["tasks"]
    tasks["ner"]["learning_curve"] = {"hard": {"25": [0.5], "100": [None]}}
    assert read_comparison(change(folder, tasks=tasks) / "comparison.json")["tasks"]["ner"] == tasks["ner"]
    tasks["ner"]["learning_curve"] = {"hard": {"all": [0.5]}}
    with pytest.raises(DataError, match="learning_curve"):
        read_comparison(change(folder, tasks=tasks) / "comparison.json")


def test_the_comparison_of_a_run_lies_in_its_folder_or_two_levels_above(tmp_path):
    folder = write_comparison(tmp_path / "c", many_tasks(1), seeds=(1,), sides=("hard",))
    assert comparison_of(folder) == folder / "comparison.json"
    assert comparison_of(folder / "runs" / "hard-1-0").samefile(folder / "comparison.json")
    for elsewhere in ("other/hard", "runs/hard-of-an-earlier-recipe"):
        (folder / elsewhere).mkdir(parents=True)
        assert comparison_of(folder / elsewhere) is None


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000, '{"mine": 1}', "\udcff"])
def test_a_file_of_the_user_above_a_run_is_not_a_comparison(tmp_path, text):
    (tmp_path / "comparison.json").write_text(text, encoding="utf-8", errors="surrogateescape")
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    assert comparison_of(tmp_path / "runs" / "mine") is None


def test_shares_are_in_percent_and_correlations_as_they_are():
    assert unit_of("f1").value(0.51234) == "51.23"
    assert unit_of("f1").change(-0.0171) == "−1.71"
    assert unit_of("f1").change(-0.000001) == "0.00"
    assert unit_of("pearson").value(0.51234) == "0.5123"
    assert unit_of("own_metric").change(12.5) == "+12.5000"
    assert PERCENT.value(None) == "not defined"


def test_a_mean_needs_all_values_and_a_spread_needs_two():
    assert spread_of([0.5, 0.7]).mean == pytest.approx(0.6)
    assert spread_of([0.5, 0.7]).sd == pytest.approx(0.1414, abs=1e-4)
    assert spread_of([0.5]) == (0.5, None)
    assert spread_of([0.5, None]) == spread_of([]) == spread_of(None) == (None, None)


def test_counts_have_no_exponent():
    assert [count_text(each) for each in (0, 12345, 12345.4, 1.5, 3.0)] == ["0", "12,345", "12,345", "1.5", "3"]


def test_rows_have_each_task_on_each_side_and_delta_m(folder):
    head, rows = comparison_rows(read_comparison(folder / "comparison.json"))
    assert head[-1] == "in words"
    assert rows[0] == ["ner", "f1", "hard", "78.50 ± 0.20", "80.20 ± 0.20", "−1.70", "−2.70 to −0.70", "hurt"]
    assert [row[0] for row in rows] == ["ner"] * 2 + ["genre"] * 2 + ["$rating_{"] * 2 + ["all"] * 2
    assert rows[-1][5:7] == ["−0.40", "−1.10 to +0.30"]


def test_costs_are_absent_where_no_side_has_them(tmp_path, folder):
    content = read_comparison(folder / "comparison.json")
    assert ["MB on disk", "1,320.0", "440.0", "448.0"] in cost_rows(content)[1]
    assert cost_ratio(content, "hard", "bytes") == pytest.approx(1 / 3)
    without = read_comparison(write_comparison(tmp_path / "d", runs=False, cost=False) / "comparison.json")
    assert cost_rows(without)[1] == []
    assert cost_ratio(without, "hard", "bytes") is None
