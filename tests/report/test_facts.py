"""Facts about trainings from logs and recipes."""

from __future__ import annotations

import json
import math

import pytest
from comparison_folder import TASKS, write_run

from mtl_nlp.report.facts import curve, early_peak, has_adapter, is_improving, loss_shares, rows_of, weight_of
from mtl_nlp.report.material import RunFiles


def logged(folder, entries):
    folder.mkdir(exist_ok=True)
    (folder / "training_log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return RunFiles(folder)


def test_a_curve_has_the_finite_values_of_a_key():
    log = [{"step": 1, "epoch": 0.5, "a": 2}, {"step": 2, "a": None}, {"step": 3, "a": math.nan}, {"step": 4, "a": 1.0}]
    assert curve(log, "a") == [(0.5, 2.0), (4.0, 1.0)]
    assert curve(log, "a", "step") == [(1.0, 2.0), (4.0, 1.0)]


def test_a_share_of_the_loss_is_weighted_and_of_the_last_half(tmp_path):
    entries = [{"step": step, "loss_a": 90.0, "loss_b": 1.0} for step in (1, 2)]
    entries += [{"step": step, "loss_a": 1.0, "loss_b": 3.0, "weight_a": 3.0} for step in (3, 4)]
    shares = loss_shares([logged(tmp_path / "r", entries)], ["a", "b"])
    assert shares == pytest.approx({"a": 0.5, "b": 0.5})
    assert loss_shares([logged(tmp_path / "r", entries)], ["a", "c"]) == {}
    assert loss_shares([], ["a"]) == {}


def test_a_task_improves_if_its_last_evaluation_or_its_losses_say_so(tmp_path):
    def with_scores(*scores):
        return logged(tmp_path / "r", [{"step": n, "eval_a_f1": score} for n, score in enumerate(scores)])

    assert is_improving(with_scores(0.1, 0.2, 0.3), "a", "f1")
    assert not is_improving(with_scores(0.1, 0.3, 0.2), "a", "f1")
    falling = [{"step": n, "loss_a": 0.8**n} for n in range(12)]
    assert is_improving(logged(tmp_path / "s", falling), "a", "f1")
    assert not is_improving(logged(tmp_path / "t", falling[:4]), "a", "f1")
    assert not is_improving(logged(tmp_path / "u", [{"step": n, "loss_a": 1.0} for n in range(12)]), "a", "f1")


def test_a_peak_is_early_if_the_results_say_that_the_task_has_fallen(tmp_path):
    run = RunFiles(write_run(tmp_path / "r"))
    peak = early_peak(run, "ner")
    assert (peak.step, peak.kept_step, peak.metric) == (100, 300, "f1")
    assert early_peak(run, "genre") is None
    assert early_peak(run, "unknown") is None


def test_recipes_answer_for_weights_and_adapters(tmp_path):
    recipe = RunFiles(write_run(tmp_path / "r")).recipe
    assert weight_of(recipe, "ner") == weight_of(None, "ner") == 1.0
    assert weight_of(recipe.model_copy(update={"loss": {"weights": {"ner": 0.5}}}), "ner") == 0.5
    assert weight_of(recipe.model_copy(update={"loss": {"weights": {"ner": "${W}"}}}), "ner") == 1.0
    assert not has_adapter(recipe, "ner")
    assert has_adapter(recipe.model_copy(update={"adapters": {"r": 8}}), "ner")
    assert not has_adapter(recipe.model_copy(update={"adapters": {"tasks": ["genre"]}}), "ner")


def test_rows_of_a_task_are_those_of_its_datasets(tmp_path):
    run = RunFiles(write_run(tmp_path / "r", TASKS, labels={"ewt": ["ner"], "wnut": ["genre"]}))
    assert rows_of([run], "genre") == (200, 1000)
    assert rows_of([run], "ner") == (1000, 1000)
    assert rows_of([run], "$rating_{") is None
