from __future__ import annotations

import pytest
import torch

from mtl_nlp.errors import RecipeError
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.run.arguments import evaluation_arguments, training_arguments
from mtl_nlp.run.settings import describe_settings

KEEPS_BEST = {"load_best_model_at_end": True, "eval_strategy": "epoch", "save_strategy": "epoch"}


@pytest.mark.parametrize(
    ("training", "message"),
    [
        pytest.param(
            {"fp16": True},
            r"^training\.fp16: has no effect on a CPU.* Set `bf16: true`",
            marks=pytest.mark.skipif(torch.accelerator.is_available(), reason="fp16 has an effect on accelerators"),
        ),
        (
            {**KEEPS_BEST, "metric_for_best_model": "eval_loss", "greater_is_better": True},
            r"^training\.greater_is_better: true keeps .* largest eval_loss, which is the worst",
        ),
    ],
)
def test_settings_without_their_effect_are_refused(quick_recipe, tmp_path, training, message):
    quick_recipe["training"] |= {"precision": None} | training
    with pytest.raises(RecipeError, match=message):
        training_arguments(Recipe.from_dict(quick_recipe))
    if "fp16" in training:  # a model that was trained on a GPU may be scored on a CPU
        evaluation_arguments(Recipe.from_dict(quick_recipe), tmp_path)


@pytest.mark.parametrize(
    ("training", "start"),
    [
        ({"learning_rate": 2e-5}, None),
        ({"learning_rate": 2e5}, "training.learning_rate: 200000 is far above"),
        ({"head_learning_rate": 5}, "training.head_learning_rate: 5 is far above"),
        ({"learning_rate": 1, "optim": "sgd"}, None),
        ({"metric_for_best_model": "mtl_score"}, "training.metric_for_best_model: mtl_score has no effect without"),
        ({"metric_for_best_model": "mtl_score", **KEEPS_BEST}, None),
    ],
)
def test_settings_that_are_probably_wrong_get_a_note(quick_recipe, training, start):
    quick_recipe["training"] |= training
    notes = describe_settings(training_arguments(Recipe.from_dict(quick_recipe)))
    assert len(notes) == (start is not None) and all(note.startswith(str(start)) for note in notes)
