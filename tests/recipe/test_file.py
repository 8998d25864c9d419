from __future__ import annotations

import re

import pytest
from plain_recipes import PLAIN, write

from mtl_nlp.errors import RecipeError
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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &a [*a]", "at most 100000 values and 50 levels"),
        (
            "a: &a0 [x, x]\n" + "\n".join(f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]" for n in range(9)),
            "at most",
        ),
        (
            "a: !!omap\n- x: &x [x, x]\n- y: " + "[" * 30 + "y" + "]" * 30 + "\n- z: *x\nb: " + "[" * 60 + "]" * 60,
            "50 levels",
        ),
        (f"a: &a [{'x, ' * 90_000}]\nb: [{'*a, ' * 9_000}]", "at most 100000 values"),
        ("[" * 5000, "is not valid YAML"),
        ("a: !!int x", "is not valid YAML"),
        ("encoder: x\nencoder: y", r"is not valid YAML: the key `encoder` of line 1 is given again in line 2\.$"),
        ("a:\n\tb: 1", r"\(indent with spaces instead of tabs\) in line 2\.$"),
        ("a: {b: ${X:-1}}", r"\(a variable inside \{\} or \[\] needs quotes\) in line 1\.$"),
        ("a: 1\n---\na: 2", r"is not valid YAML: but found another document in line 2\.$"),
    ],
)
def test_files_that_would_exhaust_memory_or_fail_late_are_refused(tmp_path, text, message):
    with pytest.raises(RecipeError, match=message):
        Recipe.load(write(tmp_path, text))


def test_a_malformed_override_is_named_without_its_value(tmp_path):
    for override in ("encoder=[s3cretvalue", "encoder.key=s3cretvalue"):
        with pytest.raises(RecipeError) as caught:
            Recipe.load(write(tmp_path, PLAIN), [override])
        assert "s3cretvalue" not in str(caught.value)


@pytest.mark.parametrize(
    "line",
    ['"s3cretvalue', "s3cretvalue: x", "*s3cretvalue", "!s3cretvalue x", "s3cret\tvalue: [", '"\\xzz s3cretvalue"'],
)
def test_a_line_that_is_not_valid_is_named_without_its_content(tmp_path, line):
    with pytest.raises(RecipeError, match=r"is not valid YAML: .+ in line \d\.$") as caught:
        Recipe.load(write(tmp_path, f"encoder: x\ntraining:\n  hub_token: {line}\n"))
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "tag"),
    [
        ("!!set {/home/ada/x}", "!!set"),
        ("!!binary cXE3N3FxNzc=", "!!binary"),
        ("[!!pairs [token: qq77]]", "!!omap or !!pairs"),
        ("{a: !!omap [password: qq77]}", "!!omap or !!pairs"),
    ],
)
def test_values_in_which_no_secret_would_be_found_are_refused(tmp_path, value, tag):
    message = re.escape(f"should have only mappings, lists, texts and numbers. Found {tag}.")
    with pytest.raises(RecipeError, match=message):
        Recipe.load(write(tmp_path, f"encoder: x\ntraining: {value}\n"))
    with pytest.raises(RecipeError, match=message):
        Recipe.load(write(tmp_path, PLAIN), [f"training.run_name={value}"])
