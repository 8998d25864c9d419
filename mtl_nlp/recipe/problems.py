"""The problems that pydantic finds in a recipe, in one line for the user. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from mtl_nlp.messages import conceal, did_you_mean
from mtl_nlp.recipe.plain_yaml import Unquoted
from mtl_nlp.recipe.resume import section_of
from mtl_nlp.recipe.variables import Place, has_variable, value_at


def explain(error: ValidationError, written: Mapping[str, Any], schema: type[BaseModel]) -> str:
    """Return the first problem of a recipe as one line with the key, and with the nearest valid key for an unknown key.

    Args:
        error: the problems.
        written: the recipe as plain data with its variables, which are shown instead of their values.
        schema: the schema of the recipe.
    """
    problems = error.errors()
    # A misspelt key is also a missing key.
    first = next((each for each in problems if each["type"] == "extra_forbidden"), problems[0])
    where = _key_of(first)
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        valid = _fields_at(first["loc"][:-1], schema)
        message = f"unknown key. {did_you_mean(str(first['loc'][-1]), valid)}"
    elif first["type"] == "missing":
        message = "this key is missing"
    elif first["type"] in {"model_type", "model_attributes_type"} and first["loc"]:
        keys = ", ".join(_fields_at(first["loc"], schema))
        message = f"should be a section with the keys {keys}. Found {conceal(repr(first['input'])):.80}"
    elif first["type"] not in {"value_error", "assertion_error"}:
        text = value_at(written, first["loc"])
        found = repr(text) if has_variable(text) else conceal(repr(first["input"]))
        # Each type that a key may have is a problem of its own.
        rules = dict.fromkeys(_rule_of(each) for each in problems if _key_of(each) == where)
        message = f"should be {' or '.join(rules)}. Found {found:.80}"
        is_for_text = "a text" in rules and "true or false" not in rules
        if is_for_text and isinstance(first["input"], bool | int | float):
            message += ". YAML reads it so; write it in quotes"
        if first["type"] == "literal_error" and (near := get_close_matches(str(first["input"]), _literals(first), 1)):
            message += f". Did you mean {near[0]!r}?"
    return f"{where}: {message}".removeprefix(": ")


def texts_wanted(error: ValidationError, data: Mapping[str, Any], written: Mapping[str, Any]) -> list[Place]:
    """Return the places of typed values of variables where the schema wants a text.

    Args:
        error: the problems of a recipe.
        data: the recipe with the values of its variables.
        written: the recipe as plain data with its variables.
    """
    places = [_place_of(problem, written) for problem in error.errors() if problem["type"] == "string_type"]
    return [
        place
        for place in dict.fromkeys(places)
        if isinstance(value_at(written, place), Unquoted) and not isinstance(value_at(data, place), str)
    ]


def _place_of(problem: ErrorDetails, written: Any) -> Place:
    """Return the place of a problem, without the types that pydantic has tried."""
    place: list[str | int] = []
    for part in problem["loc"]:
        inner = value_at(written, (part,))
        if inner is not None:
            place, written = [*place, part], inner
    return tuple(place)


def _key_of(problem: ErrorDetails) -> str:
    """Return the path of a key, without the types that pydantic has tried, such as `list[str]`."""
    path = re.sub(r"\.(function-\w+\[[^\]]*\]|[A-Z]\w*Recipe)(?=\.|$)", "", ".".join(map(str, problem["loc"])))
    return re.sub(r"\.(bool|str|int|float|constrained-\w+|(list|dict|literal)\[.*)$", "", path)


_RULES = {
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "string": "a text",
    "list": "a list",
    "dict": "a section with keys and values",
    "finite_number": "a finite number",
    "greater_than_equal": "at least {ge:g}",
    "greater_than": "above {gt:g}",
    "less_than_equal": "at most {le:g}",
    "less_than": "below {lt:g}",
    "literal_error": "{expected}",
}
"""The start of the type of a problem -> the rule that the value breaks."""


def _rule_of(problem: ErrorDetails) -> str:
    """Return the rule that a value breaks, in words that follow `should be`."""
    for start, rule in _RULES.items():
        if problem["type"] == start or problem["type"].partition("_")[0] == start:
            return rule.format(**problem.get("ctx", {}))
    return problem["msg"].removeprefix("Input should be ")


def _literals(problem: ErrorDetails) -> list[str]:
    """Return the valid values of a key that has an invalid one."""
    return re.findall(r"'([^']+)'", problem["ctx"]["expected"])


def _fields_at(location: Sequence[int | str], schema: type[BaseModel]) -> list[str]:
    """Return the valid keys of the section that has an unknown key."""
    section = schema
    parts = iter(location)
    for part in parts:
        if section.__name__ in str(part):  # one of the types that pydantic has tried
            continue
        field = section.model_fields[str(part)]
        section = section_of(field) or section
        if get_origin(field.annotation) is dict:
            next(parts)  # a name, such as that of a task
    return list(section.model_fields)
