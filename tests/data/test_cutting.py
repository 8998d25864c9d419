from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from small_datasets import TEXT, TOKENS, load, rows_of, write

from mtl_nlp.data.cutting import column_to_stratify_by, set_aside, slices_of
from mtl_nlp.data.loading import LoadedDataset, load_splits
from mtl_nlp.errors import DataError
from mtl_nlp.modeling.tasks_multitask import task_from_dict
from mtl_nlp.recipe.sections import DatasetRecipe

BOTH = {"topic": "y", "score": "z"}


def tickets(folder: Any, **dataset: Any) -> LoadedDataset:
    """Load 100 tickets of three classes, one of them rare, and one ticket without a class."""
    classes = ["big"] * 70 + ["small"] * 28 + ["rare", None]
    rows = [{"text": str(number), "y": name, "z": number} for number, name in enumerate(classes)]
    labels = dataset.pop("labels", BOTH)
    return load(folder, TEXT, labels, data_files=write(folder / "a.jsonl", *rows), **dataset)


def numbers(loaded: LoadedDataset) -> dict[str, list[int]]:
    return {split: [int(text) for text in rows["text"]] for split, rows in loaded.splits.items()}


def test_rows_set_aside_keep_the_shares_of_the_classes(tmp_path):
    loaded = tickets(tmp_path, validation_size=0.1, test_size=20)
    found = {split: Counter(rows["label:topic"]) for split, rows in loaded.splits.items()}
    assert found == {
        "train": {"big": 49, "small": 19, "rare": 1, None: 1},
        "validation": {"big": 7, "small": 3},
        "test": {"big": 14, "small": 6},
    }
    assert sorted(itertools.chain(*numbers(loaded).values())) == list(range(100))


def test_rows_set_aside_depend_only_on_their_own_size_and_the_column(tmp_path):
    whole = numbers(tickets(tmp_path, validation_size=0.1, test_size=0.2, max_rows={"test": 20}))
    alone = numbers(tickets(tmp_path, test_size=0.2, labels={"score": "z"}, stratify_by_column="y"))
    few = numbers(tickets(tmp_path, validation_size=0.1, test_size=0.1, on_missing_text="error"))
    assert set(whole["test"]) == set(alone["test"]) > set(few["test"])
    assert whole["validation"] == few["validation"]
    plain = numbers(tickets(tmp_path, test_size=0.2, stratify_by_column=False))
    assert plain["test"] == numbers(tickets(tmp_path, test_size=0.2, labels={"score": "z"}))["test"]
    assert set(plain["test"]) != set(whole["test"])


def test_rows_set_aside_without_classes_are_those_of_train_test_split(tmp_path):
    """Recipes of earlier releases keep their validation rows."""
    loaded = tickets(tmp_path, validation_size=0.25, labels={"score": "z"})
    permutation = np.random.default_rng(0).permutation(100).tolist()
    assert numbers(loaded) == {"train": permutation[25:], "validation": permutation[:25]}


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_one_split_has_the_same_rows_alone(tmp_path, split):
    options = {"validation_size": 0.1, "test_size": 0.1}
    whole = numbers(tickets(tmp_path, **options))
    recipe = DatasetRecipe(path="json", data_files=str(tmp_path / "a.jsonl"), inputs=TEXT, labels=BOTH, **options)
    types = {"topic": "text-classification", "score": "regression"}
    tasks = {name: task_from_dict({"name": name, "type": given}) for name, given in types.items()}
    alone = load_splits("d", recipe, tasks, only=split)
    assert numbers(alone) == {split: whole[split]}
    assert column_to_stratify_by(recipe, tasks) == "y"


def test_slices_cut_splits_as_datasets_does(tmp_path):
    splits = {"train": "train[:80%]", "validation": "train[80%:90]", "test": "train[-10:]"}
    found = numbers(tickets(tmp_path, splits=splits))
    assert found == {"train": [*range(80)], "validation": [*range(80, 90)], "test": [*range(90, 100)]}
    joined = tickets(tmp_path, splits={"train": "train[:5]+train[95%:]"}, validation_size=2)
    assert sorted(itertools.chain(*numbers(joined).values())) == [0, 1, 2, 3, 4, 95, 96, 97, 98, 99]
    assert joined.notes == []
    options = {"splits": {"train": "train[:5]+train[95%:]"}, "validation_size": 2}
    again = load(tmp_path, TEXT, BOTH, data_files="a.jsonl", **options)
    for split, rows in joined.splits.items():
        assert rows._fingerprint == again.splits[split]._fingerprint


def test_slices_of_column_files_and_rows_in_two_splits(tmp_path):
    write(tmp_path / "a.conll", "a N", "", "b N", "", "c N")
    options = {"path": "a.conll", "columns": ["tokens", "upos"]}
    loaded = load(tmp_path, TOKENS, {"pos": "upos"}, **options, splits={"validation": "train[1:]"})
    assert [row["tokens"] for row in rows_of(loaded, "validation")] == [["b"], ["c"]]
    assert loaded.notes == ["d: 2 rows are in both train and validation; scores on validation overstate the model"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"splits": {"train": "tran[:80%]"}}, r"^datasets\.d\.splits\.train: no split 'tran'\. Did you mean 'train'"),
        ({"splits": {"train": "train[:80"}}, r"^datasets\.d\.splits\.train: expected a slice such as .*'train\[:80'"),
        ({"splits": {"test": "train[100:]"}}, r"^datasets\.d\.splits\.test: 'train\[100:\]' has no rows \(train: 100 "),
        ({"splits": {"test": "train[9:1]"}}, r"^datasets\.d\.splits\.test: 'train\[9:1\]' has no rows"),
        ({"validation_size": 50, "test_size": 50}, r"^datasets\.d\.validation_size and test_size: 100 of 100 rows"),
        (
            {"test_size": 0.1, "splits": {"test": "train[:9]"}},
            r"^datasets\.d\.test_size: needs a train split and no te",
        ),
        ({"test_size": 9, "stratify_by_column": "yy"}, r"^datasets\.d\.stratify_by_column: no column 'yy'\. Did you"),
        (
            {"test_size": 9, "stratify_by_column": "w"},
            r"^datasets\.d\.stratify_by_column: .* names or numbers\. Found l",
        ),
    ],
)
def test_cut_that_is_not_possible_is_refused(tmp_path, options, message):
    rows = [{"text": str(number), "y": "x", "z": 1, "w": ["x"]} for number in range(100)]
    with pytest.raises(DataError, match=message):
        load(tmp_path, TEXT, BOTH, data_files=write(tmp_path / "a.jsonl", *rows), **options)


def test_bad_row_of_a_cut_split_is_named_by_its_place_in_the_file(tmp_path):
    rows = [{"text": str(number), "y": "x", "z": 1e39 if number == 9 else 1.0} for number in range(10)]
    file = write(tmp_path / "a.jsonl", *rows)
    with pytest.raises(DataError, match=r"^d/train, row 9, column 'z': .*1e\+39"):
        load(tmp_path, TEXT, BOTH, data_files=file, splits={"train": "train[:5]", "test": "train[8:]"})
    with pytest.raises(DataError, match=r"^d/pool, row 9, column 'z': "):
        load(tmp_path, TEXT, BOTH, data_files={"pool": file}, splits={"train": "pool[8:]"})


def test_stored_name_of_a_split_is_not_read_as_a_slice():
    recipe = DatasetRecipe(path="o/n", inputs=TEXT, labels=BOTH, splits={"train": "dev-clean", "validation": "a+b"})
    found = slices_of("d", recipe, {"dev-clean": 3, "a+b": 2})
    assert [(parts[0].source, parts[0].stop) for parts in found.values()] == [("dev-clean", 3), ("a+b", 2)]


def test_many_small_classes_are_set_aside_at_random():
    rows = Dataset.from_dict({"n": range(50)})
    parts = set_aside("d", rows, {"test": 0.2}, np.arange(50))
    assert len(parts["test"]) == 10
    assert parts["test"]["n"][:] != sorted(parts["test"]["n"][:])
