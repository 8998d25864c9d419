"""The files on what tasks share, complete and damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from insight_folder import conflict, inspection

from mtl_nlp.errors import DataError
from mtl_nlp.report.insight_files import read_conflict, read_inspection

TASKS, METRICS = ["pos", "ner"], ["accuracy", "f1"]


def test_complete_files_are_read(tmp_path):
    path = tmp_path / "inspection.json"
    assert read_inspection(path) is None
    path.write_text(json.dumps(inspection(TASKS, METRICS)))
    found = read_inspection(path)
    assert found.ablation.own == {"pos": [(1, 0)], "ner": [(1, 1)]}
    assert found.adapters.names == ["pos", "ner", "shared"]
    path.write_text(json.dumps(conflict(TASKS)))
    assert read_conflict(path).measurements[0].cosine == [[1.0, None], [None, None]]


def _cut(content: dict[str, Any]) -> None:
    content["need"]["scores"]["pos"].pop()


def _rename(content: dict[str, Any]) -> None:
    content["ablation"]["heads"]["dep"] = content["ablation"]["heads"].pop("pos")


def _without_layers(content: dict[str, Any]) -> None:
    del content["ablation"]["layers"]["pos"]


def _more_heads(content: dict[str, Any]) -> None:
    content["ablation"]["heads"]["pos"][1].append(0.1)


def _one_row(content: dict[str, Any]) -> None:
    content["adapters"]["similarity"].pop()


def _text(content: dict[str, Any]) -> None:
    content["movement"][0]["cka"][0] = "high"


def _without(content: dict[str, Any]) -> None:
    del content["layers"]


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (_cut, "need should have lists of 5 entries. Found 4"),
        (_rename, "ablation has the unknown name 'dep'"),
        (_without_layers, "ablation has the unknown name 'pos'"),
        (_more_heads, "ablation.heads should have lists of 3 entries. Found 4"),
        (_one_row, "adapters should have lists of 3 entries. Found 2"),
        (_text, "movement.0.cka.0: Input should be a valid number"),
        (_without, "layers: Field required"),
    ],
)
def test_damage_of_an_inspection_is_named(tmp_path, damage: Callable[[dict[str, Any]], None], problem):
    content = inspection(TASKS, METRICS)
    damage(content)
    path = tmp_path / "inspection.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"inspection\.json is damaged .* Write it again: mtl-nlp inspect\.") as found:
        read_inspection(path)
    assert problem in str(found.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "NaN", '{"every": 1}', "\x00"])
def test_damage_of_a_conflict_is_one_line(tmp_path, text):
    path = tmp_path / "conflict.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"conflict\.json is damaged") as found:
        read_conflict(path)
    assert "\n" not in str(found.value)


def test_matrices_of_a_conflict_have_one_row_per_task(tmp_path):
    content = conflict(TASKS)
    content["measurements"][1]["cosine"][0].pop()
    path = tmp_path / "conflict.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"measurements should have lists of 2 entries\. Found 1"):
        read_conflict(path)
