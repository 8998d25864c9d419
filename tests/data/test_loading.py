from __future__ import annotations

import os

import pytest
from small_datasets import TEXT, TOKENS, load, rows_of, write

from mtl_nlp.errors import DataError


def test_json_lines_become_canonical_rows(tmp_path):
    row = {"words": ["Ada", "runs"], "upos": ["PROPN", "VERB"], "y": 3, "more": 1}
    file = write(tmp_path / "a.jsonl", row, {**row, "upos": None, "y": None})
    loaded = load(tmp_path, {"tokens": "words"}, {"pos": "upos", "score": "y"}, data_files={"train": file})
    first, second = rows_of(loaded)
    assert first == {"tokens": ["Ada", "runs"], "label:pos": ["PROPN", "VERB"], "label:score": 3.0, "repaired": 0}
    assert (second["label:pos"], second["label:score"]) == (None, None)
    assert loaded.class_names == {"pos": None, "score": None}


def test_csv_takes_pairs_numbers_and_the_arguments_of_load_dataset(tmp_path):
    file = write(tmp_path / "a.tsv", "a\tb\ty\tclass", "One\tTwo, three\t2.5\t7", "x\ty\t\t8")
    inputs, labels = {"text": "a", "text_pair": "b"}, {"score": "y", "topic": "class"}
    loaded = load(tmp_path, inputs, labels, path="csv", sep="\t", data_files={"train": file})
    assert rows_of(loaded) == [
        {"text": "One", "text_pair": "Two, three", "label:score": 2.5, "label:topic": "7", "repaired": 0},
        {"text": "x", "text_pair": "y", "label:score": None, "label:topic": "8", "repaired": 0},
    ]


def test_conll_takes_word_columns_and_comments(tmp_path):
    write(tmp_path / "a.conll", "# topic = x", "Ada\tPROPN", "", "runs\tVERB")
    labels = {"pos": "upos", "topic": "topic"}
    loaded = load(tmp_path, TOKENS, labels, path="conll", columns=["tokens", "upos"], data_files={"train": "a.conll"})
    assert loaded.splits["train"]["label:pos"][:] == [["PROPN"], ["VERB"]]
    assert loaded.splits["train"]["label:topic"][:] == ["x", None]


def test_conllu_takes_its_own_columns(tmp_path):
    write(tmp_path / "a.conllu", "# genre = mail", "1\tAda\tada\tPROPN" + "\t_" * 6)
    labels = {"pos": "upos", "topic": "genre"}
    loaded = load(tmp_path, TOKENS, labels, path="conllu", data_files={"train": "a.conllu"})
    assert rows_of(loaded) == [{"tokens": ["Ada"], "label:pos": ["PROPN"], "label:topic": "mail", "repaired": 0}]


@pytest.mark.parametrize("path", ["json", "conll"])
def test_globs_and_lists_of_files_are_read_in_order(tmp_path, path):
    for name in ("b1", "a2", "a1"):
        lines = [f"{name} N"] if path == "conll" else [{"tokens": [name], "upos": ["N"]}]
        write(tmp_path / f"{name}.x", *lines)
    extra = {"columns": ["tokens", "upos"]} if path == "conll" else {}
    files = {"train": ["a*.x", "b1.x"]}
    loaded = load(tmp_path, TOKENS, {"pos": "upos"}, path=path, data_files=files, **extra)
    assert loaded.splits["train"]["tokens"][:] == [["a1"], ["a2"], ["b1"]]


def test_splits_are_found_by_the_names_that_the_dataset_has(tmp_path):
    files = {name: write(tmp_path / f"{name}.jsonl", {"text": name, "y": 1}) for name in ("learn", "dev", "test")}
    splits = {"train": "learn", "validation": "dev"}
    loaded = load(tmp_path, TEXT, {"score": "y"}, data_files=files, splits=splits)
    assert {split: rows["text"][0] for split, rows in loaded.splits.items()} == {
        "train": "learn",
        "validation": "dev",
        "test": "test",
    }


@pytest.mark.parametrize(("size", "rows"), [(0.25, 2), (3, 3)])
def test_a_validation_split_can_be_set_aside(tmp_path, size, rows):
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
        ({"train": "b.jsonl"}, {}, r"^datasets\.d\.data_files\.train: no file .*/b\.jsonl"),
        ({"train": ["a.jsonl", "b/*.x"]}, {}, r"^datasets\.d\.data_files\.train: no file .*/b/\*\.x"),
        ({"test": "a.jsonl"}, {}, r"^datasets\.d: no split 'train' to train on"),
        ({"train": "a.jsonl"}, {"splits": {"test": "tets"}}, r"^datasets\.d\.splits\.test: no split 'tets'.*'train'"),
        ({"train": "a.jsonl"}, {"labl": 1}, r"^datasets\.d\.labl: neither .* Did you mean 'labels'"),
        ({"train": "a.jsonl"}, {"split": "train"}, "expected all splits of a dataset"),
        ({"train": "empty.jsonl"}, {}, r"^datasets\.d: cannot be read: a file is empty"),
        ({"train": "broken.jsonl"}, {}, r"^datasets\.d: cannot be read: .*JSON parse error.*row 1"),
        ({"train": "a.jsonl"}, {"path": "nobody/nothing"}, r"^datasets\.d: cannot be loaded"),
    ],
)
def test_what_cannot_be_loaded_is_named_with_its_key(tmp_path, files, more, message):
    write(tmp_path / "a.jsonl", {"text": "a", "y": 1}, {"text": "b", "y": 2})
    write(tmp_path / "empty.jsonl")
    write(tmp_path / "broken.jsonl", {"text": "a", "y": 1}, '{"text":')
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path, TEXT, {"score": "y"}, data_files=files, **more)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a X", "b"], r"a\.conll, line 2: expected 2 columns"),
        (["# topic = x", "a X"], r"a\.conll: no column or comment 'label'\. Did you mean"),
        ([], r"a\.conll: there is no sentence; the split has no rows"),
        (["# only = comments", ""], "there is no sentence"),
    ],
)
def test_a_bad_column_file_is_named(tmp_path, lines, message):
    write(tmp_path / "a.conll", *lines)
    with pytest.raises(DataError, match=message):
        load(
            tmp_path,
            TOKENS,
            {"pos": "upos", "topic": "label"},
            path="conll",
            columns=["tokens", "upos"],
            data_files={"train": "a.conll"},
        )


def test_an_unchanged_column_file_is_cached_and_a_changed_one_is_read_again(tmp_path):
    def tokens() -> tuple[list[list[str]], str, list[str]]:
        loaded = load(
            tmp_path, TOKENS, {"pos": "p"}, path="conll", columns=["tokens", "p"], data_files={"train": "a.conll"}
        )
        rows = loaded.splits["train"]
        return rows["tokens"][:], rows._fingerprint, [file["filename"] for file in rows.cache_files]

    write(tmp_path / "a.conll", "cat N")
    first, again = tokens(), tokens()
    assert first == again
    write(tmp_path / "a.conll", "dog N")
    stat = (tmp_path / "a.conll").stat()
    os.utime(tmp_path / "a.conll", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000))
    changed = tokens()
    assert changed[0] == [["dog"]]
    assert changed[1] != first[1]
    assert changed[2] != first[2]
