from __future__ import annotations

import pytest
from plain_recipes import PLAIN, changed, write

from mtl_nlp.errors import RecipeError
from mtl_nlp.recipe.file import relative_paths
from mtl_nlp.recipe.schema import Recipe


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("mixture.temperature=2.5", lambda recipe: recipe.mixture.temperature == 2.5),
        ("mixture.temperature=[5, 0.5]", lambda recipe: recipe.mixture.temperature == [5.0, 0.5]),
        ("mixture.temperature=.inf", lambda recipe: recipe.mixture.temperature == float("inf")),
        ("mixture.probabilities={ewt: 1}", lambda recipe: recipe.mixture.probabilities == {"ewt": 1.0}),
        ("mixture.batching=homogeneous", lambda recipe: recipe.mixture.batching == "homogeneous"),
        ("training.learning_rate=2.0e-4", lambda recipe: recipe.training == {"learning_rate": 2.0e-4}),
        ("datasets.ewt.labels.genre=topic", lambda recipe: recipe.datasets["ewt"].labels["genre"] == "topic"),
        ("loss.weights={genre: 0.5}", lambda recipe: recipe.loss.weights == {"genre": 0.5}),
        ("encoder=a=b", lambda recipe: recipe.encoder == "a=b"),
        ("stride=null", lambda recipe: recipe.stride is None),
    ],
)
def test_set_overrides_one_key(tmp_path, override, read):
    assert read(Recipe.load(write(tmp_path, PLAIN), [override]))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("mixture.temperature", r"--set takes key\.path=value\. Found 'mixture\.temperature'"),
        ("=3", r"--set takes key\.path=value"),
        ("encoder.name=3", "'encoder' is a value, not a section"),
        ("encoder=[", "the value is not valid YAML"),
        ("mixture.temprature=2", r"^mixture\.temprature: unknown key\. Did you mean 'temperature'"),
    ],
)
def test_a_bad_override_is_explained(tmp_path, override, message):
    with pytest.raises(RecipeError, match=message):
        Recipe.load(write(tmp_path, PLAIN), [override])


def test_environment_variables_are_read_with_their_defaults(tmp_path, monkeypatch):
    monkeypatch.setenv("MTL_ENCODER", "from-environment")
    monkeypatch.delenv("MTL_UNSET", raising=False)
    data = changed("encoder", "${MTL_ENCODER}") | {"output_dir": "runs/${MTL_UNSET:-a}/${MTL_ENCODER:-b}"}
    recipe = Recipe.load(write(tmp_path, data))
    assert recipe.encoder == "from-environment"
    assert recipe.output_dir == str(tmp_path / "runs/a/from-environment")


def test_an_unset_variable_is_named_with_its_key(tmp_path, monkeypatch):
    monkeypatch.delenv("MTL_UNSET", raising=False)
    data = changed("datasets.ewt.data_files.test", ["x", "${MTL_UNSET}/y"])
    message = r"^datasets\.ewt\.data_files\.test\[1\]: the environment variable MTL_UNSET is not set"
    with pytest.raises(RecipeError, match=message):
        Recipe.load(write(tmp_path, data))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("encoder: [", "is not valid YAML"),
        ("- encoder", "should be a mapping of keys. Found list"),
        ("", "should be a mapping of keys. Found NoneType"),
    ],
)
def test_file_without_a_recipe_is_explained_in_one_line(tmp_path, text, message):
    with pytest.raises(RecipeError, match=message) as caught:
        Recipe.load(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(RecipeError, match=r"nowhere\.yaml cannot be read: No such file"):
        Recipe.load(tmp_path / "nowhere.yaml")
    (tmp_path / "latin.yaml").write_bytes("encoder: café".encode("latin-1"))
    with pytest.raises(RecipeError, match=r"latin\.yaml is not UTF-8"):
        Recipe.load(tmp_path / "latin.yaml")


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
    ewt = found["datasets"]["ewt"]
    assert (ewt["delimiter"], ewt["data_dir"], ewt["labels"]["pos"]) == ("/", "./ewt/ewt", "/upos")
    assert found["tasks"] == data["tasks"]
    assert "/home" not in str(found)


def test_shared_recipe_is_valid_and_unchanged_by_sharing_again(tmp_path):
    recipe = Recipe.load(write(tmp_path, PLAIN))
    others = recipe.without_local_paths()
    assert str(tmp_path) not in others.to_yaml()
    assert others.datasets["ewt"].data_files == {
        "train": ["./ewt/train.jsonl"],
        "test": ["./ewt/a.jsonl", "./ewt/b/*.jsonl"],
    }
    assert others.without_local_paths() == others
    assert recipe.datasets["ewt"].data_files["train"] == [str(tmp_path / "train.jsonl")]
