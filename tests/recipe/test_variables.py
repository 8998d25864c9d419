from __future__ import annotations

import pytest
import yaml
from plain_recipes import PLAIN, changed, write

from mtl_nlp.errors import RecipeError
from mtl_nlp.recipe.schema import Recipe


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


@pytest.fixture(autouse=True)
def _environment(monkeypatch, tmp_path):
    values = {"PLACE": str(tmp_path / "qqplace"), "PART": "qqpart77", "NUMBER": "64", "MANY": "2.5", "WORD": "mixed"}
    for name, value in values.items():
        monkeypatch.setenv(f"MTL_{name}", value)
    monkeypatch.delenv("MTL_UNSET", raising=False)


def written(folder, data, *overrides):
    """Return a recipe, and its text as plain data."""
    recipe = Recipe.load(write(folder, data), overrides)
    return recipe, yaml.safe_load(recipe.to_yaml())


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("encoder", "${MTL_PART}/bert", "qqpart77/bert"),
        ("max_length", "${MTL_NUMBER}", 64),
        ("mixture.temperature", "${MTL_MANY}", 2.5),
        ("mixture.batching", "${MTL_WORD}", "mixed"),
        ("mixture.batching", "${MTL_UNSET:-mixed}", "mixed"),
        ("loss.weights.pos", "${MTL_MANY}", 2.5),
        ("training.run_name", "a-${MTL_PART}-b", "a-qqpart77-b"),
        ("model_init_kwargs.attn_implementation", "${MTL_UNSET:-eager}", "eager"),
        ("datasets.ewt.storage_options", {"key": "${MTL_PART}"}, {"key": "qqpart77"}),
        ("datasets.ewt.inputs.tokens", "${MTL_PART}", "qqpart77"),
        ("adapters", {"tasks": ["${MTL_UNSET:-pos}"], "r": "${MTL_NUMBER}"}, None),
    ],
)
def test_a_variable_is_expanded_in_memory_and_written_as_it_stands(tmp_path, key, text, value):
    recipe, data = written(tmp_path, changed(key, text))
    for part in key.split("."):
        data = data[part]
    assert data == text
    if value is not None:
        found = recipe.model_dump()
        for part in key.split("."):
            found = found[part]
        assert found == value
    assert Recipe.load(write(tmp_path, recipe.to_yaml())) == recipe
    assert "qqpart77" not in recipe.to_yaml()


def test_overrides_keep_their_variables(tmp_path):
    recipe, data = written(tmp_path, PLAIN, "training.run_name=${MTL_PART}", "max_length=${MTL_NUMBER}")
    assert (data["training"], data["max_length"]) == ({"run_name": "${MTL_PART}"}, "${MTL_NUMBER}")
    assert (recipe.training, recipe.max_length) == ({"run_name": "qqpart77"}, 64)


def test_relative_paths_with_variables_are_written_for_any_folder(tmp_path):
    files = {
        "train": "data/${MTL_PART}/a.jsonl",
        "validation": ["${MTL_PLACE}/b.jsonl", "${MTL_PART}/c.jsonl"],
        "test": "https://host/${MTL_PART}.jsonl",
    }
    data = changed("datasets.ewt.data_files", files) | {"output_dir": "runs/${MTL_PART}", "encoder": "${MTL_PART}"}
    (tmp_path / "qqpart77").mkdir()
    recipe, data = written(tmp_path, data)
    assert data["output_dir"] == f"{tmp_path}/runs/${{MTL_PART}}"
    assert data["encoder"] == f"{tmp_path}/${{MTL_PART}}"
    assert data["datasets"]["ewt"]["data_files"] == {
        "train": [f"{tmp_path}/data/${{MTL_PART}}/a.jsonl"],
        "validation": ["${MTL_PLACE}/b.jsonl", f"{tmp_path}/${{MTL_PART}}/c.jsonl"],
        "test": ["https://host/${MTL_PART}.jsonl"],
    }
    (tmp_path / "elsewhere").mkdir()
    assert Recipe.load(write(tmp_path / "elsewhere", recipe.to_yaml())) == recipe


def test_fingerprint_covers_the_values_of_variables(tmp_path, monkeypatch):
    data = changed("max_length", "${MTL_NUMBER}")
    before = Recipe.load(write(tmp_path, data)).sha256()
    assert before == Recipe.load(write(tmp_path, changed("max_length", 64))).sha256()
    monkeypatch.setenv("MTL_NUMBER", "65")
    assert before != Recipe.load(write(tmp_path, data)).sha256()


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("max_length", "${MTL_PART}"),
        ("mixture.temperature", "${MTL_PART}"),
        ("mixture.batching", "${MTL_PART}"),
        ("tasks.pos.scheme", "${MTL_PART}"),
        ("tasks.pos.type", "${MTL_PART}"),
        ("adapters", {"tasks": ["${MTL_PART}"]}),
        ("datasets.ewt.num_rows", "${MTL_PART}"),
    ],
)
def test_errors_name_the_variable_and_not_its_value(tmp_path, key, text):
    with pytest.raises(RecipeError) as caught:
        Recipe.load(write(tmp_path, changed(key, text)))
    assert "${MTL_PART}" in str(caught.value)
    assert "qqpart77" not in f"{caught.value} {caught.value.__cause__}".replace(str(caught.value.__cause__), "")


def test_a_short_value_of_a_variable_is_not_in_the_message(tmp_path, monkeypatch):
    monkeypatch.setenv("MTL_NUMBER", "3")
    with pytest.raises(RecipeError, match=r"^max_length: should be at least 8\. Found '\$\{MTL_NUMBER\}'$"):
        Recipe.load(write(tmp_path, changed("max_length", "${MTL_NUMBER}")))


@pytest.mark.parametrize("card", [{"license": "${MTL_PART}"}, {"language": ["en", "${MTL_UNSET:-de}"]}])
def test_the_card_refuses_variables(tmp_path, card):
    with pytest.raises(RecipeError, match=r"^card\.\w+: \$\{.*\} is a variable, and the card is published"):
        Recipe.load(write(tmp_path, changed("card", card)))


@pytest.mark.parametrize(
    ("key", "line", "value"),
    [
        ("training.bf16", "${MTL_UNSET:-false}", False),
        ("training.seed", "${MTL_NUMBER:-42}", 64),
        ("training.run_name", "${MTL_NUMBER}-${MTL_NUMBER}", "64-64"),
        ("training.run_name", '"${MTL_NUMBER}"', "64"),
        ("training.hub_token", "${MTL_NUMBER}", "64"),
        ("datasets.ewt.storage_options.key", "${MTL_NUMBER}", "64"),
        ("datasets.ewt.header", "${MTL_UNSET:-}", None),
        ("datasets.ewt.name", "${MTL_UNSET:-no}", "no"),
        ("datasets.ewt.revision", "${MTL_NUMBER}", "64"),
        ("datasets.ewt.name", "${MTL_UNSET:-}", None),
        ("datasets.ewt.skiprows", "${MTL_NUMBER}", 64),
        ("datasets.ewt.labels.genre", "${MTL_NUMBER}", "64"),  # the name of a column
        ("output_dir", "${MTL_NUMBER}", None),
        ("mixture.headroom", "${MTL_UNSET:-no}", False),
        ("loss.gradients", "${MTL_UNSET:-null}", None),
    ],
)
def test_a_variable_without_quotes_is_typed_like_yaml(tmp_path, key, line, value):
    text = yaml.safe_dump(changed(key, "PLACE"), sort_keys=False).replace("PLACE", line)
    recipe = Recipe.load(write(tmp_path, text))
    found = recipe.model_dump()
    for part in key.split("."):
        found = found[part]
    if key == "output_dir":
        assert found == str(tmp_path / "64")
    else:
        assert found == value
        assert type(found) is type(value)
    assert Recipe.load(write(tmp_path, recipe.to_yaml())) == recipe
    quoted = line.strip('"') if key == "output_dir" else line
    assert quoted in recipe.to_yaml()
