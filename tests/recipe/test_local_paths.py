from __future__ import annotations

from pathlib import Path

import pytest
from plain_recipes import PLAIN, changed, write

from mtl_nlp.recipe.local_paths import local_path, relative_paths, without_local_paths
from mtl_nlp.recipe.saved import SavedRecipe
from mtl_nlp.recipe.schema import Recipe


def shared(key: str, value: object) -> dict:
    """Return the plain recipe with one key set, as it is shared."""
    return relative_paths(changed(key, value))


@pytest.mark.parametrize(
    ("path", "relative"),
    [
        ("/home/ada/data/a.jsonl", "./ewt/a.jsonl"),
        ("file:///home/ada/data/a.jsonl", "./ewt/a.jsonl"),
        ("local:///home/ada/data/*.jsonl", "./ewt/*.jsonl"),
        ("zip://*.jsonl::/home/ada/data/a.zip", "zip://*.jsonl::./ewt/a.zip"),
        ("zip://a.jsonl::file:///home/ada/data/a.zip", "zip://a.jsonl::./ewt/a.zip"),
        ("a.jsonl", "a.jsonl"),
        ("hf://datasets/ada/ewt/a.jsonl", "hf://datasets/ada/ewt/a.jsonl"),
        ("https://example.org/home/a.jsonl", "https://example.org/home/a.jsonl"),
    ],
)
def test_shared_recipe_has_relative_paths(path, relative):
    assert shared("datasets.ewt.data_files", {"train": path})["datasets"]["ewt"]["data_files"] == {"train": relative}
    assert shared("datasets.ewt.data_files", {"train": [path]})["datasets"]["ewt"]["data_files"] == {
        "train": [relative]
    }


def test_shared_recipe_keeps_the_relative_positions_of_files():
    files = {
        "train": ["/home/ada/ewt/train/*.conllu", "/home/ada/ewt/more.conllu"],
        "test": "/home/ada/ewt/test/a.conllu",
    }
    assert shared("datasets.ewt.data_files", files)["datasets"]["ewt"]["data_files"] == {
        "train": ["./ewt/train/*.conllu", "./ewt/more.conllu"],
        "test": "./ewt/test/a.conllu",
    }


def test_shared_recipe_changes_only_local_paths():
    data = changed("training", {"deepspeed": "/home/ada/ds.json", "learning_rate": 0.1, "report_to": ["none"]})
    data |= {
        "encoder": "/home/ada/bert",
        "output_dir": "/home/ada/runs/x",
        "model_init_kwargs": {"cache_dir": "/cache/a"},
        "baselines": {"tasks": {"/pos": {"training": {"deepspeed": "/home/ada/ds.json"}}}},
    }
    data["datasets"]["ewt"] |= {
        "delimiter": "/",
        "data_dir": "/home/ada/ewt",
        "labels": {"pos": "/upos", "genre": "genre"},
    }
    found = relative_paths(data)
    assert (found["encoder"], found["output_dir"]) == ("./bert", "./x")
    assert found["training"] == {"deepspeed": "./ds.json", "learning_rate": 0.1, "report_to": ["none"]}
    assert found["model_init_kwargs"] == {"cache_dir": "./a"}
    assert found["baselines"] == {"tasks": {"/pos": {"training": {"deepspeed": "./ds.json"}}}}
    ewt = found["datasets"]["ewt"]
    assert (ewt["delimiter"], ewt["data_dir"], ewt["labels"]["pos"]) == ("/", "./ewt/ewt", "/upos")
    assert found["tasks"] == data["tasks"]
    assert "/home" not in str(found)


def test_shared_recipe_is_valid_and_unchanged_by_sharing_again(tmp_path):
    recipe = Recipe.load(write(tmp_path, PLAIN))
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    others = SavedRecipe.read(tmp_path / "recipe.yaml").without_local_paths()
    assert str(tmp_path) not in others.to_yaml()
    assert others.datasets["ewt"].data_files == {
        "train": ["./ewt/train.jsonl"],
        "test": ["./ewt/a.jsonl", "./ewt/b/*.jsonl"],
    }
    assert others.without_local_paths() == others
    assert recipe.datasets["ewt"].data_files["train"] == [str(tmp_path / "train.jsonl")]


@pytest.mark.parametrize(
    ("files", "relative"),
    [
        (
            {"train": "/a1/b1/x.jsonl", "test": "/c1/y.jsonl"},
            {"train": "./ewt/train/x.jsonl", "test": "./ewt/test/y.jsonl"},
        ),
        (
            {"train": ["/a1/b1/x.jsonl", "/c1/x.jsonl", "/c1/z.jsonl"], "test": "/d1/x.jsonl"},
            {
                "train": ["./ewt/train/1/x.jsonl", "./ewt/train/2/x.jsonl", "./ewt/train/z.jsonl"],
                "test": "./ewt/test/x.jsonl",
            },
        ),
        (
            {"train": "/u/v/a1/x.jsonl", "test": "/u/v/b1/x.jsonl"},
            {"train": "./ewt/train/x.jsonl", "test": "./ewt/test/x.jsonl"},
        ),
        (
            {"train": "C:\\a1\\x.jsonl", "test": "/b1/y.jsonl"},
            {"train": "./ewt/train/x.jsonl", "test": "./ewt/test/y.jsonl"},
        ),
        (
            {"train": "zip://*.txt::/a1/x.zip", "test": "/b1/y"},
            {"train": "zip://*.txt::./ewt/train/x.zip", "test": "./ewt/test/y"},
        ),
    ],
)
def test_files_without_a_shared_folder_keep_only_split_and_name(files, relative):
    assert shared("datasets.ewt.data_files", files)["datasets"]["ewt"]["data_files"] == relative


def test_the_home_folder_is_not_a_shared_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    files = {"train": "/home/ada/x.jsonl", "test": "/home/ada/a1/y.jsonl"}
    found = shared("datasets.ewt.data_files", files)["datasets"]["ewt"]["data_files"]
    assert found == {"train": "./ewt/train/x.jsonl", "test": "./ewt/test/y.jsonl"}
    assert without_local_paths("/home/ada") == without_local_paths("~") == without_local_paths("~ada") == "."


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("/home/ada/ds.json", "./ds.json"),
        ("/home/ada/My Data/ds.json", "./ds.json"),
        ("/home/ada/runs/", "./runs"),
        ("~/configs/ds.json", "./ds.json"),
        ("~ada/configs/ds.json", "./ds.json"),
        ("../../ada/ds.json", "./ds.json"),
        ("./../ada/ds.json", "./ds.json"),
        ("//home/ada/ds.json", "./ds.json"),
        ("--config=//home/ada/ds.json", "--config=./ds.json"),
        ("file:///home/ada/x", "./x"),
        ("file:/home/ada/x", "./x"),
        ("file://localhost/home/ada/x", "./x"),
        ("local:///home/ada/x", "./x"),
        ("C:\\Users\\ada\\x.json", "./x.json"),
        ("d:/Users/ada/x.json", "./x.json"),
        ("\\\\server\\ada\\x.json", "./x.json"),
        ("--config=/home/ada/x.json", "--config=./x.json"),
        ("--config=/home/ada/x.json,log=~/ada/log", "--config=./x.json,log=./log"),
        ("--config /home/ada/My Data/x.json", "--config ./x.json"),
        ("-I/home/ada/include", "-I./include"),
        ("ab:/home/ada/x", "ab:./x"),
        ("see file:///home/ada/x", "see ./x"),
        ("{'a': '/home/ada/x'}", "{'a': './x'}"),
        ("--config=C:\\Users\\ada\\x.json", "--config=./x.json"),
        ("zip://a/b::/home/ada/x.zip", "zip://a/b::./x.zip"),
        ("${CONFIGS:-/home/ada/configs}/x", "${CONFIGS:-./configs}/x"),
        ("/home/ada/${NAME}/x.json", "./x.json"),
        ("/home/ada/runs/${NAME:-/home/b}", "./${NAME:-./b}"),
        ("--config=/home/ada/${NAME}.json", "--config=./${NAME}.json"),
    ],
)
def test_local_paths_are_removed_from_texts(text, found):
    assert without_local_paths(text) == found
    assert without_local_paths(found) == found


@pytest.mark.parametrize(
    "text",
    [
        *("", "/", "//", "|/|", "microsoft/deberta-v3-base", "runs/x", "./x", "./ewt/a.jsonl", "and/or", "km/h", "1/2"),
        *("https://example.org/home/a.jsonl", "hf://datasets/ada/ewt/a.jsonl", "s3://bucket/a", "zip://a/b.txt"),
        *("see https://example.org/a/b, please", "${DATA}/x.jsonl", "${DATA:-data}/x", "\\d+\\s", "a: b", "~5"),
        *("2.0e-4", "max_seq=5,lr=2e-4", "a|b", "10:30", "adamw_torch", "reduce-overhead", "module.layer.*/weight"),
    ],
)
def test_texts_without_local_paths_stay_as_they_are(text):
    assert without_local_paths(text) == text
    assert local_path(text) is None


def test_local_paths_are_removed_from_lists_and_dicts_and_their_keys():
    data = changed("training", {"deepspeed": {"nvme_path": "/home/ada/nvme", "files": ["/home/ada/x", 3, None]}})
    data["model_init_kwargs"] = {"offload": {"/home/ada/off": "~/ada"}, "cache_dir": str(Path.home())}
    data["datasets"]["ewt"]["storage_options"] = {"fo": {"target": "file:///home/ada/x"}}
    found = relative_paths(data)
    assert found["training"] == {"deepspeed": {"nvme_path": "./nvme", "files": ["./x", 3, None]}}
    assert found["model_init_kwargs"] == {"offload": {"./off": "./ada"}, "cache_dir": "."}
    assert found["datasets"]["ewt"]["storage_options"] == {"fo": {"target": "./ewt/x"}}
    assert "/home" not in str(found)
