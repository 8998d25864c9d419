"""The JSON schema of recipes: every key with its meaning, its type and its default.

The meanings are those of the docstrings: `Attributes` of the sections, `Args` of the task types, and the help texts of
the training arguments.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel

from mtl_nlp.messages import json_text
from mtl_nlp.modeling.tasks_multitask import TASK_TYPES, Task
from mtl_nlp.recipe.resume import section_of
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.run.arguments import RESERVED
from mtl_nlp.run.other_names import NOT_IN_RECIPES
from mtl_nlp.training.arguments import MultitaskTrainingArguments
from mtl_nlp.training.ranges import RANGES

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_ITEM = re.compile(r"^ {4}(\w+)(?: \([^)]*\))?: (.*(?:\n {8}.*)*)", re.MULTILINE)
_TYPES: dict[Any, str] = {
    int: "integer",
    float: "number",
    bool: "boolean",
    str: "string",
    dict: "object",
    Mapping: "object",
    list: "array",
    tuple: "array",
}
_TASK = {"$ref": "#/$defs/task"}
_TRAINING = {"$ref": "#/$defs/training"}


def recipe_schema() -> dict[str, Any]:
    """Return the JSON schema of a recipe as plain data."""
    schema = _without_titles(Recipe.model_json_schema())
    for name, section in _sections(Recipe):
        _describe(schema if section is Recipe else schema["$defs"][name], section)
    schema["$defs"] |= {"task": _tasks(), "own_task": _own_task(), "training": _training()}
    # Only a recipe with `imports` can have types that this package does not have.
    schema["properties"]["tasks"]["additionalProperties"] = {"anyOf": [_TASK, {"$ref": "#/$defs/own_task"}]}
    schema |= {
        "if": {"not": {"required": ["imports"]}},
        "then": {"properties": {"tasks": {"additionalProperties": _TASK}}},
    }
    for section in (schema, schema["$defs"]["BaselinesRecipe"], schema["$defs"]["BaselineTaskRecipe"]):
        meaning = section["properties"]["training"]["description"]
        section["properties"]["training"] = {**_TRAINING, "description": meaning, "default": {}}
    return {"$schema": DIALECT, "title": "mtl_nlp recipe", **schema}


def with_definitions(section: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a section with the definitions that the section refers to, also through others.

    Args:
        section: the schema of the section.
        definitions: all definitions of the recipe's schema by name.
    """
    used: dict[str, Any] = {}
    pending = [section]
    while pending:
        names = re.findall(r'"#/\$defs/(\w+)"', json_text(pending.pop()))
        new = {name: definitions[name] for name in names if name not in used}
        used |= new
        pending += new.values()
    return {**section, "$defs": {name: each for name, each in definitions.items() if name in used}}


def meanings(documented: type) -> dict[str, str]:
    """Return the text on each attribute or argument in the docstring of a class."""
    text = inspect.cleandoc(vars(documented).get("__doc__") or "")
    return {name: " ".join(meaning.split()) for name, meaning in _ITEM.findall(text)}


def _first_sentence(documented: type) -> str:
    return inspect.cleandoc(documented.__doc__ or "").partition("\n\n")[0].replace("\n", " ")


def _sections(section: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    yield section.__name__, section
    for each in section.model_fields.values():
        if (inner := section_of(each)) is not None:
            yield from _sections(inner)


def _describe(schema: dict[str, Any], section: type[BaseModel]) -> None:
    """Add the meanings and the defaults of a section's keys."""
    schema["description"] = _first_sentence(section)
    found = meanings(section)
    for name, each in section.model_fields.items():
        own = schema["properties"][name]
        own["description"] = found.get(name, "")
        default = None if each.is_required() else each.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            own["default"] = {}
        elif not each.is_required():
            own["default"] = default


def _without_titles(value: Any) -> Any:
    """Return a schema without the titles that pydantic makes from the names of keys."""
    if isinstance(value, dict):
        return {k: _without_titles(v) for k, v in value.items() if k != "title" or not isinstance(v, str)}
    return [_without_titles(each) for each in value] if isinstance(value, list) else value


def _tasks() -> dict[str, Any]:
    """Return the schema of a task: one of the types, each with its options."""
    return {
        "description": "A task: its type, and the options of the type. The names of the labels come from the data.",
        "type": "object",
        "required": ["type"],
        "oneOf": [_task(name, each) for name, each in TASK_TYPES.items()],
    }


def _own_task() -> dict[str, Any]:
    """Return the schema of a task of a type that a module of `imports` registers."""
    own = {"type": "string", "not": {"enum": list(TASK_TYPES)}, "description": "A type of a module of `imports`."}
    return {"title": "own type", "type": "object", "required": ["type"], "properties": {"type": own}}


def _task(name: str, task_type: type[Task]) -> dict[str, Any]:
    found: dict[str, str] = {}
    for base in reversed(task_type.__mro__):
        found |= meanings(base)
    hints = get_type_hints(task_type)
    properties: dict[str, Any] = {"type": {"const": name, "description": _first_sentence(task_type)}}
    for each in dataclasses.fields(task_type):
        if each.name not in {"name", "labels", *task_type.learned, *task_type.tuned}:
            hint = each.metadata.get("given", hints[each.name])
            properties[each.name] = _property(hint, found.get(each.name, ""), each)
    return {"title": name, "type": "object", "properties": properties, "additionalProperties": False}


def _training() -> dict[str, Any]:
    """Return the schema of the section `training`."""
    hints = get_type_hints(MultitaskTrainingArguments)
    found = meanings(MultitaskTrainingArguments)
    properties = {
        each.name: _property(hints[each.name], found.get(each.name) or str(each.metadata.get("help", "")), each)
        for each in dataclasses.fields(MultitaskTrainingArguments)
        if each.init and each.name not in RESERVED and each.name not in NOT_IN_RECIPES
    }
    for name, own in properties.items():
        if name in RANGES:
            own |= RANGES[name].json_schema()
        if "no" in own.get("enum", ()):  # YAML 1.1 reads `no` as false
            own["enum"].append(False)
    return {
        "description": _first_sentence(MultitaskTrainingArguments),
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }


def _property(hint: Any, meaning: str, field: dataclasses.Field[Any]) -> dict[str, Any]:
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    if isinstance(default, Enum):
        default = default.value
    shown = {"default": default} if isinstance(default, bool | int | float | str | list | dict | None) else {}
    return {**_schema_of(hint), "description": " ".join(meaning.split()), **shown}


def _schema_of(hint: Any) -> dict[str, Any]:
    """Return the schema of a type; an empty one, which allows everything, for a type that JSON does not have."""
    members = get_args(hint) if get_origin(hint) in {Union, types.UnionType} else (hint,)
    enums = [member for member in members if isinstance(member, type) and issubclass(member, Enum)]
    values = [each.value for member in enums for each in member]
    names = []
    for member in members:
        plain = get_origin(member) or member
        if plain is Literal:
            values += get_args(member)
        elif member is type(None):
            names.append("null")
        elif plain in _TYPES:
            # An enumeration that may be given as text has only its own values.
            names += [] if enums and plain is str else [_TYPES[plain]]
        elif member not in enums:
            return {}
    if not values or names == ["null"]:
        return {"enum": [*values, *([None] if names else [])]} if values else _typed(names)
    return {"anyOf": [{"enum": values}, _typed(names)]} if names else {"enum": values}


def _typed(names: list[str]) -> dict[str, Any]:
    return {"type": names[0] if len(names) == 1 else names}
