from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from small_datasets import TEXT, load, write

from mtl_nlp.data.files import check_no_script, files_of_folder
from mtl_nlp.errors import DataError
from mtl_nlp.recipe.files import files_of, literal_start

LABELS = {"topic": "y"}


def test_brackets_of_a_folder_are_no_glob(tmp_path):
    folder = tmp_path / "data [v1]"
    folder.mkdir()
    for name in ("b.csv", "a.csv", "c[1].csv"):
        write(folder / name, "text,y", f"{name},x")
    assert [Path(path).name for path in files_of(str(folder / "*.csv"))] == ["a.csv", "b.csv", "c[1].csv"]
    assert files_of(str(folder / "c[1].csv")) == [str(folder / "c[1].csv")]
    assert literal_start(str(tmp_path / "no[1]/x")) == str(tmp_path / "no[1]/x")
    for path, texts in (("data [v1]/*.csv", ["a.csv", "b.csv", "c[1].csv"]), ("data [v1]/c[1].csv", ["c[1].csv"])):
        assert load(tmp_path, TEXT, LABELS, path=path).splits["train"]["text"][:] == texts
    loaded = load(tmp_path, TEXT, LABELS, path="data [v1]")
    assert loaded.splits["train"]["text"][:] == ["a.csv", "b.csv", "c[1].csv"]


def test_folder_with_brackets_is_read_like_any_folder(tmp_path):
    for name, row in (("train.jsonl", {"text": "a", "y": "x"}), ("test.jsonl", {"text": "b", "y": "x"})):
        for folder in ("data[1]", "data1"):
            (tmp_path / folder).mkdir(exist_ok=True)
            write(tmp_path / folder / name, row if folder == "data[1]" else {"text": "other", "y": "x"})
    loaded = load(tmp_path, TEXT, LABELS, path="data[1]")
    assert {split: rows["text"][:] for split, rows in loaded.splits.items()} == {"train": ["a"], "test": ["b"]}
    write(tmp_path / "data[1]" / "README.md", "---", "configs:", "- config_name: x", "---")
    assert files_of_folder(tmp_path / "data[1]") == ("json", {})
    write(tmp_path / "notes.md", "a")
    assert files_of_folder(tmp_path / "nothing") == ("", {})


def test_loading_script_is_refused_with_the_remedy():
    check_no_script("d", "data.csv")
    with pytest.raises(DataError, match=r"^datasets\.d\.path: a/b\.py is a loading script, .*refs/convert/parquet"):
        check_no_script("d", "a/b.py")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("tikets.csv", r"^datasets\.d\.path: no file .*/tikets\.csv\. Did you mean 'tickets\.csv'"),
        ("dta/tickets.csv", r"^datasets\.d\.path: no file .*/dta/tickets\.csv\. Did you mean 'data'"),
        ("data/*.csv", r"^datasets\.d\.path: no file .*/data/\*\.csv\. Found a\.xyz, state\.json"),
        ("./dta", r"^datasets\.d\.path: no file .*/dta\. Did you mean 'data'"),
        ("empty/*.csv", r"The folder is empty\.$"),
        (
            "empty",
            r"^datasets\.d\.path: .*/empty has no files of a known format\. The folder is empty\. Name the files",
        ),
        ("odd", r"^datasets\.d\.path: .*/odd has no files of a known format\. Found a\.xyz\. Name the files"),
        ("nobody/tickets", r"^datasets\.d: cannot be loaded: .*\. There is no file or folder nobody/tickets beside"),
    ],
)
def test_missing_files_are_named_with_the_files_that_are_there(tmp_path, path, message):
    write(tmp_path / "tickets.csv", "text,y", "a,x")
    for folder in ("data", "empty", "odd"):
        (tmp_path / folder).mkdir()
    for file in ("data/a.xyz", "data/state.json", "odd/a.xyz"):
        write(tmp_path / file, "a")
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path, TEXT, LABELS, path=path)
    assert "\n" not in str(caught.value)


def test_folder_among_the_data_files_is_refused(tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(DataError, match=r"^datasets\.d\.data_files: .*/data is a folder\. Name its files, such as"):
        load(tmp_path, TEXT, LABELS, data_files="data")


def save(folder: Path, *texts: str) -> Dataset:
    """Save a dataset with a column of class labels, and return it."""
    features = Features({"text": Value("string"), "y": ClassLabel(names=["never", "x"])})
    dataset = Dataset.from_dict({"text": texts, "y": [1] * len(texts)}, features=features)
    dataset.save_to_disk(folder)
    return dataset


def test_saved_datasets_are_read_and_their_folder_stays_as_it_is(tmp_path):
    one = save(tmp_path / "one", "a", "b")
    DatasetDict(train=one, dev=one.select([1])).save_to_disk(tmp_path / "splits")
    before = sorted(tmp_path.rglob("*"))
    loaded = load(tmp_path, TEXT, LABELS, path="one")
    assert (loaded.splits["train"]["text"][:], loaded.class_names) == (["a", "b"], {"topic": ["never", "x"]})
    loaded = load(tmp_path, TEXT, LABELS, path="splits", splits={"validation": "dev"})
    assert {split: rows["text"][:] for split, rows in loaded.splits.items()} == {
        "train": ["a", "b"],
        "validation": ["b"],
    }
    assert sorted(tmp_path.rglob("*")) == before
    streamed = load(tmp_path, TEXT, LABELS, path="one", streaming=True)
    assert [row["text"] for row in streamed.stream] == ["a", "b"]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("one/state.json", None, r"one, but state\.json is missing"),
        ("one/state.json", "{", r"one, but state\.json cannot be read"),
        ("one/state.json", "[]", r"one, but state\.json has no list '_data_files'"),
        ("one/state.json", '{"_data_files": []}', r"one, but state\.json names no files"),
        ("one/data-00000-of-00001.arrow", None, r"one, but data-00000-of-00001\.arrow is missing"),
        ("one/data-00000-of-00001.arrow", "damaged", r"/data-00000-of-00001\.arrow: the file is damaged"),
        ("splits/dataset_dict.json", None, r"splits, but dataset_dict\.json is missing"),
        ("splits/dataset_dict.json", '{"splits": ["train", "dev"]}', r"splits/dev, but state\.json is missing"),
        ("splits/train/state.json", None, r"splits/train, but state\.json is missing"),
    ],
)
def test_damaged_folder_of_a_saved_dataset_is_named(tmp_path, file, content, message):
    DatasetDict(train=save(tmp_path / "one", "a")).save_to_disk(tmp_path / "splits")
    if content is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path, TEXT, LABELS, path=file.partition("/")[0])
    assert "\n" not in str(caught.value)


def test_configuration_of_a_dataset_is_an_argument_of_load_dataset(tmp_path):
    """A local clone of a dataset of the Hub is loaded like the dataset itself."""
    clone = tmp_path / "clone"
    (clone / "fr").mkdir(parents=True)
    write(clone / "README.md", "---", "configs:", "- config_name: en", "  data_files: en.jsonl")
    write(clone / "README.md", (clone / "README.md").read_text() + "- config_name: fr\n  data_files: fr/*.jsonl\n---")
    write(clone / "en.jsonl", {"text": "one", "y": "x"})
    write(clone / "fr/a.jsonl", {"text": "un", "y": "x"})
    assert load(tmp_path, TEXT, LABELS, path="clone", name="fr").splits["train"]["text"][:] == ["un"]
    with pytest.raises(DataError, match=r"^datasets\.d: cannot be loaded: .*'de' not found.*'en', 'fr'"):
        load(tmp_path, TEXT, LABELS, path="clone", name="de")


def test_changed_file_is_read_again(tmp_path):
    for text in ("a", "b"):
        with open(tmp_path / "tickets.csv", "w", newline="") as file:
            csv.writer(file).writerows([["text", "y"], [text, "x"]])
        stat = (tmp_path / "tickets.csv").stat()
        os.utime(tmp_path / "tickets.csv", ns=(stat.st_atime_ns, stat.st_mtime_ns + ord(text) * 1_000_000))
        assert load(tmp_path, TEXT, LABELS, path="tickets.csv").splits["train"]["text"][:] == [text]


def test_folder_of_csv_files_is_read_like_a_csv_file(tmp_path):
    """Pandas would read the class `None` as a missing value."""
    (tmp_path / "data").mkdir()
    for split in ("train", "test"):
        write(tmp_path / "data" / f"{split}.csv", "text,y", "NA,None")
    write(tmp_path / "data/notes.txt", "Tickets")
    write(tmp_path / "data/README.md", "Tickets")
    loaded = load(tmp_path, TEXT, LABELS, path="data")
    assert [(row["text"][0], row["label:topic"][0]) for row in loaded.splits.values()] == [("NA", "None")] * 2
