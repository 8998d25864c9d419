from __future__ import annotations

import pytest
from small_datasets import TEXT, load, rows_of, write

from mtl_nlp.errors import DataError


def test_json_lines_become_canonical_rows(tmp_path):
    row = {"words": ["Ada", "runs"], "upos": ["PROPN", "VERB"], "y": 3, "more": 1}
    file = write(tmp_path / "a.jsonl", row, {**row, "upos": None, "y": None})
    loaded = load(tmp_path, {"tokens": "words"}, {"pos": "upos", "score": "y"}, data_files={"train": file})
    first, second = rows_of(loaded)
    assert first == {"tokens": ["Ada", "runs"], "label:pos": ["PROPN", "VERB"], "label:score": 3.0, "repaired": 0}
    assert (second["label:pos"], second["label:score"]) == (None, None)
    assert loaded.class_names == {"pos": None, "score": None}


def test_splits_are_found_by_the_names_of_the_dataset(tmp_path):
    files = {name: write(tmp_path / f"{name}.jsonl", {"text": name, "y": 1}) for name in ("learn", "dev", "test")}
    splits = {"train": "learn", "validation": "dev"}
    loaded = load(tmp_path, TEXT, {"score": "y"}, data_files=files, splits=splits)
    assert {split: rows["text"][0] for split, rows in loaded.splits.items()} == {
        "train": "learn",
        "validation": "dev",
        "test": "test",
    }


@pytest.mark.parametrize(("size", "rows"), [(0.25, 2), (3, 3)])
def test_validation_split_can_be_set_aside(tmp_path, size, rows):
    file = write(tmp_path / "a.jsonl", *({"text": str(number), "y": number} for number in range(8)))
    once, twice = (
        load(tmp_path, TEXT, {"score": "y"}, data_files={"train": file}, validation_size=size).splits for _ in range(2)
    )
    assert len(once["validation"]) == rows
    assert sorted([*once["train"]["text"], *once["validation"]["text"]]) == list("01234567")
    assert once["validation"]["text"][:] == twice["validation"]["text"][:]


@pytest.mark.parametrize(
    ("files", "more", "message"),
    [
        ({"train": "a.jsonl"}, {"validation_size": 1.5}, r"^datasets\.d\.validation_size: .*test_size=1\.5"),
        ({"train": "a.jsonl"}, {"validation_size": 9}, r"^datasets\.d\.validation_size: "),
        (
            {"train": "a.jsonl", "validation": "a.jsonl"},
            {"validation_size": 1},
            "needs a train split and no val",
        ),
        ({"test": "a.jsonl"}, {}, r"^datasets\.d: no split 'train' to train on"),
        ({"train": "a.jsonl"}, {"splits": {"test": "tets"}}, r"^datasets\.d\.splits\.test: no split 'tets'.*'train'"),
    ],
)
def test_unloadable_data_is_named_with_its_key(tmp_path, files, more, message):
    write(tmp_path / "a.jsonl", {"text": "a", "y": 1}, {"text": "b", "y": 2})
    write(tmp_path / "empty.jsonl")
    write(tmp_path / "broken.jsonl", {"text": "a", "y": 1}, '{"text":')
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path, TEXT, {"score": "y"}, data_files=files, **more)
    assert "\n" not in str(caught.value)
