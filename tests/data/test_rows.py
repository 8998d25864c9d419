"""Columns of rows, gathered from Arrow, are those of the rows as dicts."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from datasets import Dataset, Features, List, Value, concatenate_datasets

from mtl_nlp.data import rows as module
from mtl_nlp.data.rows import FlatRows, Rows, columns_of
from mtl_nlp.modeling.ragged_multitask import Ragged

FEATURES = Features(
    {
        "input_ids": List(Value("int32")),
        "length": Value("int32"),
        "label:topic": Value("int32"),
        "weight": Value("float32"),
    }
)

NAMES = set(FEATURES)


def dataset(number: int, start: int = 0) -> Dataset:
    """Return rows of different lengths, every third without a label."""
    return Dataset.from_list(
        [
            {
                "input_ids": list(range(index, index + index % 4)),
                "length": index % 4,
                "label:topic": None if index % 3 == 0 else index,
                "weight": index / 2,
            }
            for index in range(start, start + number)
        ],
        features=FEATURES,
    )


def plain(columns: dict) -> dict[str, dict[int, object]]:
    """Return the values of columns by name and row."""
    return {
        name: {row: np.asarray(value).tolist() for row, value in zip(rows.tolist(), values, strict=True)}
        for name, (rows, values) in columns.items()
    }


def expected(rows: list[dict]) -> dict[str, dict[int, object]]:
    found: dict[str, dict[int, object]] = {}
    for number, row in enumerate(rows):
        for name, value in row.items():
            if value is not None and name != "source":
                found.setdefault(name, {})[number] = value
    return found


@pytest.mark.parametrize("copied_bytes", [0, 2**20], ids=["chunks", "one chunk"])
def test_columns_are_those_of_the_dicts(monkeypatch, copied_bytes):
    monkeypatch.setattr(module, "_COPIED_BYTES", copied_bytes)
    flat = FlatRows(concatenate_datasets([dataset(5), dataset(7, 5), dataset(3, 12)]))
    for indices in ([0, 14, 3, 3, 6, 11], [4], list(range(15))):
        rows = flat.__getitems__(indices)
        assert [row["length"] for row in rows] == [flat[index]["length"] for index in indices]
        assert plain(rows.read(NAMES)) == expected(list(rows))
        without_source = [{k: v for k, v in row.items() if k != "source"} for row in rows]
        assert plain(columns_of(without_source, NAMES)) == plain(rows.read(NAMES))


def test_selected_rows_are_read_at_their_places():
    selected = dataset(10).select([7, 2, 5])
    rows = FlatRows(selected).__getitems__([2, 0])
    assert plain(rows.read(NAMES)) == expected([selected[2], selected[0]])


def test_rows_of_several_datasets_keep_their_order():
    datasets = {0: FlatRows(dataset(6)), 1: FlatRows(dataset(4, 20).remove_columns("label:topic"))}
    rows = Rows(datasets, np.array([1, 0, 1, 0]), np.array([3, 1, 0, 5]))
    assert [row["source"] for row in rows] == [1, 0, 1, 0]
    assert plain(rows.read(NAMES)) == expected(list(rows))
    assert rows.read(NAMES)["label:topic"].rows.tolist() == [1, 3]


def test_a_column_without_any_value_is_empty():
    rows = FlatRows(dataset(4)).__getitems__([0, 3])
    assert rows.read(NAMES)["label:topic"].rows.tolist() == []
    assert columns_of([dict(row) for row in rows], NAMES)["label:topic"].rows.tolist() == []


def test_a_worker_gets_the_dataset_without_arrays():
    flat = FlatRows(dataset(6))
    wanted = plain(flat.__getitems__([5, 1]).read(NAMES))
    copied = pickle.loads(pickle.dumps(flat))
    assert "_chunks" not in vars(copied)
    assert plain(copied.__getitems__([5, 1]).read(NAMES)) == wanted


def test_lists_of_floats_stay_floats():
    rows = [{"label:tags": [0.0, 1.0]}, {"label:tags": None}, {"label:tags": [0.5, 0.0]}]
    columns = columns_of(rows, {"label:tags"})
    values = columns["label:tags"].values
    assert isinstance(values, Ragged) and values.values.tolist() == [0.0, 1.0, 0.5, 0.0]
    assert columns["label:tags"].rows.tolist() == [0, 2]


def test_numbers_of_numpy_and_columns_that_are_not_asked_for_are_accepted():
    rows = [{"label:topic": np.int64(1), "text": "hello", "input_ids": np.array([4, 5])}, {"input_ids": []}]
    columns = columns_of(rows, {"label:topic", "input_ids"})
    assert plain(columns) == {"label:topic": {0: 1}, "input_ids": {0: [4, 5], 1: []}}
    assert columns["input_ids"].values.values.dtype == np.int64


def test_a_worker_sends_rows_without_their_datasets():
    rows = FlatRows(dataset(500)).__getitems__([3, 1])
    sent = pickle.dumps(rows)
    assert len(sent) < 1000 and pickle.loads(sent) == [*rows]
