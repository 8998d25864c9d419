"""The reading of a recipe file: YAML and overrides become plain data."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from mtl_nlp.errors import RecipeError
from mtl_nlp.messages import one_line
from mtl_nlp.recipe.plain_yaml import load_yaml

_QUOTED = re.compile(r"(['\"])(?!<).{3,}\1")

_TAGS = {tuple: "!!omap or !!pairs", set: "!!set", bytes: "!!binary"}

_MOST_VALUES = 100_000
_DEEPEST = 50
_TOO_LARGE = f"should have at most {_MOST_VALUES} values and {_DEEPEST} levels. Its anchors and aliases make it larger."


def read_yaml(path: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Read a recipe file and apply overrides. Variables such as `${DATA}` stay as they are.

    Args:
        path: the file.
        overrides: `key.path=value` strings; values are read as YAML.

    Raises:
        RecipeError: if the file cannot be read or an override is malformed.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"Recipe {path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"Recipe {path} is not UTF-8: {error.reason} at byte {error.start}.") from error
    try:
        data = parse_yaml(text)
    except ValueError as error:
        raise RecipeError(f"Recipe {path} {error}") from error
    for override in overrides:
        _override(data, override)
    try:
        _check_values(data)
    except ValueError as error:
        raise RecipeError(f"Recipe {path} {error}") from error
    return data


def parse_yaml(text: str) -> dict[str, Any]:
    """Return the keys and values of a YAML text that may come from outside.

    Raises:
        ValueError: if the text is not YAML with keys, its aliases stand for very many values, or a value has a type
            such as `!!set`. The message continues a sentence that starts with the name of the file.
    """
    try:
        data = load_yaml(text)
    except yaml.MarkedYAMLError as error:
        # The complete message quotes the line, which may hold a secret, and `problem` quotes aliases and tags.
        problem, mark = _QUOTED.sub("…", str(error.problem)), error.problem_mark
        where = "" if mark is None else f" in line {mark.line + 1}"
        lines = [] if mark is None else text.splitlines()[mark.line : mark.line + 1]
        raise ValueError(f"is not valid YAML: {problem}{_advice(str(error.problem), lines)}{where}.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a tag that does not fit its value
        raise ValueError(f"is not valid YAML: {one_line(error)}.") from error
    if not isinstance(data, dict):
        raise ValueError(f"should be a mapping of keys. Found {type(data).__name__}.")
    _check_values(data)
    return data


def _advice(problem: str, lines: list[str]) -> str:
    """Return a remedy for a frequent problem; empty for any other.

    Args:
        problem: the problem that PyYAML names.
        lines: the line with the problem, if it is known.
    """
    if "'\\t'" in problem:
        return " (indent with spaces instead of tabs)"
    if problem.startswith("expected ',' or") and any("${" in line for line in lines):
        return " (a variable inside {} or [] needs quotes)"
    return ""


def _check_values(data: Any) -> None:
    if not _is_small(data):
        raise ValueError(_TOO_LARGE)
    open_values = [data]
    while open_values:
        value = open_values.pop()
        if isinstance(value, dict | list):
            open_values += value.values() if isinstance(value, dict) else value
        elif isinstance(value, tuple | set | bytes):  # `!!omap`, `!!pairs`, `!!set` and `!!binary`
            # Secrets and local paths are found in mappings, lists and texts.
            raise ValueError(f"should have only mappings, lists, texts and numbers. Found {_TAGS[type(value)]}.")


def _is_small(data: Any) -> bool:
    """Return whether data has few values and levels. With aliases, a short file may hold any number of both."""
    count, level = 0, [data]
    for _ in range(_DEEPEST):
        inner = [each for each in level if isinstance(each, dict | list | tuple | set)]
        count += sum(map(len, inner))
        if not inner or count > _MOST_VALUES:
            return not inner
        level = [item for each in inner for item in (each.values() if isinstance(each, dict) else each)]
    return False


def section_of(data: dict[str, Any], key: str, where: str) -> tuple[dict[str, Any], str]:
    """Return the section of a recipe that holds a key, and the last part of the key.

    Args:
        data: the recipe as plain data; sections that the key needs are added.
        key: a key such as `loss.weights.ner`.
        where: the place of the key in messages.

    Raises:
        RecipeError: if the key continues after a value that is not a section.
    """
    *parents, last = key.split(".")
    section = data
    for parent in parents:
        if section.get(parent) is None:
            section[parent] = {}
        section = section[parent]
        if not isinstance(section, dict):
            raise RecipeError(f"{where}: {parent!r} is a value, not a section.")
    return section, last


def _override(data: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise RecipeError(f"--set takes key.path=value. Found {override!r}.")
    section, last = section_of(data, key, f"--set {key}")
    try:
        section[last] = load_yaml(value)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise RecipeError(f"--set {key}: the value is not valid YAML.") from error
