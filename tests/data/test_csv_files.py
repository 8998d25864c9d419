from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any

import pytest
from small_datasets import TEXT, load

from mtl_nlp.data.csv_files import can_check, check_csv, keeps_texts
from mtl_nlp.data.loading import LoadedDataset
from mtl_nlp.errors import DataError

GOOD = "text,y\none,a\ntwo,b\n"


def load_csv(
    folder: Path, content: str | bytes, name: str = "d.csv", task: str = "topic", **more: Any
) -> LoadedDataset:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return load(folder, TEXT, {task: "y"}, **{"path": name, **more})


def labels_of(loaded: LoadedDataset, task: str = "topic", split: str = "train") -> list[Any]:
    return loaded.splits[split][f"label:{task}"][:]


@pytest.mark.parametrize(
    ("cells", "names"),
    [
        ("1 01 1", ["1", "01", "1"]),
        ("007 008", ["007", "008"]),
        ("1 1.0", ["1", "1.0"]),
        ("True true", ["True", "true"]),
        ("9007199254740993 9007199254740992", ["9007199254740993", "9007199254740992"]),
        ("1e3 1000", ["1e3", "1000"]),
        ("1 x", ["1", "x"]),
        ("2 1 2", ["2", "1", "2"]),
        ("1.0 2.0", ["1", "2"]),  # whole numbers that pandas has written
        ("False True", ["False", "True"]),
    ],
)
def test_labels_that_differ_as_texts_stay_different(tmp_path, cells, names):
    loaded = load_csv(tmp_path, "text,y\n" + "".join(f"t,{cell}\n" for cell in cells.split()))
    assert labels_of(loaded) == names


def test_whole_numbers_with_gaps_are_whole_numbers_and_texts_stay_as_they_stand(tmp_path):
    loaded = load_csv(tmp_path, "text,y\n01,1\n,2\n1.50,\ninf,2\n")
    assert loaded.splits["train"]["text"][:] == ["01", "1.50", "inf"]
    assert labels_of(loaded) == ["1", None, "2"]
    assert labels_of(load_csv(tmp_path, "text,y\na,1.0\nb,1\nc,\n", task="score"), "score") == [1.0, 1.0, None]


def test_types_are_those_of_the_whole_file_and_not_of_each_part(tmp_path):
    """pandas guesses the types of every 10,000 rows anew."""
    labels = ["x"] * 10_000 + ["01"] * 5
    loaded = load_csv(tmp_path, "text,y\n" + "".join(f"7,{label}\n" for label in labels))
    assert labels_of(loaded) == labels


def test_each_split_may_have_its_own_type(tmp_path):
    (tmp_path / "b.csv").write_text("text,y\none,x\n")
    (tmp_path / "a.csv").write_text("text,y\none,1\ntwo,2\n")
    files = {"train": "a.csv", "validation": "b.csv"}
    loaded = load(tmp_path, TEXT, {"topic": "y"}, path="csv", data_files=files)
    assert labels_of(loaded) == ["1", "2"] and labels_of(loaded, split="validation") == ["x"]


@pytest.mark.parametrize(
    ("content", "more", "message"),
    [
        ("text,y\none,a,x\ntwo,b,x\n", {}, r"d\.csv, line 2: expected 2 fields \(text, y\), found 3: 'one,a,x'\. Put"),
        (f"{GOOD}three,a,x\n", {}, r"d\.csv, line 4: expected 2 fields \(text, y\), found 3"),
        (f'{GOOD}"two\nlines",a\nthree,a,x\n', {}, r"d\.csv, line 6: expected 2 fields"),
        ("text,y\none,a,\n", {}, r"d\.csv, line 2: expected 2 fields .*set `index_col: 0`\.$"),
        (GOOD, {"sep": ";"}, r"d\.csv: no column 'text'\. The separator is ';', and the first .* Set `sep: \",\"`"),
        ("a, b;text;y\n1, 2;one;a\n", {}, r"d\.csv: no column 'text'\..*Set `sep: \";\"`"),
        ("one,a\ntwo,b\n", {}, r"d\.csv: no column 'text'\..* no line with names, give `column_names`"),
        ('{"text": "one", "y": "a"}\n', {}, r"d\.csv: no column 'text'.* The file has JSON"),
        ("", {}, r"d\.csv: the file is empty\.$"),
        ("\n\n", {}, r"d\.csv: the file is empty\.$"),
        (b"\xef\xbb\xbf", {}, r"d\.csv: the file is empty\.$"),
        ("text,y\n", {}, r"d\.csv: the file has column names and no rows"),
        (f'{GOOD}"three,a\nfour,b\n', {}, r"d\.csv, line 4: a quote starts here and does not end\..*`quoting: 3`"),
        (f"{GOOD}thr\0ee,a\n", {}, r"d\.csv, line 4: found a NUL byte.*utf-16-le"),
        (GOOD.encode("utf-16"), {}, r"d\.csv, line 1: not UTF-8.*`encoding: utf-16`"),
        (GOOD.encode() + b"caf\xe9,a\n", {}, r"d\.csv, line 4: not UTF-8: .* at byte 3 of the line\..*cp1252"),
        (GOOD, {"quoting": 9}, r'd\.csv: cannot be read with the options of the dataset: bad "quoting" value'),
        (GOOD, {"encoding": "utf-99"}, r"^datasets\.d\.encoding: no such encoding 'utf-99'"),
    ],
)
def test_file_that_would_be_misread_is_refused_with_file_and_line(tmp_path, content, more, message):
    with pytest.raises(DataError, match=message) as caught:
        load_csv(tmp_path, content, **more)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "more"),
    [
        (GOOD.replace("\n", "\r"), {}),
        (GOOD.replace("\n", "\r\n"), {}),
        (f"\ufeff\n{GOOD}\n \n", {}),
        (GOOD.replace(",", ";"), {"delimiter": ";"}),
        (GOOD.encode("utf-16"), {"encoding": "utf-16"}),
        (GOOD.partition("\n")[2], {"column_names": ["text", "y"]}),
        (f"# {'a,' * 9}\n{GOOD}", {"skiprows": 1}),
        ("text,y\n1,one,a\n2,two,b\n", {"index_col": 0}),
        (f"{GOOD}three,a,x\n", {"on_bad_lines": "skip"}),
        (gzip.compress(GOOD.encode(), mtime=0), {"name": "d.csv.gz"}),
    ],
)
def test_file_that_can_be_read_is_read(tmp_path, content, more):
    loaded = load_csv(tmp_path, content, **more)
    assert loaded.splits["train"]["text"][:] == ["one", "two"]
    notes = ["d/train: the CSV files are not checked, because of `skiprows`"] if "skiprows" in more else []
    assert labels_of(loaded) == ["a", "b"] and loaded.notes == notes


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (
            f'{GOOD}"three,a\nfour,a\nfive,a\nsix",a\n',
            "1 row of .* spans several lines .* 4 lines from line 4.*`quoting: 3`",
        ),
        (GOOD + '"' + "x\n" * 12 + '",a\n', "spans several lines"),
        (f'{GOOD}"three,a\nfour,b\nfive",a\n', "spans several lines .* 3 lines from line 4"),
        (f'{GOOD}"three,\nfour, well\nfive",a\n', None),
        (f'{GOOD}"two\nlines",a\n', None),
        (f"{GOOD}three\n", r"1 row of .*/d\.csv has fewer fields .*first in line 4"),
        ("text,y,y\none,a,b\n", r"d\.csv has several columns 'y'; the first one is used"),
    ],
)
def test_rows_that_may_have_been_misread_get_a_note(tmp_path, content, note):
    notes = load_csv(tmp_path, content).notes
    assert len(notes) == (note is not None)
    assert all(re.search(note, found) for found in notes)


def test_whole_numbers_of_a_file_with_gaps_are_those_of_other_files(tmp_path):
    (tmp_path / "a.csv").write_text("text,y\none,0\ntwo,1\n")
    (tmp_path / "b.csv").write_text("text,y\none,0.0\ntwo,\nthree,1.0\n")
    for files in ({"train": "a.csv", "validation": "b.csv"}, {"train": "b.csv", "validation": "a.csv"}):
        loaded = load(tmp_path, TEXT, {"topic": "y"}, path="csv", data_files=files)
        found = [labels_of(loaded, split=split) for split in files]
        assert sorted(found, key=len) == [["0", "1"], ["0", None, "1"]]


def test_zero_one_columns_may_have_several_forms(tmp_path):
    (tmp_path / "d.csv").write_text("text,a,b\none,1, 1\ntwo,1.0,0\nthree,0,01\n")
    loaded = load(tmp_path, TEXT, {"tags": ["a", "b"]}, path="d.csv")
    assert labels_of(loaded, "tags") == [["a", "b"], ["a"], ["b"]]


def test_later_files_may_lack_columns(tmp_path):
    (tmp_path / "a.csv").write_text("id,text,y\n1,one,a\n2,two,b\n")
    (tmp_path / "b.csv").write_text("text,y\nthree,a\nthree,a\n")
    (tmp_path / "c.csv").write_text("text\nfour\nfour\n")
    loaded = load(tmp_path, TEXT, {"topic": "y"}, path="csv", data_files=["a.csv", "b.csv", "c.csv"])
    assert labels_of(loaded) == ["a", "b", "a", "a", None, None]
    assert [note for note in loaded.notes if "c.csv has no column 'y'; its rows lack this label" in note]
    assert not any("b.csv" in note for note in loaded.notes)


def test_files_of_a_split_have_the_columns_of_the_first_file(tmp_path):
    (tmp_path / "a.csv").write_text(GOOD)
    (tmp_path / "b.csv").write_text(GOOD.replace("text,y", "text,z"))
    with pytest.raises(
        DataError, match=r"/b\.csv: all files of a split .* first file.* has text, z, and .*/a\.csv has text, y"
    ):
        load(tmp_path, TEXT, {"topic": "y"}, path="csv", data_files=["a.csv", "b.csv"])


def test_only_the_first_rows_of_a_stream_of_known_length_are_checked(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(f"{GOOD}three,a,x\n")
    arguments: dict[str, Any] = {"wanted": ["text", "y"], "labels": ["y"]}
    assert check_csv("d/train", [str(path)], {}, **arguments, most_rows=2).classes == {"y": {"a", "b"}}
    with pytest.raises(DataError, match="line 4"):
        check_csv("d/train", [str(path)], {}, **arguments)


def test_files_with_options_that_change_the_rows_are_not_checked():
    assert can_check({"sep": ";", "encoding": "utf-8", "skiprows": None})
    assert not any(can_check({key: 1}) for key in ("skiprows", "header", "comment", "usecols"))
    assert can_check({"cache_dir": "x", "token": "y", "header": 0})
    assert not can_check({"header": 0, "names": ["a"]}) and not can_check({"header": None})
    assert not can_check({"sep": r"\s+"}) and not can_check({"engine": "pyarrow"})
    assert keeps_texts({"keep_default_na": False, "na_values": [""]})
    assert not keeps_texts({"keep_default_na": False, "na_values": ["-"]}) and not keeps_texts({})
