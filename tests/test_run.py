from __future__ import annotations

import json
import shutil

import pytest
import torch
from datasets import Dataset

from mtl_nlp.recipe import Recipe, RecipeError
from mtl_nlp.run import (
    build_model,
    build_trainer,
    check_splits,
    prepare_evaluation,
    prepare_run,
    training_arguments,
)
from mtl_nlp.trained_model import load_model


def test_a_recipe_becomes_tasks_with_labels_and_encoded_splits(run):
    assert {name: task.num_labels for name, task in run.tasks.items()} == {"pos": 17, "ner": 7, "topic": 6}
    assert list(run.splits) == ["train", "validation", "test"]
    assert all(list(datasets) == ["sample"] for datasets in run.splits.values())
    assert len(run.mixture) == len(run.splits["train"]["sample"].windows)
    assert (run.config.max_length, run.held_out) == (48, "test")


def test_the_same_recipe_gives_the_same_run_and_the_same_heads(run, quick_recipe):
    again = prepare_run(Recipe.from_dict(quick_recipe))
    assert again.tasks == run.tasks
    first, second = build_model(run).state_dict(), build_model(again).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    for split, encoded in run.splits.items():
        assert encoded["sample"].windows._fingerprint == again.splits[split]["sample"].windows._fingerprint


def test_validation_is_reported_where_there_is_no_test_split(quick_recipe):
    files = quick_recipe["datasets"]["sample"]["data_files"]
    del files["test"]
    assert prepare_run(Recipe.from_dict(quick_recipe)).held_out == "validation"
    del files["validation"]
    recipe = Recipe.from_dict(quick_recipe)
    with pytest.raises(RecipeError, match="neither a test nor a validation split"):
        check_splits(prepare_run(recipe), training_arguments(recipe))


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"learning_rat": 1}, r"^training\.learning_rat: no such training argument\. Did you mean 'learning_rate'"),
        ({"num_train_epochs": "many"}, r"^training\.num_train_epochs: expected a number, found 'many'"),
        ({"num_train_epochs": [1]}, r"^training\.num_train_epochs: expected a number, found \[1\]"),
        ({"num_train_epochs": 0}, r"^training\.num_train_epochs: should be above 0, found 0"),
        ({"seed": None}, r"^training\.seed: expected a whole number, found None"),
        ({"per_device_train_batch_size": 1.5}, r"^training\.per_device_train_batch_size: expected a whole number"),
        ({"gradient_accumulation_steps": 0}, r"^training\.gradient_accumulation_steps: should be at least 1, found 0"),
        ({"output_dir": "x"}, r"^training\.output_dir: give it as `output_dir`"),
        ({"loss_weights": {}}, r"^training\.loss_weights: give it as `loss\.weights`"),
        ({"loss_scale": "rows"}, r"^training\.loss_scale: give it as `loss\.scale`"),
        ({"eval_strategy": "sometimes"}, r"^training: .*sometimes"),
        ({"early_stopping_patience": 2}, r"^training: `early_stopping_patience` needs `load_best_model_at_end"),
    ],
)
def test_a_bad_training_argument_is_named(quick_recipe, training, message):
    quick_recipe["training"] |= training
    with pytest.raises(RecipeError, match=message):
        training_arguments(Recipe.from_dict(quick_recipe))


def test_training_and_loss_sections_become_arguments(quick_recipe):
    quick_recipe["training"]["learning_rate"] = 2.0e-4
    quick_recipe["loss"] = {"weights": {"pos": 0.5}, "scale": "per_task"}
    arguments = training_arguments(Recipe.from_dict(quick_recipe))
    assert (arguments.learning_rate, arguments.max_steps) == (2.0e-4, 4)
    assert (arguments.loss_weights, arguments.loss_scale) == ({"pos": 0.5}, "per_task")
    assert arguments.output_dir == quick_recipe["output_dir"]


def test_numbers_that_yaml_reads_as_strings_are_numbers_and_no_is_a_strategy(quick_recipe):
    quick_recipe["training"] |= {"learning_rate": "2e-4", "num_train_epochs": "3", "eval_strategy": False}
    arguments = training_arguments(Recipe.from_dict(quick_recipe))
    assert (arguments.learning_rate, arguments.num_train_epochs, arguments.eval_strategy) == (2e-4, 3, "no")


def test_a_split_without_labels_is_left_out_and_missing_labels_are_told(quick_recipe, tmp_path):
    train = [{"t": "a", "x": "p", "y": 1.0}, {"t": "b", "x": None, "y": 2.0}, {"t": "c", "x": "q", "y": None}]
    hidden = [{"t": "d", "x": None, "y": None}]
    for name, rows in (("train", train), ("validation", train), ("test", hidden)):
        (tmp_path / f"{name}.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    quick_recipe["tasks"] = {"x": {"type": "text-classification"}, "y": {"type": "regression"}}
    files = {name: str(tmp_path / f"{name}.json") for name in ("train", "validation", "test")}
    labels = {"x": "x", "y": "y"}
    quick_recipe["datasets"] = {"d": {"path": "json", "data_files": files, "inputs": {"text": "t"}, "labels": labels}}
    run = prepare_run(Recipe.from_dict(quick_recipe))
    assert run.held_out == "validation"
    assert "d/test: no row has a label; the split is not used" in run.notes
    assert "d/train: 1 rows lack a label for x; the others of the row are used" in run.notes


def test_evaluation_in_training_needs_a_validation_split(quick_recipe):
    del quick_recipe["datasets"]["sample"]["data_files"]["validation"]
    quick_recipe["training"]["eval_strategy"] = "epoch"
    recipe = Recipe.from_dict(quick_recipe)
    with pytest.raises(RecipeError, match=r"^training\.eval_strategy: there is no validation split"):
        check_splits(prepare_run(recipe), training_arguments(recipe))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": "/nowhere/at/all"}, r"^encoder: /nowhere/at/all cannot be loaded"),
        ({"max_length": 100}, r"^max_length: the encoder reads at most 48 sub-words at once\. Found 100"),
    ],
)
def test_an_encoder_that_does_not_fit_is_named(quick_recipe, changes, message):
    with pytest.raises(RecipeError, match=message):
        prepare_run(Recipe.from_dict({**quick_recipe, **changes}))


def test_an_encoder_without_weights_is_named(run, encoder_folder, tmp_path):
    shutil.copytree(encoder_folder("bert"), tmp_path / "empty")
    (tmp_path / "empty" / "model.safetensors").unlink()
    run.recipe = run.recipe.model_copy(update={"encoder": str(tmp_path / "empty")})
    with pytest.raises(RecipeError, match=r"^encoder: .*/empty cannot be loaded"):
        build_model(run)


@pytest.mark.parametrize("stride", [46, 47])
def test_a_stride_without_room_for_progress_is_named(quick_recipe, tmp_path, stride):
    (tmp_path / "long.conll").write_text("# topic = a\n" + "fox\tNOUN\tO\n" * 100)
    quick_recipe["datasets"]["sample"]["data_files"] = {"train": str(tmp_path / "long.conll")}
    with pytest.raises(RecipeError, match=rf"^stride: windows hold 46 sub-words .* Found {stride}"):
        prepare_run(Recipe.from_dict({**quick_recipe, "stride": stride}))


def test_an_evaluation_takes_labels_and_limits_from_the_model(saved, quick_recipe):
    evaluation = prepare_evaluation(Recipe.from_dict(quick_recipe), load_model(str(saved)), str(saved), "validation")
    assert list(evaluation.splits) == ["validation"]
    assert evaluation.tasks["topic"].num_labels == 6
    assert evaluation.config.max_length == 48


def test_an_evaluation_on_new_labels_tells_and_does_not_crash(saved, quick_recipe, tmp_path):
    (tmp_path / "new.conll").write_text("# topic = new\nfox\tNEW\tB-NEW\n\n# topic = travel\ndog\tNOUN\tO\n")
    quick_recipe["datasets"]["sample"]["data_files"] |= {"test": str(tmp_path / "new.conll")}
    recipe = Recipe.from_dict(quick_recipe)
    model = load_model(str(saved))
    run = prepare_evaluation(recipe, model, str(saved), "test")
    assert [note.split(";")[0] for note in run.notes] == [
        f"sample/test: 1 labels of {task} do not occur in training" for task in ("pos", "ner", "topic")
    ]
    predictions = build_trainer(run, model, training_arguments(recipe)).predict_rows(run.splits["test"]["sample"])
    assert all(label != "NEW" for row in predictions["pos"] for label in row)


def test_an_evaluation_needs_the_models_tasks_and_the_split(saved, quick_recipe):
    model = load_model(str(saved))
    del quick_recipe["datasets"]["sample"]["data_files"]["test"]
    recipe = Recipe.from_dict(quick_recipe)
    with pytest.raises(RecipeError, match="none has a split 'test'"):
        prepare_evaluation(recipe, model, str(saved), "test")
    quick_recipe["tasks"]["topic"] = {"type": "multi-label-classification"}
    with pytest.raises(RecipeError, match=r"^tasks\.topic: the model in .* has no such task\. It has pos, ner, topic"):
        prepare_evaluation(Recipe.from_dict(quick_recipe), model, str(saved), "validation")


def test_every_type_of_task_and_several_datasets_make_one_run(quick_recipe, tmp_path):
    columns = {
        "a": ["fox", "dog", "river"],
        "b": ["the dog", "", "Ada"],
        "y": [1.5, None, 3.0],
        "tags": [["x"], [], ["x", "y"]],
    }
    Dataset.from_dict(columns).to_parquet(tmp_path / "pairs.parquet")
    quick_recipe["tasks"] |= {"score": {"type": "regression"}, "tags": {"type": "multi-label-classification"}}
    quick_recipe["datasets"]["pairs"] = {
        "path": "parquet",
        "data_files": {"train": str(tmp_path / "pairs.parquet"), "test": str(tmp_path / "pairs.parquet")},
        "inputs": {"text": "a", "text_pair": "b"},
        "labels": {"score": "y", "tags": "tags"},
    }
    recipe = Recipe.from_dict(quick_recipe)
    run = prepare_run(recipe)
    trainer = build_trainer(run, build_model(run), training_arguments(recipe))
    predictions = trainer.predict_rows(run.splits["test"]["pairs"])
    assert [value is None for value in predictions["score"]] == [False, True, False]
    assert len(predictions["tags"]) == 3
