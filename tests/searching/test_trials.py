from __future__ import annotations

import pytest

from mtl_nlp import Recipe
from mtl_nlp.errors import RecipeError
from mtl_nlp.run.prepare import Run
from mtl_nlp.searching.trials import Trials, check_fidelity, drop_weights, needs_last_evaluation


def test_the_recipe_of_a_trial_saves_nothing_and_is_scored_after_each_quarter(run: Run, tmp_path):
    trials = Trials(run)
    recipe = trials.recipe_of({"training.learning_rate": 1e-3, "loss.weights.ner": 0.5}, tmp_path, seed=9)
    assert recipe.training["learning_rate"] == 1e-3
    assert recipe.loss.weights == {"ner": 0.5}
    assert recipe.output_dir == str(tmp_path)
    expected = {"seed": 9, "save_strategy": "no", "eval_strategy": "steps", "eval_steps": 0.25, "report_to": "none"}
    assert expected.items() <= recipe.training.items()
    assert trials.recipe_of({}, tmp_path, is_scored=False).training["eval_strategy"] == "no"


def test_a_training_that_depends_on_its_evaluations_keeps_them(quick_recipe, run: Run, tmp_path):
    own = {"load_best_model_at_end": True, "eval_strategy": "epoch", "save_strategy": "epoch", "push_to_hub": True}
    quick_recipe["training"] |= own | {"hub_model_id": "me/model"}
    quick_recipe["training"].pop("max_steps")
    recipe = Trials(run.__class__(Recipe.from_dict(quick_recipe), *_parts(run))).recipe_of({}, tmp_path)
    assert recipe.training["eval_strategy"] == "epoch"
    assert recipe.training["save_total_limit"] == 1
    assert not {"push_to_hub", "hub_model_id"} & recipe.training.keys()
    assert needs_last_evaluation(recipe)


def _parts(run: Run) -> list[object]:
    return [run.tokenizer, run.config, run.splits, run.streams]


def test_the_data_are_encoded_again_only_if_a_trial_changes_them(run: Run, tmp_path):
    trials = Trials(run)
    for values in ({"training.learning_rate": 1e-3}, {"adapters": {"r": 4}}, {"mixture.temperature": 2.0}):
        prepared = trials.prepared(trials.recipe_of(values, tmp_path))
        assert prepared.splits["train"] is run.splits["train"]
        assert "test" not in prepared.splits
    pooled = trials.prepared(trials.recipe_of({"tasks.topic.pooling": "mean"}, tmp_path))
    assert pooled.tasks["topic"].to_dict()["pooling"] == "mean"
    assert trials.run.tasks["topic"].to_dict()["pooling"] == "cls"
    fewer = trials.prepared(trials.recipe_of({}, tmp_path, rows=1 / 3))
    assert fewer.splits["train"]["sample"].num_rows == -(-run.splits["train"]["sample"].num_rows // 3)
    assert fewer.recipe.training["max_steps"] == 1


def test_a_stream_has_no_fewer_rows(run: Run):
    check_fidelity(run)
    run.streams["sample"] = None
    with pytest.raises(RecipeError, match="the dataset 'sample' is streamed"):
        check_fidelity(run)


def test_weights_are_dropped_and_scores_stay(saved):
    (saved / "results.json").write_text("{}")
    drop_weights(saved)
    drop_weights(saved)
    names = {path.name for path in saved.iterdir()}
    assert "results.json" in names
    assert not {"model.safetensors", "config.json"} & names
