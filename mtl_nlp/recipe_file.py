"""The file of a recipe: YAML with environment variables and overrides, as plain data."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from mtl_nlp.messages import one_line

_VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::-(?P<default>[^}]*))?\}")


class RecipeError(ValueError):
    """A recipe that cannot be used; the message names the key and what to do."""


def read_yaml(path: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Read a recipe's file, with `key.path=value` overrides and environment variables put in.

    Raises:
        RecipeError: if the file cannot be read, an override is none, or a variable is not set.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"Recipe {path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"Recipe {path} is not UTF-8: {error.reason} at byte {error.start}.") from error
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"Recipe {path} is not valid YAML: {one_line(error)}.") from error
    if not isinstance(data, dict):
        raise RecipeError(f"Recipe {path} should be a mapping of keys. Found {type(data).__name__}.")
    for override in overrides:
        _override(data, override)
    return _expand(data, "")


def _override(data: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise RecipeError(f"--set takes key.path=value. Found {override!r}.")
    *parents, last = key.split(".")
    section = data
    for parent in parents:
        if section.get(parent) is None:
            section[parent] = {}
        section = section[parent]
        if not isinstance(section, dict):
            raise RecipeError(f"--set {override}: {parent!r} is a value, not a section.")
    try:
        section[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise RecipeError(f"--set {override}: the value is not valid YAML.") from error


def _expand(value: Any, key: str) -> Any:
    """Put environment variables in place of `${VAR}` in all strings."""
    if isinstance(value, dict):
        return {name: _expand(item, f"{key}.{name}".lstrip(".")) for name, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, f"{key}[{index}]") for index, item in enumerate(value)]
    if not isinstance(value, str):
        return value

    def look_up(match: re.Match[str]) -> str:
        found = os.environ.get(match["name"]) or match["default"]
        if found is None:
            raise RecipeError(
                f"{key}: the environment variable {match['name']} is not set. Set it: export {match['name']}=…"
            )
        return found

    return _VARIABLE.sub(look_up, value)
