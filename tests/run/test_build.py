from __future__ import annotations

import shutil

import pytest
import torch

from mtl_nlp.errors import RecipeError
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.run.arguments import training_arguments
from mtl_nlp.run.build import build_model, check_splits
from mtl_nlp.run.prepare import prepare


def test_the_same_recipe_gives_the_same_run_and_the_same_heads(run, quick_recipe):
    again = prepare(Recipe.from_dict(quick_recipe))
    assert again.tasks == run.tasks
    first, second = build_model(run).state_dict(), build_model(again).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    for split, encoded in run.splits.items():
        assert encoded["sample"].windows._fingerprint == again.splits[split]["sample"].windows._fingerprint


def test_a_run_builds_its_model_and_its_trainer(run):
    trainer = run.build_trainer(compute_metrics=lambda given: {"own": len(given.predictions)})
    assert trainer.train_dataset is run.mixture
    assert trainer.recipe == run.recipe.to_yaml()
    assert all(
        torch.equal(value, trainer.model.state_dict()[name]) for name, value in run.build_model().state_dict().items()
    )
    assert trainer.evaluate()["eval_own"] == 3
    with pytest.raises(RecipeError, match=r"^training: `compute_loss_func` would replace"):
        run.build_trainer(compute_loss_func=print)


def test_a_run_trains_new_models_of_its_recipe(run):
    trainer = run.build_trainer(model_init=run.build_model)
    assert trainer.model_init is not None and trainer.model.tasks == run.tasks
    first = trainer.model
    trainer.renew()
    assert trainer.model is not first and trainer.model.tasks == run.tasks
    with pytest.raises(RecipeError, match=r"^training: Either `model` or `model_init` should be given"):
        run.build_trainer(first, model_init=run.build_model)


def test_evaluation_in_training_needs_a_validation_split(quick_recipe):
    del quick_recipe["datasets"]["sample"]["data_files"]["validation"]
    quick_recipe["training"]["eval_strategy"] = "epoch"
    recipe = Recipe.from_dict(quick_recipe)
    with pytest.raises(RecipeError, match=r"^training\.eval_strategy: there is no validation split"):
        check_splits(prepare(recipe), training_arguments(recipe))


def test_an_encoder_without_weights_is_named(run, encoder_folder, tmp_path):
    shutil.copytree(encoder_folder("bert"), tmp_path / "empty")
    (tmp_path / "empty" / "model.safetensors").unlink()
    run.recipe = run.recipe.model_copy(update={"encoder": str(tmp_path / "empty")})
    with pytest.raises(RecipeError, match=r"^encoder: .*/empty cannot be loaded"):
        build_model(run)
