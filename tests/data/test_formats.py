from __future__ import annotations

import copy
import gzip
import os
from typing import Any

import pytest
from datasets import Dataset
from plain_recipes import PLAIN
from small_datasets import TOKENS, load, rows_of, write

from mtl_nlp.data.formats import FORMATS, Format, check_format
from mtl_nlp.errors import DataError, RecipeError
from mtl_nlp.recipe.schema import Recipe


def dataset_of(**changes: Any) -> Any:
    """Return the dataset of the plain recipe with some keys changed."""
    data = copy.deepcopy(PLAIN)
    data["datasets"]["ewt"].update(changes)
    return Recipe.from_dict(data).datasets["ewt"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path": "conll"}, "`columns` is needed for `path: conll`"),
        ({"columns": ["tokens"]}, "not allowed for any other path"),
        ({"path": "conllu", "columns": ["tokens"]}, "not allowed for any other path"),
        ({"path": "conllu", "data_files": None}, "`path: conllu` needs `data_files`"),
    ],
)
def test_column_files_need_their_keys(changes, message):
    with pytest.raises(RecipeError, match=rf"^datasets\.ewt: .*{message}"):
        check_format("ewt", dataset_of(**changes))


@pytest.mark.parametrize("path", ["conll", "conllu"])
def test_unknown_key_of_a_conll_dataset_is_refused(path):
    with pytest.raises(RecipeError, match=r"^datasets\.ewt: unknown key 'spilts'\. Did you mean 'splits'"):
        check_format("ewt", dataset_of(path=path, spilts={}))


@pytest.mark.parametrize(
    "changes", [{}, {"path": "conll", "columns": ["tokens"]}, {"path": "conllu"}, {"path": "csv", "sep": ";"}]
)
def test_dataset_with_the_keys_of_its_format_is_accepted(changes):
    check_format("ewt", dataset_of(**changes))


def test_new_format_needs_only_a_table_entry(tmp_path, monkeypatch):
    def read_lines(path):
        with open(path, encoding="utf-8") as file:
            yield from ({"words": line.split(), "upos": ["X"] * len(line.split())} for line in file)

    monkeypatch.setitem(FORMATS, "lines", Format(read_lines, columns=("words", "upos")))
    with pytest.raises(RecipeError, match="`path: lines` needs `data_files`"):
        check_format("ewt", dataset_of(path="lines", data_files=None))
    file = write(tmp_path / "a.txt", "Ada runs", "Go")
    loaded = load(tmp_path, {"tokens": "words"}, {"pos": "upos"}, path="lines", data_files={"train": file})
    assert loaded.splits["train"]["tokens"][:] == [["Ada", "runs"], ["Go"]]


def test_conll_reads_word_columns_and_comments(tmp_path):
    write(tmp_path / "a.conll", "# topic = x", "Ada\tPROPN", "", "runs\tVERB")
    labels = {"pos": "upos", "topic": "topic"}
    loaded = load(tmp_path, TOKENS, labels, path="conll", columns=["tokens", "upos"], data_files={"train": "a.conll"})
    assert loaded.splits["train"]["label:pos"][:] == [["PROPN"], ["VERB"]]
    assert loaded.splits["train"]["label:topic"][:] == ["x", None]


def test_conllu_reads_its_fixed_columns(tmp_path):
    write(tmp_path / "a.conllu", "# genre = mail", "1\tAda\tada\tPROPN" + "\t_" * 6)
    labels = {"pos": "upos", "topic": "genre"}
    loaded = load(tmp_path, TOKENS, labels, path="conllu", data_files={"train": "a.conllu"})
    (row,) = rows_of(loaded)
    assert row.items() >= {"tokens": ["Ada"], "label:pos": ["PROPN"], "label:topic": "mail", "repaired": 0}.items()


def test_csv_reads_pairs_and_numbers_with_arguments_of_load_dataset(tmp_path):
    file = write(tmp_path / "a.tsv", "a\tb\ty\tclass", "One\tTwo, three\t2.5\t7", "x\ty\t\t8")
    inputs, labels = {"text": "a", "text_pair": "b"}, {"score": "y", "topic": "class"}
    loaded = load(tmp_path, inputs, labels, path="csv", sep="\t", data_files={"train": file})
    assert rows_of(loaded) == [
        {"text": "One", "text_pair": "Two, three", "label:score": 2.5, "label:topic": "7", "repaired": 0},
        {"text": "x", "text_pair": "y", "label:score": None, "label:topic": "8", "repaired": 0},
    ]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a X", "b"], r"a\.conll, line 2: expected 2 columns"),
        (["# topic = x", "a X"], r"a\.conll: no column or comment 'label'\. Valid: tokens, topic, upos"),
        ([], r"a\.conll: the files have no sentences, so the split has no rows"),
        (["# only = comments", ""], "the files have no sentences"),
    ],
)
def test_invalid_column_file_is_named(tmp_path, lines, message):
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


def test_column_file_is_cached_until_it_changes(tmp_path):
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


@pytest.mark.parametrize(
    ("file", "lines", "options"),
    [
        ("a.csv", ["text,y", "one,x"], {}),
        ("a.tsv", ["text\ty", "one\tx"], {}),
        ("a.tab", ["text\ty", "one\tx"], {"path": "tsv", "data_files": "a.tab"}),
        ("a.json", ['[{"text": "one", "y": "x"}]'], {}),
        ("a.jsonl", ['{"text": "one", "y": "x"}'], {}),
        ("a.csv.gz", ["text,y", "one,x"], {}),
    ],
)
def test_ending_of_a_file_is_its_format(tmp_path, file, lines, options):
    write(tmp_path / file, *lines)
    if file.endswith(".gz"):
        (tmp_path / file).write_bytes(gzip.compress((tmp_path / file).read_bytes(), mtime=0))
    loaded = load(tmp_path, {"text": "text"}, {"topic": "y"}, **{"path": file, **options})
    assert rows_of(loaded) == [{"text": "one", "label:topic": "x", "repaired": 0}]
    Dataset.from_list([{"text": "one", "y": "x"}]).to_parquet(tmp_path / "a.parquet")
    assert rows_of(load(tmp_path, {"text": "text"}, {"topic": "y"}, path="a.parquet")) == rows_of(loaded)


def test_endings_of_column_files(tmp_path):
    line = "1\tAda\tada\tPROPN" + "\t_" * 6
    write(tmp_path / "a.conllu", line)
    (tmp_path / "b.conllu.gz").write_bytes(gzip.compress(f"{line}\n".encode(), mtime=0))
    for file in ("train.txt", "train.conll"):
        write(tmp_path / file, "Ada PROPN")
    for path, columns in (
        *(("a.conllu", None), ("b.conllu.gz", None), ("*.conllu*", None)),
        *(("train.txt", ["tokens", "upos"]), ("train.conll", ["tokens", "upos"]), ("train*", ["tokens", "upos"])),
    ):
        loaded = load(tmp_path, TOKENS, {"pos": "upos"}, path=path, columns=columns)
        assert loaded.splits["train"]["label:pos"][0] == ["PROPN"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path": "notes.xyz"}, r"^datasets\.ewt\.path: the format of .*notes\.xyz is unknown\. .* end in \.csv, "),
        ({"path": "*"}, r"^datasets\.ewt\.path: the format of .*\* is unknown\. Files of one format"),
        ({"path": "train.conll"}, r"^datasets\.ewt: `columns` is needed for .*end in \.conll"),
        ({"path": "a.csv", "columns": ["a"]}, r"^datasets\.ewt: `columns` .* not allowed for any other path"),
        ({"path": "a.csv", "data_files": {"test": "b.csv"}}, r"`path` is a file, so .* write `path: csv`"),
        ({"path": "a.conllu", "spilts": {}}, r"^datasets\.ewt: unknown key 'spilts'\. Did you mean 'splits'"),
        ({"path": "nn*.xyz"}, r"^datasets\.ewt\.path: no file .*nn\*\.xyz\. Found a\.csv, a\.tsv, notes\.xyz"),
    ],
)
def test_file_whose_format_or_keys_do_not_fit_is_refused(tmp_path, monkeypatch, changes, message):
    monkeypatch.chdir(tmp_path)
    for name in ("a.csv", "a.tsv", "notes.xyz"):
        write(tmp_path / name, "x")
    with pytest.raises((RecipeError, DataError), match=message):
        check_format("ewt", dataset_of(**{"data_files": None, **changes}))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["text;y", "one;x"],
            r"/a\.csv: no column 'text'\. The separator is ',', and the first line is 'text;y'\. Set `sep: \";\"`",
        ),
        (["txt,y", "one,x"], r"^d/train: no column 'text' \(for text\)\. Did you mean 'txt'\? Valid: txt, y"),
        ([b"text,y\n\xe4,x"], r"/a\.csv, line 2: not UTF-8: .* at byte 0 of the line\. Set `encoding`, such as"),
    ],
)
def test_csv_file_that_is_written_differently_is_named_with_the_remedy(tmp_path, lines, message):
    if isinstance(lines[0], bytes):
        (tmp_path / "a.csv").write_bytes(lines[0])
    else:
        write(tmp_path / "a.csv", *lines)
    with pytest.raises(DataError, match=message):
        load(tmp_path, {"text": "text"}, {"topic": "y"}, path="a.csv")
