"""The files of a report: a run, a comparison, and folders that are neither."""

from __future__ import annotations

import shutil

import pytest
from comparison_folder import write_comparison

from mtl_nlp.errors import DataError, ModelError
from mtl_nlp.report.material import OWN, RunFiles, read_log, read_material


def test_a_run_is_its_only_side(run):
    material = read_material(run)
    assert material.comparison is None
    assert material.joint == [OWN]
    assert material.task_names == ["ner", "genre", "$rating_{"]
    assert len(material.predictions(OWN, "ner")[0]) == 100
    assert "/home/ada" not in material.runs[OWN][0].recipe.to_yaml()


def test_a_comparison_has_its_runs_by_side(comparison):
    material = read_material(comparison)
    assert {side: len(runs) for side, runs in material.runs.items()} == {"single": 9, "hard": 3, "adapters": 3}
    assert material.joint == ["hard", "adapters"]
    assert list(material.tasks) == ["ner", "genre", "$rating_{"]
    assert len(material.predictions("single", "ner")) == len(material.predictions("hard", "ner")) == 3
    assert material.missing == 0


def test_missing_folders_of_runs_are_counted(tmp_path):
    folder = write_comparison(tmp_path / "c", seeds=(1,))
    shutil.rmtree(folder / "runs" / "hard-1-0")
    material = read_material(folder)
    assert material.missing == 1
    assert material.runs["hard"] == []


def test_a_folder_that_is_neither_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"has neither comparison\.json nor results\.json"):
        read_material(tmp_path)


def test_a_run_without_files_has_nothing(tmp_path):
    run = RunFiles(tmp_path)
    assert (run.results, run.training, run.log, run.tasks, run.predictions, run.recipe) == ({}, {}, [], {}, {}, None)


def test_damaged_files_are_named(tmp_path):
    path = tmp_path / "training_log.jsonl"
    path.write_text('{"step": 1}\n\n{"step": "two"}\n')
    with pytest.raises(DataError, match=r"training_log\.jsonl:3: should be a JSON object with a `step`"):
        read_log(path)
    path.write_text('{"step": 1, "epoch": "half"}')
    with pytest.raises(DataError, match=r"training_log\.jsonl:1: .* an `epoch`"):
        read_log(path)
    path.write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"training_log\.jsonl: should be UTF-8"):
        read_log(path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json is damaged"):
        _ = RunFiles(tmp_path).tasks
