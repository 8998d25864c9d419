from __future__ import annotations

import pytest

from mtl_nlp.errors import RecipeError
from mtl_nlp.recipe.plain_yaml import Unquoted
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.run.arguments import evaluation_arguments, training_arguments


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"learning_rat": 1}, r"^training\.learning_rat: no such training argument\. Did you mean 'learning_rate'"),
        ({"num_train_epochs": "many"}, r"^training\.num_train_epochs: should be a number\. Found 'many'"),
        ({"num_train_epochs": [1]}, r"^training\.num_train_epochs: should be a number\. Found \[1\]"),
        ({"num_train_epochs": 0}, r"^training\.num_train_epochs: should be above 0\. Found 0"),
        ({"seed": None}, r"^training\.seed: should be an integer\. Found None"),
        ({"per_device_train_batch_size": 1.5}, r"^training\.per_device_train_batch_size: should be an integer"),
        ({"gradient_accumulation_steps": 0}, r"^training\.gradient_accumulation_steps: should be at least 1\. Found 0"),
        ({"bf16": "maybe"}, r"^training\.bf16: should be true or false\. Found 'maybe'"),
        ({"run_name": ["x"]}, r"^training\.run_name: should be a text\. Found \['x'\]"),
        ({"learning_rate": -1}, r"^training\.learning_rate: should be at least 0\. Found -1"),
        ({"learning_rate": True}, r"^training\.learning_rate: should be a number\. Found True"),
        ({"learning_rate": "nan"}, r"^training\.learning_rate: should be finite and at least 0\. Found nan"),
        ({"seed": 2**32}, r"^training\.seed: should be at least 0 and at most 4294967295\. Found 4294967296"),
        ({"warmup_steps": 9}, r"^training: `warmup_steps` should be at most `max_steps` \(4\)"),
        ({"do_train": True}, r"^training\.do_train: has no effect\. `mtl-nlp train` always trains"),
        (
            {"resume_from_checkpoint": "x"},
            r"^training\.resume_from_checkpoint: has no effect\. Use the option `--resume`",
        ),
        ({"auto_find_batch_size": True}, r"^training: `auto_find_batch_size` should be false"),
        ({"debug": ["x"]}, r"^training: x is not a valid DebugOption"),
        ({"include_num_input_tokens_seen": "x"}, r"^training\.include_num_input_tokens_seen: no such value 'x'"),
        ({"load_best_model_at_end": True}, r"^training: `load_best_model_at_end` needs evaluations during training"),
        ({"optim": "adam"}, r"^training\.optim: no such value 'adam'\. Did you mean 'adamw_torch'"),
        (
            {"lr_scheduler_type": "cosin"},
            r"^training\.lr_scheduler_type: no such value 'cosin'\. Did you mean 'cosine'",
        ),
        (
            {"load_best_model_at_end": True, "eval_strategy": "epoch"},
            r"^training: `save_strategy` should be that of `eval_strategy` \('epoch'\), since .* Found 'no'\.",
        ),
        ({"accelerator_config": {"x": 1}}, r"^training: TypeError: .*'x'"),
        ({"output_dir": "x"}, r"^training\.output_dir: set the recipe key `output_dir`"),
        ({"loss_weights": {}}, r"^training\.loss_weights: set the recipe key `loss\.weights`"),
        ({"freeze_patience": 2}, r"^training\.freeze_patience: set the recipe key `loss\.freeze_when_overfit`"),
        ({"on_nonfinite": "skip"}, r"^training\.on_nonfinite: set the recipe key `loss\.on_nonfinite`"),
        ({"loss_scale": "rows"}, r"^training\.loss_scale: set the recipe key `loss\.scale`"),
        ({"eval_strategy": "sometimes"}, r"^training\.eval_strategy: no such value 'sometimes'\. Valid: "),
        ({"early_stopping_patience": 2}, r"^training: `early_stopping_patience` needs `load_best_model_at_end"),
    ],
)
def test_a_bad_training_argument_is_named(quick_recipe, training, message):
    quick_recipe["training"] |= training
    with pytest.raises(RecipeError, match=message):
        training_arguments(Recipe.from_dict(quick_recipe))


def test_a_text_keeps_the_form_that_the_environment_gives_it(quick_recipe, monkeypatch):
    monkeypatch.setenv("MTL_VERSION", "1.10")
    monkeypatch.setenv("MTL_ANSWER", "no")
    names = {"run_name": Unquoted("${MTL_VERSION}"), "hub_revision": Unquoted("${MTL_ANSWER}")}
    quick_recipe["training"] |= {**names, "max_grad_norm": Unquoted("${MTL_VERSION}")}
    quick_recipe["baselines"] = {"training": {"run_name": Unquoted("${MTL_ANSWER}")}}
    found = training_arguments(Recipe.from_written(quick_recipe))
    assert (found.run_name, found.hub_revision, found.max_grad_norm) == ("1.10", "no", 1.1)


@pytest.mark.parametrize(
    ("baselines", "message"),
    [
        (
            {"tasks": {"ner": {"training": {"learning_rat": 1}}}},
            r"^baselines\.tasks\.ner\.training\.learning_rat: no such training argument\. Did you mean 'learning_rate'",
        ),
        ({"training": {"learning_rat": 1}}, r"^baselines\.training\.learning_rat: no such training argument"),
        ({"training": {"output_dir": "x"}}, r"^baselines\.training\.output_dir: set the recipe key `output_dir`"),
        ({"training": {"seed": "x"}}, r"^baselines\.training\.seed: should be a number\. Found 'x'"),
    ],
)
def test_a_bad_argument_of_a_baseline_is_named(quick_recipe, baselines, message):
    with pytest.raises(RecipeError, match=message):
        training_arguments(Recipe.from_dict(quick_recipe | {"baselines": baselines}))


def test_baselines_have_no_effect_on_the_arguments_of_the_recipe(quick_recipe):
    baselines = {"training": {"learning_rate": 1e-3, "bf16": True}, "tasks": {"ner": {"training": {"seed": 5}}}}
    with_baselines = training_arguments(Recipe.from_dict(quick_recipe | {"baselines": baselines}))
    assert with_baselines.to_dict() == training_arguments(Recipe.from_dict(quick_recipe)).to_dict()


def test_training_and_loss_sections_become_arguments(quick_recipe):
    quick_recipe["training"]["learning_rate"] = 2.0e-4
    quick_recipe["loss"] = {"weights": {"pos": 0.5}, "scale": "per_task"}
    arguments = training_arguments(Recipe.from_dict(quick_recipe))
    assert (arguments.learning_rate, arguments.max_steps) == (2.0e-4, 4)
    assert (arguments.loss_weights, arguments.loss_scale) == ({"pos": 0.5}, "per_task")
    assert arguments.output_dir == quick_recipe["output_dir"]


def test_freezing_needs_evaluations_and_is_left_out_without_training(quick_recipe, tmp_path):
    quick_recipe["loss"] = {"freeze_when_overfit": {"patience": 2}}
    for strategy in ({}, {"eval_strategy": False}, {"eval_strategy": "no"}):
        quick_recipe["training"] |= strategy
        with pytest.raises(RecipeError, match=r"^loss\.freeze_when_overfit: needs evaluations during training"):
            training_arguments(Recipe.from_dict(quick_recipe))
    quick_recipe["training"]["eval_strategy"] = "epoch"
    assert training_arguments(Recipe.from_dict(quick_recipe)).freeze_patience == 2
    assert evaluation_arguments(Recipe.from_dict(quick_recipe), tmp_path).freeze_patience is None


def test_yaml_strings_become_numbers_and_false_becomes_the_strategy_no(quick_recipe):
    quick_recipe["training"] |= {"learning_rate": "2e-4", "num_train_epochs": "3", "eval_strategy": False}
    quick_recipe["training"] |= {"bf16": "false", "run_name": 2026}
    arguments = training_arguments(Recipe.from_dict(quick_recipe))
    assert (arguments.learning_rate, arguments.num_train_epochs, arguments.eval_strategy) == (2e-4, 3, "no")
    assert (arguments.bf16, arguments.run_name) == (False, "2026")


def test_evaluation_keeps_precision_and_sizes_and_writes_no_files(quick_recipe, tmp_path):
    quick_recipe["training"] |= {
        "push_to_hub": True,
        "report_to": ["tensorboard"],
        "eval_strategy": "steps",
        "save_strategy": "steps",
        "load_best_model_at_end": True,
        "early_stopping_patience": 2,
        "per_device_eval_batch_size": 3,
        "bf16_full_eval": True,
    }
    arguments = evaluation_arguments(Recipe.from_dict(quick_recipe), tmp_path)
    assert (arguments.per_device_eval_batch_size, arguments.bf16_full_eval) == (3, True)
    assert (arguments.push_to_hub, arguments.report_to, arguments.output_dir) == (False, [], str(tmp_path))
    assert (arguments.eval_strategy, arguments.save_strategy, arguments.load_best_model_at_end) == ("no", "no", False)


def test_evaluation_accepts_schedules_that_need_evaluations_during_training(quick_recipe, tmp_path):
    quick_recipe["training"] |= {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "epoch"}
    assert training_arguments(Recipe.from_dict(quick_recipe)).lr_scheduler_type == "reduce_lr_on_plateau"
    assert evaluation_arguments(Recipe.from_dict(quick_recipe), tmp_path).eval_strategy == "no"


def test_an_evaluations_arguments_are_checked_too(quick_recipe, tmp_path):
    quick_recipe["training"]["learning_rat"] = 1
    with pytest.raises(RecipeError, match=r"^training\.learning_rat: no such training argument"):
        evaluation_arguments(Recipe.from_dict(quick_recipe), tmp_path)


def test_filter_of_trainer_for_losses_is_refused(quick_recipe):
    quick_recipe["training"]["logging_nan_inf_filter"] = True
    with pytest.raises(RecipeError, match=r"^training: `logging_nan_inf_filter` should be false, since a run ends"):
        training_arguments(Recipe.from_dict(quick_recipe))


def test_a_recipe_without_a_number_format_lets_the_machine_choose(quick_recipe):
    training = quick_recipe["training"]
    assert training.pop("precision") == "fp32"  # exact comparisons of other tests
    assert training_arguments(Recipe.from_dict(quick_recipe)).precision == "auto"
    for key, value in (("bf16", True), ("bf16", False), ("fp16", False)):
        arguments = training_arguments(Recipe.from_dict({**quick_recipe, "training": {**training, key: value}}))
        assert (arguments.precision, arguments.bf16) == (None, key == "bf16" and value)
    quick_recipe["training"] = {**training, "precision": "fp32", "bf16": True}
    with pytest.raises(RecipeError, match="`precision` fp32 and `bf16` exclude each other"):
        training_arguments(Recipe.from_dict(quick_recipe))
    quick_recipe["training"] = {**training, "precision": "fp8"}
    with pytest.raises(RecipeError, match=r"^training\.precision: no such value 'fp8'"):
        training_arguments(Recipe.from_dict(quick_recipe))
