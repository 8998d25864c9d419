from __future__ import annotations

import pytest
from datasets import Dataset
from small_datasets import TEXT, TOKENS, load, rows_of, write

from mtl_nlp.data.canonical import canonical_rows
from mtl_nlp.data.loading import LoadedDataset
from mtl_nlp.data.missing import with_text
from mtl_nlp.errors import DataError

PAIR = {"text": "a", "text_pair": "b"}


def test_rows_without_text_are_skipped_and_counted_by_column(tmp_path):
    rows = [
        {"a": "x", "b": "y", "n": 0},
        {"a": None, "b": None, "n": "?"},
        {"a": "x", "n": 2},
        {"a": "", "b": "", "n": 3},
    ]
    file = write(tmp_path / "a.jsonl", *({**row, "n": str(row["n"])} for row in rows))
    loaded = load(tmp_path, PAIR, {"topic": "n"}, data_files={"train": file, "test": file})
    assert [row["label:topic"] for row in rows_of(loaded)] == ["0", "3"]
    assert loaded.notes == [
        f"d/{split}: 1 row without text in column {column!r}; skipped"
        for split in ("train", "test")
        for column in ("a", "b")
    ]


def test_empty_cells_of_a_csv_file_are_missing_texts_and_rows_are_cut_after_them(tmp_path):
    write(tmp_path / "a.csv", "text,y", *(f"{'' if n % 4 == 1 else f't{n}'},x" for n in range(40)))
    loaded = load(tmp_path, TEXT, {"topic": "y"}, path="a.csv", test_size=0.1)
    assert {split: len(rows) for split, rows in loaded.splits.items()} == {"train": 27, "test": 3}
    assert loaded.notes == ["d/train: 10 rows without text in column 'text'; skipped"]


def test_rows_without_words_are_skipped(tmp_path):
    rows = [{"tokens": ["a"], "y": ["N"]}, {"tokens": None, "y": ["N"]}, {"tokens": [], "y": []}]
    loaded = load(tmp_path, TOKENS, {"pos": "y"}, data_files=write(tmp_path / "a.jsonl", *rows))
    assert loaded.splits["train"]["tokens"][:] == [["a"]]
    assert loaded.notes == ["d/train: 2 rows without words in column 'tokens'; skipped"]


@pytest.mark.parametrize("streaming", [False, True])
def test_rows_without_text_can_be_refused(tmp_path, streaming):
    file = write(tmp_path / "a.jsonl", {"text": "a", "y": 1}, {"text": None, "y": 1})
    with pytest.raises(DataError, match=r"^d/train, row 1: no text in column 'text'\. Set `on_missing_text: skip`"):
        load(tmp_path, TEXT, {"score": "y"}, data_files=file, on_missing_text="error", streaming=streaming)


def test_split_without_any_text_is_refused(tmp_path):
    file = write(tmp_path / "a.jsonl", {"text": None, "y": 1})
    with pytest.raises(DataError, match=r"^d/train: no row has 'text', so no row can be used"):
        load(tmp_path, TEXT, {"score": "y"}, data_files=file)


def test_stream_skips_rows_without_text_and_counts_them(tmp_path):
    file = write(tmp_path / "a.jsonl", *({"text": None if n % 3 else str(n), "y": n} for n in range(9)))

    def stream(**options: int) -> LoadedDataset:
        return load(tmp_path, TEXT, {"score": "y"}, data_files=file, streaming=True, **options)

    counted, given = stream(), stream(num_rows=3)
    assert counted.num_rows == 3
    assert counted.notes == ["d/train: 6 rows without text in column 'text'; skipped"]
    assert [row["text"] for row in counted.stream] == [row["text"] for row in given.stream] == ["0", "3", "6"]
    assert given.notes == []


def test_raw_rows_of_python_without_text_are_skipped_unless_every_row_gets_a_prediction():
    rows = Dataset.from_dict({"text": ["a", None, "c"]})
    canonical = canonical_rows(rows, "d", inputs=TEXT, labels={}, tasks={}, keeps_missing=True)
    assert with_text("d", canonical, TEXT, for_prediction=False)["text"][:] == ["a", "c"]
    with pytest.raises(DataError, match=r"^d, row 1: no text, and every row gets a prediction\. .*row\['text'\]\)\.$"):
        with_text("d", canonical, TEXT, for_prediction=True)
