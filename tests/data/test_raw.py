from __future__ import annotations

import pytest
from small_datasets import TEXT, TOKENS, load, write

from mtl_nlp.data.canonical import SLOW_ROWS
from mtl_nlp.data.raw import expected_rows, load_raw
from mtl_nlp.errors import DataError
from mtl_nlp.recipe.sections import DatasetRecipe


@pytest.mark.parametrize("path", ["json", "conll"])
def test_globs_and_lists_of_files_are_read_in_order(tmp_path, path):
    for name in ("b1", "a2", "a1"):
        lines = [f"{name} N"] if path == "conll" else [{"tokens": [name], "upos": ["N"]}]
        write(tmp_path / f"{name}.x", *lines)
    extra = {"columns": ["tokens", "upos"]} if path == "conll" else {}
    files = {"train": ["a*.x", "b1.x"]}
    loaded = load(tmp_path, TOKENS, {"pos": "upos"}, path=path, data_files=files, **extra)
    assert loaded.splits["train"]["tokens"][:] == [["a1"], ["a2"], ["b1"]]


@pytest.mark.parametrize(
    ("files", "more", "message"),
    [
        ({"train": "b.jsonl"}, {}, r"^datasets\.d\.data_files\.train: no file .*/b\.jsonl"),
        ({"train": ["a.jsonl", "b/*.x"]}, {}, r"^datasets\.d\.data_files\.train: no file .*/b/\*\.x"),
        ({"train": "a.jsonl"}, {"labl": 1}, r"^datasets\.d\.labl: neither .* Did you mean 'labels'"),
        ({"train": "a.jsonl"}, {"split": "train"}, "expected all splits of a dataset"),
        ({"train": "empty.jsonl"}, {}, r"/empty\.jsonl: the file is empty\.$"),
        ({"train": "broken.jsonl"}, {}, r"/broken\.jsonl, line 2: not valid JSON: Expecting value \(character 9\)"),
        ({"train": "a.jsonl"}, {"path": "nobody/nothing"}, r"^datasets\.d: cannot be loaded"),
    ],
)
def test_unloadable_data_is_named_with_its_key(tmp_path, files, more, message):
    write(tmp_path / "a.jsonl", {"text": "a", "y": 1}, {"text": "b", "y": 2})
    write(tmp_path / "empty.jsonl")
    write(tmp_path / "broken.jsonl", {"text": "a", "y": 1}, '{"text":')
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path, TEXT, {"score": "y"}, data_files=files, **more)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        ({"path": "json", "data_files": {"train": ["*.jsonl"]}}, 5),
        ({"path": "json", "data_files": {"train": ["*.jsonl"], "test": ["b.jsonl"]}}, 8),
        ({"path": "json", "data_files": {"train": ["https://host/a.jsonl"]}}, SLOW_ROWS),
        ({"path": "owner/name"}, SLOW_ROWS),
    ],
)
def test_number_of_rows_is_estimated_from_the_size_of_local_files(tmp_path, monkeypatch, dataset, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jsonl").write_bytes(b"x" * 1000)
    (tmp_path / "b.jsonl").write_bytes(b"x" * 1500)
    assert expected_rows(DatasetRecipe(**dataset, inputs={"text": "t"}, labels={"score": "y"})) == expected


def test_loading_does_not_change_the_recipe(tmp_path):
    """`load_dataset` adds the user's token to `storage_options`, and the recipe is published."""
    write(tmp_path / "a.jsonl", {"tokens": ["a"], "upos": ["N"]})
    options = {"storage_options": {"hf": {"anon": True}}}
    recipe = DatasetRecipe(
        path="json", data_files={"train": [str(tmp_path / "a.jsonl")]}, inputs=TOKENS, labels={"pos": "upos"}, **options
    )
    before = recipe.model_dump()
    load_raw("d", recipe)
    assert recipe.model_dump() == before


@pytest.mark.parametrize("dataset", [{"path": "data/*.jsonl"}, {"path": "json", "data_files": "data/*.jsonl"}])
def test_files_of_a_glob_belong_to_the_splits_that_their_names_say(tmp_path, dataset):
    (tmp_path / "data").mkdir()
    for name in ("train-1", "dev", "test", "more"):
        write(tmp_path / "data" / f"{name}.jsonl", {"text": name, "y": "x"})
    loaded = load(tmp_path, TEXT, {"topic": "y"}, **dataset)
    found = {split: rows["text"][:] for split, rows in loaded.splits.items()}
    assert found == {"train": ["more", "train-1"], "validation": ["dev"], "test": ["test"]}
    assert loaded.notes == [
        "d: the names of the files say their splits: train more.jsonl, train-1.jsonl; validation dev.jsonl; test "
        "test.jsonl. For other splits name `data_files` by split"
    ]
    alone = load(tmp_path, TEXT, {"topic": "y"}, path="data/t*t.jsonl")
    assert (list(alone.splits), alone.splits["train"]["text"][:], alone.notes) == (["train"], ["test"], [])


def test_a_folder_of_columns_has_the_splits_of_its_files(tmp_path):
    folder = tmp_path / "ner [v1]"
    folder.mkdir()
    for name in ("train", "dev"):
        write(folder / f"{name}.conll", f"{name} O", "")
        write(folder / f"{name}.conllu", f"1\t{name}" + "\t_" * 8, "")
    write(folder / "README.md", "a")
    loaded = load(tmp_path, TOKENS, {"ner": "ner"}, path="ner [v1]", columns=["tokens", "ner"])
    assert {split: rows["tokens"][:] for split, rows in loaded.splits.items()} == {
        "train": [["train"]],
        "validation": [["dev"]],
    }
    treebank = load(tmp_path, TOKENS, {"pos": "upos"}, path="ner [v1]")
    assert treebank.splits["validation"]["tokens"][:] == [["dev"]]
    with pytest.raises(DataError, match=r"no files of a known format.* such as `columns: \[tokens, ner\]`"):
        (folder / "train.conllu").unlink()
        (folder / "dev.conllu").unlink()
        load(tmp_path, TOKENS, {"ner": "ner"}, path="ner [v1]")
