"""Facts about trainings from logs and recipes."""

from __future__ import annotations

import json
import math

import pytest
from comparison_folder import TASKS, write_run

from mtl_nlp.report.facts import (
    adapted_tasks,
    curve,
    early_peak,
    frozen_in,
    has_static_weights,
    is_improving,
    learning_rates,
    loss_shares,
    rows_of,
    weight_of,
)
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
    entries = [{"step": step, "loss_ner": 90.0, "loss_genre": 1.0} for step in (1, 2)]
    entries += [{"step": step, "loss_ner": 1.0, "loss_genre": 3.0, "weight_ner": 3.0} for step in (3, 4)]
    run = logged(write_run(tmp_path / "r"), entries)
    assert loss_shares([run], ["ner", "genre"]) == pytest.approx({"ner": 0.5, "genre": 0.5})
    assert loss_shares([run], ["ner", "$rating_{"]) == {}
    assert loss_shares([], ["ner"]) == {}
    assert loss_shares([logged(tmp_path / "without-recipe", entries)], ["ner", "genre"]) == {}


def test_a_share_of_the_loss_counts_the_rows_of_the_task(tmp_path):
    entries = [{"step": step, "loss_ner": 1.0, "loss_genre": 1.0} for step in (1, 2)]
    folder = write_run(tmp_path / "r", labels={"ewt": ["ner"], "wnut": ["genre"]})  # p = 0.6 and 0.4
    assert loss_shares([logged(folder, entries)], ["ner", "genre"]) == pytest.approx({"ner": 0.6, "genre": 0.4})
    with open(folder / "recipe.yaml", "a") as recipe:
        recipe.write("loss: {scale: per_task}\n")
    assert loss_shares([RunFiles(folder)], ["ner", "genre"]) == pytest.approx({"ner": 0.5, "genre": 0.5})


def test_a_task_improves_if_its_last_evaluation_or_its_losses_say_so(tmp_path):
    def with_scores(*scores):
        return logged(tmp_path / "r", [{"step": n, "eval_a_f1": score} for n, score in enumerate(scores)])

    assert is_improving(with_scores(0.1, 0.2, 0.3), "a", "f1")
    assert not is_improving(with_scores(0.1, 0.3, 0.2), "a", "f1")
    assert not is_improving(with_scores(0.1, 0.3, 0.302), "a", "f1")
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


def test_a_frozen_task_neither_improves_nor_peaks(tmp_path):
    folder = write_run(tmp_path / "r")
    results = json.loads((folder / "results.json").read_text())
    results["training"]["frozen"] = {"ner": {"step": 200, "best_step": 100}}
    (folder / "results.json").write_text(json.dumps(results))
    run = logged(folder, [{"step": n, "eval_ner_f1": score} for n, score in enumerate((0.1, 0.2, 0.3))])
    assert list(frozen_in(run)) == ["ner"]
    assert early_peak(run, "ner") is None
    assert not is_improving(run, "ner", "f1")


def test_a_weight_is_that_of_the_results_or_else_of_the_recipe(tmp_path):
    def with_loss(name, loss, weights=None):
        folder = write_run(tmp_path / name)
        with open(folder / "recipe.yaml", "a") as recipe:
            recipe.write(f"loss: {json.dumps(loss)}\n")
        results = json.loads((folder / "results.json").read_text())
        results["training"] |= {} if weights is None else {"weights": weights}
        (folder / "results.json").write_text(json.dumps(results))
        return RunFiles(folder)

    assert weight_of(RunFiles(write_run(tmp_path / "plain")), "ner") == 1.0
    assert weight_of(with_loss("a", {"weights": {"ner": 0.5}}), "ner") == 0.5
    assert weight_of(with_loss("b", {"weights": {"ner": "${W}"}}), "ner") == 1.0
    assert weight_of(with_loss("c", {"weights": {"ner": [1.0, 0.5]}}), "ner") == 0.75
    assert weight_of(with_loss("d", {"weights": {"ner": ["${W}", 0.5]}}), "ner") == 1.0
    assert weight_of(with_loss("e", {}, {"ner": 0.3}), "ner") == 0.3
    assert weight_of(with_loss("f", {"weights": {"ner": 0.5}}, {"ner": [0.4, 0.2]}), "ner") == pytest.approx(0.3)


def test_constant_weights_count_in_the_share_of_the_loss(tmp_path):
    entries = [{"step": step, "loss_ner": 1.0, "loss_genre": 1.0} for step in (1, 2)]
    folder = write_run(tmp_path / "r")
    results = json.loads((folder / "results.json").read_text())
    results["training"]["weights"] = {"ner": 1.0, "genre": 0.25}
    (folder / "results.json").write_text(json.dumps(results))
    assert loss_shares([logged(folder, entries)], ["ner", "genre"]) == pytest.approx({"ner": 0.8, "genre": 0.2})


def test_recipes_answer_for_weightings_and_adapters(tmp_path):
    recipe = RunFiles(write_run(tmp_path / "r")).recipe
    assert has_static_weights(recipe)
    assert has_static_weights(None)
    assert not has_static_weights(recipe.model_copy(update={"loss": {"weighting": "dwa"}}))
    assert adapted_tasks(recipe) == adapted_tasks(None) == []
    assert adapted_tasks(recipe.model_copy(update={"adapters": {"r": 8}})) == list(recipe.tasks)
    assert adapted_tasks(recipe.model_copy(update={"adapters": {"tasks": None}})) == list(recipe.tasks)
    assert adapted_tasks(recipe.model_copy(update={"adapters": {"tasks": ["genre"]}})) == ["genre"]
    training = {"learning_rate": 1e-4, "head_learning_rate": 1e-3, "seed": 1}
    assert list(learning_rates(recipe.model_copy(update={"training": training}))) == list(training)[:2]


def test_rows_of_a_task_are_those_of_its_datasets(tmp_path):
    run = RunFiles(write_run(tmp_path / "r", TASKS, labels={"ewt": ["ner"], "wnut": ["genre"]}))
    assert rows_of([run], "genre") == (200, 1000)
    assert rows_of([run], "ner") == (1000, 1000)
    assert rows_of([run], "$rating_{") is None
