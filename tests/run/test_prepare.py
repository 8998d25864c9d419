from __future__ import annotations

import json

import pytest
import yaml
from datasets import Dataset

import mtl_nlp
from mtl_nlp.errors import CheckpointError, RecipeError
from mtl_nlp.hub.loading import load_model
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.run.arguments import training_arguments
from mtl_nlp.run.build import build_model, build_trainer, check_splits
from mtl_nlp.run.defaults import chosen_defaults
from mtl_nlp.run.prepare import _pair_tasks, prepare, prepare_evaluation
from mtl_nlp.training.checkpoints import check_same_model


def test_a_recipe_can_be_an_object_a_file_or_a_dict(quick_recipe, tmp_path):
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(quick_recipe, sort_keys=False), encoding="utf-8")
    for recipe in (quick_recipe, tmp_path / "recipe.yaml", Recipe.from_dict(quick_recipe)):
        assert list(mtl_nlp.prepare(recipe).tasks) == ["pos", "ner", "topic"]
    with pytest.raises(
        RecipeError, match=r"^A recipe should be a Recipe, the path of a file, or a dict\. Found list\.$"
    ):
        mtl_nlp.prepare([quick_recipe])


def test_a_recipe_with_own_code_is_prepared_and_trained_only_if_the_code_is_allowed(quick_recipe, tmp_path):
    (tmp_path / "code_to_allow.py").write_text("LOADED = True\n")
    quick_recipe |= {"imports": ["code_to_allow"], "encoder": "/nowhere/at/all"}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(quick_recipe, sort_keys=False), encoding="utf-8")
    for run in (mtl_nlp.prepare, mtl_nlp.train):
        with pytest.raises(RecipeError, match=r"allow it: --allow-code .*, allow_code=True in Python\.$"):
            run(tmp_path / "recipe.yaml")
        with pytest.raises(RecipeError, match=r"^encoder: /nowhere/at/all"):
            run(tmp_path / "recipe.yaml", allow_code=True)


def test_a_recipe_becomes_tasks_with_labels_and_encoded_splits(run):
    assert {name: task.num_labels for name, task in run.tasks.items()} == {"pos": 17, "ner": 7, "topic": 6}
    assert list(run.splits) == ["train", "validation", "test"]
    assert all(list(datasets) == ["sample"] for datasets in run.splits.values())
    assert len(run.mixture) == len(run.splits["train"]["sample"].windows)
    assert (run.config.max_length, run.held_out) == (48, "test")


def test_validation_is_scored_without_a_test_split(quick_recipe):
    files = quick_recipe["datasets"]["sample"]["data_files"]
    del files["test"]
    assert prepare(Recipe.from_dict(quick_recipe)).held_out == "validation"
    del files["validation"]
    recipe = Recipe.from_dict(quick_recipe)
    with pytest.raises(RecipeError, match="neither a test nor a validation split"):
        check_splits(prepare(recipe), training_arguments(recipe))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": "/nowhere/at/all"}, r"^encoder: /nowhere/at/all cannot be loaded"),
        ({"max_length": 100}, r"^max_length: the encoder reads at most 48 sub-words at once\. Found 100"),
    ],
)
def test_an_encoder_that_does_not_fit_is_named(quick_recipe, changes, message):
    with pytest.raises(RecipeError, match=message):
        prepare(Recipe.from_dict({**quick_recipe, **changes}))


def test_a_dataset_without_the_keys_of_its_format_is_named_before_anything_is_loaded(saved, quick_recipe):
    recipe = Recipe.from_dict({**quick_recipe, "encoder": "/nowhere/at/all"})
    del quick_recipe["datasets"]["sample"]["columns"]
    bad = Recipe.from_dict({**quick_recipe, "encoder": "/nowhere/at/all"})
    message = r"^datasets\.sample: `columns` is needed for `path: conll`"
    with pytest.raises(RecipeError, match=message):
        prepare(bad)
    with pytest.raises(RecipeError, match=message):
        prepare_evaluation(bad, load_model(str(saved)), "/nowhere/at/all", "test")
    with pytest.raises(RecipeError, match=r"^encoder: "):
        prepare(recipe)


@pytest.mark.parametrize("stride", [46, 47])
def test_too_large_stride_is_refused(quick_recipe, tmp_path, stride):
    (tmp_path / "long.conll").write_text("# topic = a\n" + "fox\tNOUN\tO\n" * 100)
    quick_recipe["datasets"]["sample"]["data_files"] = {"train": str(tmp_path / "long.conll")}
    with pytest.raises(RecipeError, match=rf"^stride: should be below 46, .* sub-words .* Found {stride}"):
        prepare(Recipe.from_dict({**quick_recipe, "stride": stride}))


def test_an_evaluation_takes_labels_and_limits_from_the_model(saved, quick_recipe):
    evaluation = prepare_evaluation(Recipe.from_dict(quick_recipe), load_model(str(saved)), str(saved), "validation")
    assert list(evaluation.splits) == ["validation"]
    assert evaluation.tasks["topic"].num_labels == 6
    assert evaluation.config.max_length == 48


def test_evaluation_reports_new_labels_and_does_not_fail(saved, quick_recipe, tmp_path):
    (tmp_path / "new.conll").write_text("# topic = new\nfox\tNEW\tB-NEW\n\n# topic = travel\ndog\tNOUN\tO\n")
    quick_recipe["datasets"]["sample"]["data_files"] |= {"test": str(tmp_path / "new.conll")}
    recipe = Recipe.from_dict(quick_recipe)
    model = load_model(str(saved))
    run = prepare_evaluation(recipe, model, str(saved), "test")
    assert [note.split(";")[0] for note in run.notes] == [
        f"sample/test: 1 label of {task} does not occur in training ({label})"
        for task, label in (("pos", "NEW"), ("ner", "B-NEW"), ("topic", "new"))
    ]
    predictions = build_trainer(run, model, training_arguments(recipe)).predict_rows(run.splits["test"]["sample"])
    assert all(label != "NEW" for row in predictions["pos"] for label in row)


def test_an_evaluation_needs_the_models_tasks_and_the_split(saved, quick_recipe):
    model = load_model(str(saved))
    del quick_recipe["datasets"]["sample"]["data_files"]["test"]
    recipe = Recipe.from_dict(quick_recipe)
    with pytest.raises(RecipeError, match="no dataset has a split 'test'"):
        prepare_evaluation(recipe, model, str(saved), "test")
    quick_recipe["tasks"]["topic"] = {"type": "multi-label-classification"}
    message = (
        r"^tasks\.topic: the model in .* has no multi-label-classification task of this name\. The model has "
        r"pos \(token-classification\), ner \(token-classification\), topic \(text-classification\)\.$"
    )
    with pytest.raises(RecipeError, match=message):
        prepare_evaluation(Recipe.from_dict(quick_recipe), model, str(saved), "validation")


@pytest.mark.parametrize(
    ("trained", "before", "kept"), [([], [], ["nli"]), (["nli"], [], []), (["nli", "x"], ["nli", "x"], ["x", "nli"])]
)
def test_tasks_of_pairs_are_known(quick_recipe, trained, before, kept):
    pairs = {"path": "json", "data_files": {"train": "a.jsonl"}, "inputs": {"text": "a", "text_pair": "b"}}
    pairs["labels"] = {"nli": "label", "topic": "topic"}
    quick_recipe["tasks"]["nli"] = {"type": "text-classification"}
    recipe = Recipe.from_dict({**quick_recipe, "datasets": {**quick_recipe["datasets"], "pairs": pairs}})
    assert _pair_tasks(recipe, trained, before) == kept


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
    run = prepare(recipe)
    trainer = build_trainer(run, build_model(run), training_arguments(recipe))
    predictions = trainer.predict_rows(run.splits["test"]["pairs"])
    assert [value is None for value in predictions["score"]] == [False, True, False]
    assert len(predictions["tags"]) == 3


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("kept", [["topic"], ["pos", "topic"]])
def test_trained_head_keeps_its_pooling_unless_the_recipe_names_one(quick_recipe, tmp_path, pooling, kept):
    quick_recipe["tasks"]["topic"]["pooling"] = pooling
    run = prepare(Recipe.from_dict(quick_recipe))
    build_model(run).save_pretrained(tmp_path / "saved")
    run.tokenizer.save_pretrained(tmp_path / "saved")
    sample = quick_recipe["datasets"]["sample"]
    sample["labels"] = {name: sample["labels"][name] for name in kept}
    tasks = {name: quick_recipe["tasks"][name] for name in kept} | {"topic": {"type": "text-classification"}}
    recipe = {**quick_recipe, "encoder": str(tmp_path / "saved"), "tasks": tasks}
    loaded = Recipe.from_dict(recipe)
    run = prepare(loaded)
    assert run.tasks["topic"].pooling == pooling
    assert not any("pooling" in default.key for default in chosen_defaults(run, training_arguments(loaded)))
    tasks["topic"]["pooling"] = {"cls": "mean", "mean": "cls"}[pooling]
    with pytest.raises(RecipeError, match=r"^tasks\.topic: .* different options"):
        prepare(Recipe.from_dict(recipe))


def test_a_resumed_run_keeps_the_order_of_the_checkpoints_labels(quick_recipe, tmp_path):
    lines = "".join(json.dumps({"text": "a", "y": number}) + "\n" for number in (0, 1, 2, 10))
    (tmp_path / "a.jsonl").write_text(lines)
    quick_recipe["tasks"] = {"y": {"type": "text-classification"}}
    files = {split: str(tmp_path / "a.jsonl") for split in ("train", "test")}
    quick_recipe["datasets"] = {
        "d": {"path": "json", "data_files": files, "inputs": {"text": "text"}, "labels": {"y": "y"}}
    }
    recipe = Recipe.from_dict(quick_recipe)
    run = prepare(recipe)
    assert run.tasks["y"].labels == ("0", "1", "2", "10")
    run.config.tasks = [run.tasks["y"].with_labels(["0", "1", "10", "2"]).to_dict()]
    run.config.save_pretrained(tmp_path / "checkpoint-1")
    resumed = prepare(recipe, tmp_path / "checkpoint-1")
    assert resumed.tasks["y"].labels == ("0", "1", "10", "2")
    assert resumed.splits["train"]["d"].windows["label:y"][:] == [0, 1, 3, 2]
    run.config.tasks = [run.tasks["y"].with_labels(["0", "1"]).to_dict()]
    run.config.save_pretrained(tmp_path / "checkpoint-1")
    assert prepare(recipe, tmp_path / "checkpoint-1").tasks["y"].labels == ("0", "1", "2", "10")


@pytest.mark.parametrize("weights", ["balanced", {"a": 1.0, "b": 2.0}])
def test_trained_head_keeps_its_labels_and_weights_with_data_that_lack_a_class(quick_recipe, tmp_path, weights):
    rows = [json.dumps({"text": "a", "y": label}) + "\n" for label in "aab"]
    (tmp_path / "a.jsonl").write_text("".join(rows))
    (tmp_path / "less.jsonl").write_text("".join(rows[:2]))
    quick_recipe["tasks"] = {"y": {"type": "text-classification", "class_weights": weights}}
    dataset = {"path": str(tmp_path / "a.jsonl"), "inputs": {"text": "text"}, "labels": {"y": "y"}}
    run = prepare(Recipe.from_dict({**quick_recipe, "datasets": {"d": dataset}}))
    build_model(run).save_pretrained(tmp_path / "saved")
    run.tokenizer.save_pretrained(tmp_path / "saved")
    less = {**quick_recipe, "datasets": {"d": {**dataset, "path": str(tmp_path / "less.jsonl")}}}
    assert prepare(Recipe.from_dict({**less, "encoder": str(tmp_path / "saved")})).tasks["y"] == run.tasks["y"]
    if weights == "balanced":  # with other labels, a resumed run learns its weights anew, and is then refused
        resumed = prepare(Recipe.from_dict(less), tmp_path / "saved")
        assert (resumed.tasks["y"].labels, resumed.tasks["y"].balanced_weights) == (("a",), {"a": 1.0})
        with pytest.raises(CheckpointError, match=r"`labels` of task 'y' was \['a', 'b'\] and is now \['a'\]"):
            check_same_model(tmp_path / "saved", build_model(resumed))
