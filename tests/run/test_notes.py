from __future__ import annotations

import json

import pytest
from families import build_family_config
from tokenizers import processors
from toys import build_tokenizer
from transformers import AutoModel, pipeline

from mtl_nlp.errors import RecipeError
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.run.arguments import training_arguments
from mtl_nlp.run.build import build_model
from mtl_nlp.run.defaults import chosen_defaults
from mtl_nlp.run.prepare import prepare


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
    assert "d/train: 1 rows have no label for x; their remaining labels are used" in run.notes


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


def test_a_decoder_reads_the_last_sub_word_of_a_text_and_its_words_see_the_left(quick_recipe, tmp_path):
    tokenizer = build_tokenizer("bpe")
    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel()  # no special tokens, like GPT-2
    tokenizer.pad_token, tokenizer.eos_token = None, "[SEP]"
    AutoModel.from_config(build_family_config("gpt2")).save_pretrained(tmp_path / "gpt2")
    tokenizer.save_pretrained(tmp_path / "gpt2")
    del quick_recipe["tasks"]["topic"]["pooling"]
    recipe = Recipe.from_dict({**quick_recipe, "encoder": str(tmp_path / "gpt2")})
    run = prepare(recipe)
    assert run.tasks["topic"].pooling == "last"
    seen = "a gpt2 encoder reads a text from left to right, so that no word sees the words on its right"
    assert [note.partition(":")[0] for note in run.notes if seen in note] == ["pos", "ner"]
    assert not any("stock class" in note for note in run.notes)
    described = [default.describe() for default in chosen_defaults(run, training_arguments(recipe))]
    expected = "tasks.topic.pooling is last: no first sub-word stands for a text in a gpt2 encoder"
    assert expected in described
    answer = pipeline("multitask", model=build_model(run).eval(), tokenizer=run.tokenizer)
    texts = ["", "The fox", "Ada Lovelace lives in Paris and works for the company ."]
    alone, together = [answer(text) for text in texts], answer(texts, batch_size=3)
    for one, other in zip(alone, together, strict=True):
        assert [word["word"] for word in one["pos"]] == [word["word"] for word in other["pos"]]
        assert one["topic"][0]["score"] == pytest.approx(other["topic"][0]["score"], abs=1e-5)
    quick_recipe["tasks"]["topic"]["pooling"] = "cls"
    with pytest.raises(RecipeError, match=r"^tasks: Task 'topic': `pooling` should be last or mean for a gpt2"):
        prepare(Recipe.from_dict({**quick_recipe, "encoder": str(tmp_path / "gpt2")}))
