from __future__ import annotations

import json

import pytest
from toys import build_config

from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.run.build import build_model
from mtl_nlp.run.notes import describe_padding, describe_words, one_line_per_dataset
from mtl_nlp.run.prepare import prepare, prepare_evaluation


def test_split_without_labels_is_skipped_and_missing_labels_are_reported(quick_recipe, tmp_path):
    train = [{"t": "a", "x": "p", "y": 1.0}, {"t": "b", "x": None, "y": 2.0}, {"t": "c", "x": "q", "y": None}]
    hidden = [{"t": "d", "x": None, "y": None}]
    for name, rows in (("train", train), ("validation", train), ("test", hidden)):
        (tmp_path / f"{name}.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    quick_recipe["tasks"] = {"x": {"type": "text-classification"}, "y": {"type": "regression"}}
    files = {name: str(tmp_path / f"{name}.json") for name in ("train", "validation", "test")}
    labels = {"x": "x", "y": "y"}
    quick_recipe["datasets"] = {"d": {"path": "json", "data_files": files, "inputs": {"text": "t"}, "labels": labels}}
    run = prepare(Recipe.from_dict(quick_recipe))
    assert run.held_out == "validation"
    assert "d/test: no row has a label; the split is not used" in run.notes
    assert "d/train: 1 row has no label for x; the other labels are used" in run.notes


def test_test_split_without_labels_of_a_task_gets_the_note_of_a_missing_column(quick_recipe, tmp_path):
    """The labels of the task are null in every row, as in hidden test data."""
    row = {"tokens": ["it", "rained"], "ner": ["O", "B-X"], "pos": ["PRON", None]}
    for name, rows in (("train", [row] * 4), ("validation", [row]), ("test", [{**row, "ner": [None, None]}] * 2)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    quick_recipe["tasks"] = {
        "ner": {"type": "token-classification", "scheme": "iob2"},
        "pos": {"type": "token-classification"},
    }
    files = {name: str(tmp_path / f"{name}.jsonl") for name in ("train", "validation", "test")}
    labels = {"ner": "ner", "pos": "pos"}
    quick_recipe["datasets"] = {
        "d": {"path": "json", "data_files": files, "inputs": {"tokens": "tokens"}, "labels": labels}
    }
    run = prepare(Recipe.from_dict(quick_recipe))
    assert run.splits["test"]["d"].feeds == ("pos",) and run.splits["train"]["d"].feeds == ("ner", "pos")
    assert run.held_out == "validation"
    assert "scored on validation, because test has no labels for ner" in run.notes
    assert "d/test: 2 rows have no label for ner; the other labels are used" in run.notes
    assert "d: 4 (train), 2 (test) words have no label; not trained on and not scored" in run.notes
    assert "d/validation: 1 word has no label; not trained on and not scored" in run.notes
    model = build_model(run)
    model.save_pretrained(tmp_path / "saved")
    run.tokenizer.save_pretrained(tmp_path / "saved")
    recipe = Recipe.from_dict(quick_recipe)
    again = prepare_evaluation(recipe, model, str(tmp_path / "saved"))
    assert again.held_out == "validation"
    assert "scored on validation, because test has no labels for ner" in again.notes
    given = prepare_evaluation(recipe, model, str(tmp_path / "saved"), "test")
    assert (given.held_out, "test: no dataset has labels for ner; mtl_score excludes this task" in given.notes) == (
        "test",
        True,
    )
    del quick_recipe["datasets"]["d"]["data_files"]["test"]
    without = prepare_evaluation(Recipe.from_dict(quick_recipe), model, str(tmp_path / "saved"))
    assert without.held_out == "validation"
    assert "scored on validation, because there is no test split with labels" in without.notes


def test_drawn_rows_are_reported_and_only_their_labels_are_in_the_label_space(quick_recipe, tmp_path):
    rows = [{"tokens": ["a"], "topic": f"t{number}"} for number in range(8)]
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    quick_recipe["tasks"] = {"topic": {"type": "text-classification"}}
    quick_recipe["datasets"] = {
        "d": {
            "path": "json",
            "data_files": {split: str(tmp_path / f"{split}.jsonl") for split in ("train", "test")},
            "inputs": {"tokens": "tokens"},
            "labels": {"topic": "topic"},
            "max_rows": {"train": 3, "test": 5},
        }
    }
    run = prepare(Recipe.from_dict(quick_recipe))
    assert {"d: 3 of 8 training rows drawn", "d: 5 of 8 test rows drawn"} <= set(run.notes)
    assert run.splits["train"]["d"].num_rows == 3
    assert set(run.tasks["topic"].labels) == set(run.splits["train"]["d"].references["topic"])
    assert any("labels of topic do not occur in training" in note for note in run.notes)


def test_a_padding_token_that_is_not_the_encoders_is_reported(tokenizers):
    tokenizer = tokenizers["wordpiece"]
    (note,) = describe_padding(tokenizer, build_config("roberta"))
    assert note.startswith("the tokenizer pads with '[PAD]' (0), and the `pad_token_id` of the encoder is 1;")
    assert describe_padding(tokenizer, build_config("bert")) == []


@pytest.mark.parametrize(
    ("texts", "share"),
    [
        ([["Ada", "ca", "n't", "log", "in", ".", ""], ["漢", "字"]], None),
        ([["我们", "去", "北京"], ["好"]], "50% of the words, such as '我们'"),
        ([["สวัสดี", "ครับ"]], "100% of the words, such as 'สวัสดี'"),
        ([["Ada", "don't", "."]], '33% of the words, such as "don\'t"'),
        ([[]], None),
    ],
)
def test_words_that_the_pipeline_would_not_find_are_reported(tokenizers, texts, share):
    notes = describe_words("d", texts, tokenizers["wordpiece"])
    assert [note.partition(",")[0] + "," + note.split(",")[1] for note in notes] == (
        [] if share is None else [f"d: {share}"]
    )


def test_notes_on_several_splits_of_a_dataset_are_one_line():
    notes = ["d/train: 3 texts cut", "d/train: 1 text empty", "e/test: 2 texts cut", "d/test: 2 texts cut", "other"]
    assert one_line_per_dataset(notes) == [
        "d: 3 (train), 2 (test) texts cut",
        "d/train: 1 text empty",
        "e/test: 2 texts cut",
        "other",
    ]
