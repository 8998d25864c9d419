from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from mtl_nlp.modeling.tasks_multitask import TASK_TYPES
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.run.arguments import RESERVED
from mtl_nlp.run.json_schema import meanings, recipe_schema
from mtl_nlp.training.arguments import MultitaskTrainingArguments

RECIPES = Path(__file__).parents[2] / "recipes"
OWN = set(MultitaskTrainingArguments.__annotations__)


@pytest.fixture(scope="module")
def schema() -> dict:
    return recipe_schema()


def own_part(schema: dict) -> dict:
    """Return a schema without the training arguments of transformers, which differ between its versions."""
    training = schema["$defs"]["training"]
    kept = {name: each for name, each in training["properties"].items() if name in OWN}
    return {**schema, "$defs": {**schema["$defs"], "training": {**training, "properties": kept}}}


def test_every_key_has_a_meaning(schema):
    sections = {"": schema, **schema["$defs"]}
    sections |= {each["title"]: each for each in schema["$defs"]["task"]["oneOf"]}
    missing = [
        f"{name}.{key}"
        for name, section in sections.items()
        for key, each in section.get("properties", {}).items()
        if not each.get("description") and not (name == "training" and key in OWN | {"length_column_name"})
    ]
    assert missing == []
    assert schema["properties"].keys() == Recipe.model_fields.keys()
    assert schema["properties"]["max_length"]["description"].startswith("number of sub-words")
    assert schema["$defs"]["MixtureRecipe"]["properties"]["temperature"]["default"] == 1.0


def test_tasks_and_training_have_their_options(schema):
    tasks = {each["title"]: each["properties"] for each in schema["$defs"]["task"]["oneOf"]}
    assert tasks.keys() == TASK_TYPES.keys()
    scheme = tasks["token-classification"]["scheme"]
    assert scheme["default"] is None
    assert scheme["type"] == ["string", "null"]
    assert "iob2" in scheme["description"]
    training = schema["$defs"]["training"]["properties"]
    assert training["learning_rate"]["type"] == "number"
    assert training["head_learning_rate"]["description"].startswith("the learning rate of the new layers")
    assert {"no", "steps", "epoch", False} <= set(training["eval_strategy"]["enum"])
    assert False not in training["hub_strategy"]["enum"]
    assert not RESERVED.keys() & training.keys()


def test_the_schema_beside_the_recipes_is_current(schema):
    stored = json.loads((RECIPES / "schema.json").read_text(encoding="utf-8"))
    assert own_part(stored) == own_part(json.loads(json.dumps(schema))), "mtl-nlp schema > recipes/schema.json"


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.name)
def test_the_recipes_fit_the_schema(schema, path):
    jsonschema = pytest.importorskip("jsonschema")
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=schema.json\n")
    jsonschema.validate(yaml.safe_load(text), schema)


@pytest.mark.parametrize(
    "change",
    [
        {"encodr": "x"},
        {"training": {"learning_rat": 1}},
        {"training": {"learning_rate": "fast"}},
        {"tasks": {"pos": {"type": "token-classification", "shceme": "iob2"}}},
        {"mixture": {"batching": "both"}},
    ],
)
def test_mistakes_do_not_fit_the_schema(schema, change):
    jsonschema = pytest.importorskip("jsonschema")
    recipe = yaml.safe_load((RECIPES / "quickstart.yaml").read_text(encoding="utf-8"))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**recipe, **change}, schema)


OWN_TYPE = {"tasks": {"own": {"type": "topic", "size": 3}}}


@pytest.mark.parametrize(
    ("change", "fits"),
    [
        ({"tasks": {"t": {"type": "text-classification", "metrics": "accuracy"}}}, True),
        ({"tasks": {"t": {"type": "text-classification", "metrics": ["accuracy"]}}}, True),
        ({"tasks": {"t": {"type": "text-classification", "metrics": 1}}}, False),
        ({"tasks": {"t": {"type": "text-classification", "names": {0: "a"}}}}, True),
        ({"tasks": {"t": {"type": "multi-label-classification", "threshold": "tuned"}}}, True),
        ({"tasks": {"t": {"type": "multi-label-classification", "threshold": 0.3}}}, True),
        ({"training": {"trackio_static_space_id": "me/space"}}, True),
        ({"training": {"trackio_static_space_id": False}}, True),
        ({"training": {"trackio_static_space_id": 3}}, False),
        ({"training": {"eval_strategy": False, "save_strategy": "no"}}, True),
        ({"training": {"eval_strategy": "sometimes"}}, False),
        ({"training": {"hub_strategy": False}}, False),
        ({"imports": ["my_module"], **OWN_TYPE}, True),
        (OWN_TYPE, False),
        ({"imports": ["my_module"], "tasks": {"t": {"type": "regression", "normalise": True}}}, False),
    ],
)
def test_the_schema_accepts_the_forms_that_the_program_accepts(schema, change, fits):
    jsonschema = pytest.importorskip("jsonschema")
    recipe = yaml.safe_load((RECIPES / "quickstart.yaml").read_text(encoding="utf-8"))
    errors = list(jsonschema.Draft202012Validator(schema).iter_errors({**recipe, **change}))
    assert (errors == []) is fits, [error.message for error in errors]


def test_meanings_are_read_from_docstrings():
    class Documented:
        """A class.

        Args:
            one: the first
                argument.
            two (`int`): the second: a number.
        """

    assert meanings(Documented) == {"one": "the first argument.", "two": "the second: a number."}
