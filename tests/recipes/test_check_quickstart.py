"""The figures of `scripts/check_quickstart.py`."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

CHECK = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "check_quickstart.py"))


def test_the_calibration_error_is_the_mean_gap_of_the_bins():
    error = CHECK["calibration_error"]
    assert error([1.0, 1.0], [True, True]) == 0
    assert error([1.0, 1.0], [False, False]) == 1
    assert error([0.75, 0.75, 0.75, 0.75], [True, True, True, False]) == pytest.approx(0)
    # Two bins: the gap is 0.85 - 0.5 with the weight 2 / 3, and 0.35 - 0 with the weight 1 / 3.
    assert error([0.85, 0.85, 0.35], [True, False, False]) == pytest.approx(0.35)


def test_the_figures_come_from_the_files_of_a_run(tmp_path):
    tasks = {"pos": {"accuracy": 0.97}, "ner": {"f1": 0.86}, "topic": {"accuracy": 0.5}}
    (tmp_path / "results.json").write_text(json.dumps({"tasks": tasks, "training": {"seconds": 80.5}}))
    rows = [
        {"task": "ner", "prediction": ["O"], "gold": ["O"], "score": [0.2]},
        {"task": "topic", "prediction": "news", "gold": "news", "score": 0.75},
        {"task": "topic", "prediction": "news", "gold": "sport", "score": 0.75},
    ]
    (tmp_path / "predictions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    log = [{"loss": 1.0}, {"eval_topic_loss": 0.5}, {"eval_topic_loss": 0.25}, {"eval_topic_loss": 0.75}]
    (tmp_path / "training_log.jsonl").write_text("\n".join(map(json.dumps, log)))
    figures = CHECK["figures"](tmp_path)
    assert figures[:5] == pytest.approx((97, 86, 50, 0.25, 80.5))
    assert figures[5] == "after epoch 2 of 3"
