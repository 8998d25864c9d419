from __future__ import annotations

from pathlib import Path

import pytest
from small_datasets import TEXT, load, rows_of, write

from mtl_nlp.errors import DataError

COUNTS = {"repaired": 0, "unlabelled_words": 0}


def test_json_lines_become_canonical_rows(tmp_path):
    row = {"words": ["Ada", "runs"], "upos": ["PROPN", "VERB"], "y": 3, "more": 1}
    file = write(tmp_path / "a.jsonl", row, {**row, "upos": None, "y": None})
    loaded = load(tmp_path, {"tokens": "words"}, {"pos": "upos", "score": "y"}, data_files={"train": file})
    first, second = rows_of(loaded)
    assert first == {"tokens": ["Ada", "runs"], "label:pos": ["PROPN", "VERB"], "label:score": 3.0} | COUNTS
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
        (
            {"train": "a.jsonl"},
            {"validation_size": 1.5},
            r"^datasets\.d\.validation_size: .*between 0 and 1.*Found 1\.5",
        ),
        ({"train": "a.jsonl"}, {"validation_size": 9}, r"^datasets\.d\.validation_size: "),
        (
            {"train": "a.jsonl", "validation": "a.jsonl"},
            {"validation_size": 1},
            "needs a train split and no val",
        ),
        ({"test": "a.jsonl"}, {}, r"^datasets\.d: no split 'train' to train on"),
        (
            {"train": "a.jsonl"},
            {"splits": {"test": "tets"}},
            r"^datasets\.d\.splits\.test: no split 'tets'\. Valid: train",
        ),
    ],
)
def test_unloadable_data_is_named_with_its_key(tmp_path, files, more, message):
    write(tmp_path / "a.jsonl", {"text": "a", "y": 1}, {"text": "b", "y": 2})
    write(tmp_path / "empty.jsonl")
    write(tmp_path / "broken.jsonl", {"text": "a", "y": 1}, '{"text":')
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path, TEXT, {"score": "y"}, data_files=files, **more)
    assert "\n" not in str(caught.value)


def numbered(folder: Path, count: int) -> str:
    return write(folder / "a.jsonl", *({"text": str(number), "y": number} for number in range(count)))


def test_rows_are_drawn_once_in_their_order_and_a_smaller_draw_is_a_part_of_a_larger_one(tmp_path):
    files = {split: numbered(tmp_path, 50) for split in ("train", "validation", "test")}
    few, again, more = (
        load(tmp_path, TEXT, {"score": "y"}, data_files=files, max_rows={"train": n, "validation": 60})
        for n in (10, 10, 30)
    )
    numbers = few.splits["train"]["label:score"][:]
    assert numbers == sorted(numbers) == again.splits["train"]["label:score"][:]
    assert len(numbers) == 10
    assert numbers != list(range(10))
    assert set(numbers) < set(more.splits["train"]["label:score"][:])
    assert few.splits["train"]._fingerprint == again.splits["train"]._fingerprint
    assert [len(few.splits[split]) for split in ("validation", "test")] == [50, 50]
    assert few.drawn_from == {"train": 50}


def test_rows_are_drawn_after_validation_rows_were_set_aside(tmp_path):
    file = numbered(tmp_path, 40)
    sizes = {"validation_size": 20, "max_rows": {"train": 5, "validation": 8}}
    loaded = load(tmp_path, TEXT, {"score": "y"}, data_files={"train": file}, **sizes)
    train, validation = (set(loaded.splits[split]["text"][:]) for split in ("train", "validation"))
    assert (len(train), len(validation), train & validation) == (5, 8, set())
    assert loaded.drawn_from == {"train": 20, "validation": 20}


def test_validation_rows_of_a_stream_are_drawn(tmp_path):
    files = {split: numbered(tmp_path, 9) for split in ("train", "validation")}
    loaded = load(tmp_path, TEXT, {"score": "y"}, data_files=files, streaming=True, max_rows={"validation": 4})
    assert (len(loaded.splits["validation"]), loaded.num_rows) == (4, 9)
