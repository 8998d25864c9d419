from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mtl_nlp.errors import CommandError, DataError
from mtl_nlp.transfer.comparison import Comparison, compare_measured
from mtl_nlp.transfer.measured import Measured, measure_finished
from mtl_nlp.transfer.sides import FinishedRun, FinishedSide

PLAN = {"match": "passes", "differs": ["x"], "warnings": [], "notes": ["a note"]}
LABELS = ["work", "travel"]


@pytest.fixture
def side(saved: Path, tmp_path: Path):
    """A function that returns a measured side whose runs answer a share of 40 texts correctly."""

    def build(name: str, right: list[float], split: str = "test", gold: str = LABELS[0], score: str = "") -> Measured:
        runs = []
        for number, share in enumerate(right):
            folder = Path(shutil.copytree(saved, tmp_path / f"{name}{number}"))
            lines = [
                {
                    "task": "topic",
                    "dataset": "d",
                    "split": split,
                    "row": row,
                    "tokens": ["ada", "lives"],
                    "gold": gold,
                    "prediction": gold if row < 40 * share else LABELS[1],
                }
                for row in np.random.default_rng(number).permutation(40).tolist()
            ]
            (folder / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
            values = {"accuracy": score or share, "macro_f1": share}
            results = {"split": split, "tasks": {"topic": values}, "mtl_score": share}
            (folder / "results.json").write_text(json.dumps(results).replace('"nan"', "null"))
            runs.append([FinishedRun(folder, ["topic"], split, name, number)])
        return measure_finished(FinishedSide(name, name.title(), runs))

    return build


def compare(sides: list[Measured], folder: Path) -> Comparison:
    return compare_measured(sides, folder, plan=PLAN, curves={}, report=lambda line: None)


def test_the_reference_is_the_side_of_single_tasks(side, tmp_path):
    comparison = compare([side("single", [0.5, 0.55]), side("joint", [0.9, 0.925])], tmp_path)
    content = json.loads((tmp_path / "comparison.json").read_text())
    assert content == comparison.content
    assert content["reference"] == "single"
    topic = content["tasks"]["topic"]
    assert topic["values"] == {"single": [0.5, 0.55], "joint": [0.9, 0.925]}
    assert topic["texts"] == 40
    difference = topic["differences"]["joint - single"]
    assert math.isclose(difference["delta"], 0.3875)
    assert difference["word"] == "helped"
    assert content["delta_m"]["joint"]["value"] == pytest.approx(100 * 0.3875 / 0.525)
    assert content["notes"] == ["a note"]
    assert content["sides"]["joint"]["cost"]["ms_per_1000_texts"] > 0


def test_the_reference_is_the_first_side_otherwise(side, tmp_path):
    content = compare([side("a", [0.5, 0.55]), side("b", [0.5, 0.55]), side("c", [0.5, 0.55])], tmp_path).content
    assert list(content["tasks"]["topic"]["differences"]) == ["b - a", "c - a"]


def test_one_seed_has_numbers_without_a_word(side, tmp_path):
    content = compare([side("a", [0.5]), side("b", [0.75])], tmp_path).content
    difference = content["tasks"]["topic"]["differences"]["b - a"]
    assert (difference["delta"], difference["low"], difference["word"]) == (0.25, None, None)
    assert any(note.startswith("topic, b - a: One seed gives no interval") for note in content["notes"])


def test_a_score_that_is_not_defined_stays_null(side, tmp_path):
    content = compare([side("a", [0.5, 0.5]), side("b", [0.75, 0.7], score="nan")], tmp_path).content
    assert content["tasks"]["topic"]["values"]["b"] == [None, None]
    row = Comparison(tmp_path, content).to_pandas().iloc[0]
    assert pd.isna(row["side_mean"])


def test_sides_without_a_common_ground_are_refused(side, tmp_path):
    first = side("a", [0.5, 0.5])
    with pytest.raises(CommandError, match="a comparison needs two sides"):
        compare([first], tmp_path)
    with pytest.raises(CommandError, match=r"a was scored on test, b on validation\."):
        compare([first, side("b", [0.5], split="validation")], tmp_path)
    with pytest.raises(DataError, match="gold"):
        compare([first, side("c", [0.5], gold=LABELS[1])], tmp_path)


def test_a_comparison_is_a_table(side, tmp_path):
    comparison = compare([side("a", [0.5, 0.6]), side("b", [0.75, 0.7])], tmp_path)
    table = comparison.to_pandas()
    assert table.loc[0, ["task", "metric", "side", "reference"]].tolist() == ["topic", "accuracy", "b", "a"]
    assert table.loc[0, "reference_mean"] == pytest.approx(0.55)
    assert table.loc[0, "reference_sd"] == pytest.approx(0.1 / math.sqrt(2))
    assert "<table" in comparison._repr_html_()


def test_texts_that_are_all_empty_are_answered_too(side, tmp_path):
    def emptied(measured: Measured) -> Measured:
        found = {
            run: {task: [replace(each, tokens=[]) for each in texts] for task, texts in by_task.items()}
            for run, by_task in measured.predictions.items()
        }
        return replace(measured, predictions=found)

    sides = [emptied(side("joint", [0.5])), emptied(side("single", [0.5]))]
    content = compare_measured(sides, tmp_path, plan=PLAN, curves={}, report=lambda line: None).content
    assert content["sides"]["joint"]["cost"]["ms_per_1000_texts"] > 0
