from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from plain_recipes import changed, write

from mtl_nlp.recipe.files import ending_of, is_files, is_local, names_in
from mtl_nlp.recipe.local_paths import relative_paths
from mtl_nlp.recipe.schema import Recipe


@pytest.mark.parametrize(
    ("path", "ending"),
    [("a.csv", ".csv"), ("x/a.b.JSONL", ".jsonl"), ("a.csv.gz", ".csv"), ("data/*.tsv", ".tsv"), ("glue", "")],
)
def test_ending_of_a_file_is_that_of_its_format(path, ending):
    assert ending_of(path) == ending


def test_files_are_told_from_folders_and_hub_ids(tmp_path):
    (tmp_path / "spark.csv").mkdir()
    (tmp_path / "data [v2]").mkdir()
    (tmp_path / "notes").write_text("a")
    files = ("missing.csv", "*.jsonl", "part*", "notes", "https://host/a.csv")
    others = ("spark.csv", "data [v2]", "owner/name", "json", "https://host/a")
    found = {path: is_files(path if "://" in path else str(tmp_path / path)) for path in (*files, *others)}
    assert found == {**dict.fromkeys(files, True), **dict.fromkeys(others, False)}
    local = {path: is_local(path, tmp_path) for path in ("owner/name", "./owner/name", "spark.csv", "notes", "glue")}
    assert local == {"owner/name": False, "./owner/name": True, "spark.csv": True, "notes": True, "glue": False}


def test_names_of_splits_are_found_in_slices():
    assert names_in("train[:80%]+dev") >= {"train", "dev"}
    assert names_in("dev-clean") == {"dev-clean"}


def file_recipe(folder: Path, **dataset: object) -> Recipe:
    """Return the plain recipe with a dataset without data files, or with the given keys."""
    data = changed("datasets.ewt.data_files", ...)
    data["datasets"]["ewt"].update(dataset)
    return Recipe.load(write(folder, data))


def test_file_is_found_beside_the_recipe_and_its_place_does_not_enter_the_fingerprint(tmp_path, monkeypatch):
    (tmp_path / "blob").write_text("text,y\n")
    (tmp_path / "tickets.csv").symlink_to(tmp_path / "blob")
    recipe = file_recipe(tmp_path, path="tickets.csv")
    assert recipe.datasets["ewt"].files == {"train": [str(tmp_path / "tickets.csv")]}
    shared = relative_paths(yaml.safe_load(recipe.to_yaml()))
    assert shared["datasets"]["ewt"]["path"] == "./ewt/tickets.csv"
    monkeypatch.setenv("MTL_TICKETS", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    other = file_recipe(tmp_path / "elsewhere", path="${MTL_TICKETS}/tickets.csv")
    assert (other.datasets["ewt"].path, other.sha256()) == (recipe.datasets["ewt"].path, recipe.sha256())
    assert yaml.safe_load(other.to_yaml())["datasets"]["ewt"]["path"] == "${MTL_TICKETS}/tickets.csv"


def test_a_file_or_list_of_data_files_is_the_training_split(tmp_path, monkeypatch):
    monkeypatch.setenv("MTL_TICKETS", "qqfile77")
    one = file_recipe(tmp_path, data_files="${MTL_TICKETS}.jsonl")
    assert one.datasets["ewt"].files == {"train": [str(tmp_path / "qqfile77.jsonl")]}
    assert yaml.safe_load(one.to_yaml())["datasets"]["ewt"]["data_files"] == [f"{tmp_path}/${{MTL_TICKETS}}.jsonl"]
    two = file_recipe(tmp_path, data_files=["a/x.jsonl", "b/x.jsonl"])
    assert two.datasets["ewt"].files["train"] == [str(tmp_path / "a/x.jsonl"), str(tmp_path / "b/x.jsonl")]
    shared = relative_paths(yaml.safe_load(two.to_yaml()))["datasets"]["ewt"]["data_files"]
    assert shared == ["./ewt/train/1/x.jsonl", "./ewt/train/2/x.jsonl"]
