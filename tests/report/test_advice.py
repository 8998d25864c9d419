"""The rules behind "what to try next": when each one speaks, its evidence and its option."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml
from comparison_folder import TASKS, change, many_tasks, write_comparison
from insight_folder import conflict

from mtl_nlp.report.advice import RULES, Case, advice, dominates
from mtl_nlp.report.material import read_material

RULE = {rule.__name__: rule for rule in RULES}


@pytest.fixture
def folder(comparison, tmp_path):
    """A comparison that a test may change."""
    return shutil.copytree(comparison, tmp_path / "copy")


def words(folder, **words):
    """Set the words of tasks, for all sides."""
    content = json.loads((folder / "comparison.json").read_text())
    for task, word in words.items():
        for difference in content["tasks"][task.replace("rating", "$rating_{")]["differences"].values():
            difference["word"] = word
    (folder / "comparison.json").write_text(json.dumps(content))
    return folder


def logs(folder, make):
    """Replace the log of every run of the side `hard`."""
    for run in (folder / "runs").glob("hard-*"):
        (run / "training_log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in make()))


def recipes(folder, which="hard-*", **changes):
    for run in (folder / "runs").glob(which):
        recipe = yaml.safe_load((run / "recipe.yaml").read_text())
        (run / "recipe.yaml").write_text(yaml.safe_dump(recipe | changes))


def said(folder, rule):
    return list(RULE[rule](Case(read_material(folder), "hard")))


def test_a_run_is_advised_to_be_compared(run):
    found = advice(read_material(run))
    assert found[0].option == "mtl-nlp compare RECIPE --seeds 3"
    assert [each.side for each in found] == [""] * len(found)


def test_one_seed_is_advised_to_become_several(tmp_path, folder):
    one = write_comparison(tmp_path / "one", seeds=(1,), sides=("hard",), runs=False)
    assert [each.what for each in said(one, "more_seeds")] == ["Add seeds."]
    assert said(folder, "more_seeds") == []


def test_single_runs_with_untuned_rates_are_named(folder):
    assert said(folder, "tune_baselines")[0].option == "--set baselines.training.learning_rate=…"
    assert said(change(folder, match=None), "tune_baselines") == []  # finished runs
    recipes(change(folder, match="passes"), "single-1-*", training={"learning_rate": 1e-4})
    assert said(folder, "tune_baselines") == []
    shutil.rmtree(folder / "runs")
    assert said(folder, "tune_baselines") == []


def test_training_longer_needs_losses_of_all_tasks_that_still_improve(folder):
    assert said(folder, "train_longer") == []
    words(folder, ner="hurt", genre="hurt", rating="hurt")
    found = said(folder, "train_longer")  # genre and rating have their best evaluation at the end
    assert [each.option for each in found] == ["--set training.num_train_epochs=…"]
    assert "genre and $rating_{ still improved" in found[0].because
    recipes(folder, training={"num_train_epochs": 3})
    assert said(folder, "train_longer")[0].option == "--set training.num_train_epochs=6"
    logs(folder, lambda: [{"step": n, "loss_ner": 1.0} for n in range(20)])
    assert said(folder, "train_longer") == []


def test_a_hurt_task_whose_loss_dominates_gets_a_lower_weight(folder):
    logs(folder, lambda: [{"step": n, "loss_ner": 8.0, "loss_genre": 1.0, "loss_$rating_{": 1.0} for n in range(4)])
    (found,) = said(folder, "lower_weight")
    assert "80% of the joint loss is from ner" in found.because
    assert found.option == "--set loss.weights.ner=0.1"  # an equal share: 1 / 8, rounded to one digit
    assert said(folder, "add_adapters") == []
    assert said(words(folder, ner="helped"), "lower_weight") == []


def test_a_loss_dominates_with_the_largest_share_and_half_as_much_again_as_an_equal_one():
    assert dominates({"a": 0.75, "b": 0.25}, "a")
    assert not dominates({"a": 0.7, "b": 0.3}, "a")
    assert not dominates({"a": 0.75, "b": 0.25}, "b")
    assert not dominates({"a": 1.0}, "a")
    assert not dominates({}, "a")


def test_a_hurt_task_without_a_large_loss_gets_an_adapter_or_its_own_model(folder):
    (found,) = said(folder, "add_adapters")
    assert found.option == "--set 'adapters.tasks=[\"ner\"]'"
    recipes(folder, adapters={"tasks": ["genre"]})
    (found,) = said(folder, "add_adapters")
    assert found.option == '--set \'adapters.tasks=["genre", "ner"]\''  # genre keeps its adapter
    recipes(folder, adapters={"tasks": ["ner"]})
    (found,) = said(folder, "add_adapters")
    assert found.what == "Train ner alone."
    assert said(words(folder, ner="helped"), "add_adapters") == []


def test_adapters_are_advised_without_claims_on_unknown_losses_and_never_for_predictions(folder):
    logs(folder, list)
    assert said(folder, "add_adapters")[0].because == "Sharing hurt ner."
    sides = json.loads((folder / "comparison.json").read_text())["sides"]
    change(folder, sides={**sides, "hard": {**sides["hard"], "runs": {}}})
    assert said(folder, "add_adapters") == []


def test_a_hurt_task_whose_gradient_conflicts_gets_a_gradient_method(folder):
    assert said(folder, "combine_gradients") == []
    content = conflict([task.name for task in TASKS])
    for run in (folder / "runs").glob("hard-*"):
        (run / "conflict.json").write_text(json.dumps(content))
    (found,) = said(folder, "combine_gradients")
    assert found.option == "--set loss.gradients=pcgrad"
    place = content["tasks"].index("ner")
    cosine = min(value for other, value in enumerate(content["mean"]["cosine"][place]) if other != place)
    assert f"in 40% of the measurements (mean cosine {cosine:.2f})" in found.because
    recipes(folder, loss={"gradients": "upgrad"})
    assert said(folder, "combine_gradients") == []
    recipes(folder, loss={})
    content["mean"]["cosine"] = [[1.0] * len(TASKS)] * len(TASKS)
    for run in (folder / "runs").glob("hard-*"):
        (run / "conflict.json").write_text(json.dumps(content))
    assert said(folder, "combine_gradients") == []


def test_a_small_dataset_that_gains_raises_the_temperature(folder):
    datasets = {
        name: {"path": "json", "inputs": {"text": "t"}, "labels": {task: task}}
        for name, task in (("ewt", "ner"), ("wnut", "genre"))
    }
    assert said(folder, "raise_temperature") == []  # genre has the largest dataset
    recipes(folder, datasets=datasets, mixture={"temperature": 2.0})
    (found,) = said(folder, "raise_temperature")
    assert found.option == "--set mixture.temperature=4"
    assert "genre has 200 rows where the largest dataset has 1,000" in found.because
    recipes(folder, datasets=datasets, mixture={"probabilities": {"ewt": 0.5, "wnut": 0.5}})
    assert said(folder, "raise_temperature") == []


def test_a_task_that_peaked_early_keeps_the_best_checkpoint_or_counts_less(folder):
    (found,) = said(folder, "keep_the_peak")
    assert found.because == (
        "ner was best on validation at step 100 (f1 70.00) and fell to 60.00 at step 300, the kept model: interference "
        "or overfitting."
    )
    assert "training.load_best_model_at_end=true" in found.option
    recipes(folder, training={"load_best_model_at_end": True})
    assert said(folder, "keep_the_peak")[0].option == "--set loss.weights.ner=0.5"


def test_no_clear_difference_anywhere_means_to_choose_by_cost(folder):
    assert said(folder, "choose_by_cost") == []
    words(folder, ner="no clear difference", genre="no clear difference", rating="no clear difference")
    (found,) = said(folder, "choose_by_cost")
    assert "ner 1.30 points; genre 1.30 points; $rating_{ 0.0130 pearson" in found.because


def test_equal_advice_for_two_sides_is_given_once(comparison):
    found = advice(read_material(comparison))
    assert len({(each.what, each.because) for each in found}) == len(found)
    assert "hard, adapters" in {each.side for each in found}


def test_sixty_tasks_give_few_lines(tmp_path):
    folder = write_comparison(tmp_path / "c", many_tasks(60), runs=False, sides=("hard",))
    sides = json.loads((folder / "comparison.json").read_text())["sides"]
    change(folder, sides={**sides, "hard": {**sides["hard"], "runs": {"1": [{"folder": "gone", "tasks": []}]}}})
    found = advice(read_material(folder))
    assert "15 further tasks" in found[0].what
    assert len(found) < 6
    assert len(TASKS) == 3
