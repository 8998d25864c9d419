from __future__ import annotations

from pathlib import Path

import pytest

from mtl_nlp.run.draft_files import count_columns, find_files, separator_of


def touch(folder: Path, *names: str, text: str = "text,label\na b,x\n") -> list[Path]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in names]


@pytest.mark.parametrize(
    ("names", "dataset", "splits"),
    [
        (["tickets.csv"], "tickets", ["train"]),
        (["train.csv", "dev.csv", "test.csv"], "test_project", ["train", "validation", "test"]),
        (["a_train.csv", "a_valid.csv"], "a", ["train", "validation"]),
        (["a/train/x.csv", "a/train/y.csv", "a/test/x.csv"], "a", ["train", "test"]),
        (["contest-training.csv", "contest-val.csv"], "contest", ["train", "validation"]),
    ],
)
def test_names_say_the_dataset_and_the_splits(tmp_path, names, dataset, splits):
    folder = tmp_path / "test_project"
    (data,) = find_files(touch(folder, *names))
    assert (data.name, list(data.splits)) == (dataset, splits)
    assert sum(map(len, data.splits.values())) == len(names)


def test_files_of_other_names_and_formats_are_datasets_of_their_own(tmp_path):
    touch(tmp_path, "a.csv", "b.csv", "notes.md", ".hidden.csv")
    touch(tmp_path, "a.jsonl", text='{"text": "x", "label": 1}\n')
    touch(tmp_path, "a.txt", text="Ada B-PER\nruns O\n\n")
    found = find_files([tmp_path])
    assert sorted((data.name, data.format) for data in found) == [
        ("a", "csv"),
        ("a_2", "json"),
        ("a_3", "conll"),
        ("b", "csv"),
    ]


def test_rows_have_the_values_that_datasets_reads(tmp_path):
    (data,) = find_files(touch(tmp_path, "a.csv", text='n,x,ok,text\n1,1.5,true,"a ""b"" c"\n,,False,\n'))
    assert data.rows() == [
        {"n": 1, "x": 1.5, "ok": True, "text": 'a "b" c'},
        {"n": None, "x": None, "ok": False, "text": None},
    ]
    (data,) = find_files(touch(tmp_path, "b.json", text='[{"text": "a"},\n {"text": "b"}]'))
    assert data.rows() == [{"text": "a"}, {"text": "b"}]
    (words,) = touch(tmp_path, "c.iob", text="-DOCSTART- O\n\n# id = 1\nNew\tB-LOC\nYork\tI-LOC\n\n")
    (data,) = find_files([words])
    assert data.rows() == [{"id": "1", "0": ["New", "York"], "1": ["B-LOC", "I-LOC"]}]
    assert count_columns(words) == 2


@pytest.mark.parametrize(
    ("text", "separator"),
    [
        ("a,b\n1,2\n", ","),
        ("a;b\n1,5;2\n", ";"),
        ("a\tb\n1\t2\n", "\t"),
        ("a|b\n1|2\n", "|"),
        ("text\nx; y\n", ","),
        ('a,b\n"x;y\n;",2\n', ","),
    ],
)
def test_the_separator_divides_all_rows_evenly(tmp_path, text, separator):
    (path,) = touch(tmp_path, "a.csv", text=text)
    assert separator_of(path) == separator
