"""Environment variables in a recipe: `${VAR}` and `${VAR:-default}`. Imports no torch.

A variable is expanded in memory alone. All that is written, printed or sent holds the text of the recipe.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mtl_nlp.errors import RecipeError
from mtl_nlp.messages import remember_expanded
from mtl_nlp.recipe.plain_yaml import VARIABLE, Unquoted, typed
from mtl_nlp.recipe.secret_keys import is_secret_key

Place = tuple[str | int, ...]
"""The keys and indexes that lead to a value, such as `("datasets", "ewt", "data_files", "train", 0)`."""


_TEXT_ARGUMENTS = frozenset(
    {
        *("name", "revision", "data_dir", "sep", "delimiter", "quotechar", "escapechar", "lineterminator", "comment"),
        *("encoding", "encoding_errors", "field", "names", "column_names", "decimal", "thousands", "date_format"),
        *("cache_dir", "split"),
    }
)
"""Arguments of `datasets.load_dataset` that are texts, whatever the value of a variable looks like.

A configuration may be called `no`, and a revision may have digits only.
"""


def has_variable(value: Any) -> bool:
    """Return whether a value of a recipe is a text with a variable."""
    return isinstance(value, str) and VARIABLE.search(value) is not None


def expand(data: Mapping[str, Any]) -> dict[str, Any]:
    """Replace the variables in all texts of a recipe, except in the section `card`, which is published.

    A value that is one variable without quotes in YAML is typed like YAML, so that `${BF16:-false}` is false. A secret
    and a value of `storage_options` are always texts, and so is a longer text with a variable. An argument of a dataset
    such as `name` is a text or null.

    Args:
        data: the recipe as plain data.

    Raises:
        RecipeError: if a variable is not set and has no default.
    """
    return {key: value if key == "card" else _expand(value, str(key)) for key, value in data.items()}


def _expand(value: Any, key: str, *, is_text: bool = False) -> Any:
    if isinstance(value, dict):
        return {
            name: _text_or_null(item, f"{key}.{name}")
            if key.startswith("datasets.") and name in _TEXT_ARGUMENTS
            else _expand(item, f"{key}.{name}", is_text=is_text or name == "storage_options" or is_secret_key(name))
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [_expand(item, f"{key}[{index}]", is_text=is_text) for index, item in enumerate(value)]
    if not isinstance(value, str):
        return value
    text = _with_values(value, key)
    return typed(text) if isinstance(value, Unquoted) and not is_text else text


def _text_or_null(value: Any, key: str) -> Any:
    """Return the value of an argument that is a text, or null for a variable that is empty or null."""
    found = _expand(value, key, is_text=True)
    return None if isinstance(value, Unquoted) and typed(found) is None else found


def with_texts(expanded: Any, data: Any, places: Iterable[Place]) -> Any:
    """Return the result of [`expand`] with the text of some variables instead of its type, such as for a name.

    Args:
        expanded: the result of [`expand`].
        data: the recipe as plain data, as it stands in its file.
        places: the places of the values.
    """
    expanded = copy.deepcopy(expanded)
    for place in places:
        value_at(expanded, place[:-1])[place[-1]] = _with_values(value_at(data, place), ".".join(map(str, place)))
    return expanded


def texts_of_typed(data: Mapping[str, Any], expanded: Mapping[str, Any]) -> dict[Place, str]:
    """Return the texts of the environment that became numbers, booleans or null, by their place.

    Only training arguments are looked at: the schema of a recipe does not know their types.

    Args:
        data: the recipe as plain data, as it stands in its file.
        expanded: the result of [`expand`].
    """
    return {
        place: _with_values(text, ".".join(map(str, place)))
        for place, text in _places(data)
        if place[0] in {"training", "baselines"}
        and isinstance(text, Unquoted)
        and not isinstance(value_at(expanded, place), str)
    }


def _with_values(text: str, key: str) -> str:
    """Return a text with the values of its variables."""

    def look_up(match: re.Match[str]) -> str:
        found = os.environ.get(match["name"])
        if found:
            remember_expanded(found, f"${{{match['name']}}}")
            return found
        if match["default"] is None:
            raise RecipeError(
                f"{key}: the environment variable {match['name']} is not set or is empty. Set it: export "
                f"{match['name']}=…"
            )
        return match["default"]

    return VARIABLE.sub(look_up, text)


def texts_with_variables(
    data: Mapping[str, Any], resolved: Mapping[str, Any], expanded: Mapping[str, Any], folder: Path
) -> dict[Place, str]:
    """Return the texts of a recipe that hold variables, by their place.

    Args:
        data: the recipe as plain data, as it stands in its file.
        resolved: the expanded and checked recipe as plain data, with absolute paths.
        expanded: the result of [`expand`].
        folder: the folder of the recipe. A text whose value is a relative path is preceded by this folder, so that the
            text is valid in any folder.
    """
    texts: dict[Place, str] = {}
    for place, text in _places(data):
        if not has_variable(text):
            continue
        before, after = value_at(expanded, place), value_at(resolved, place)
        if isinstance(after, list) and len(after) == 1:  # a single data file is a list after the check of the recipe
            place, after = (*place, 0), after[0]
        if isinstance(after, str) and Path(after).is_absolute() and not Path(str(before)).is_absolute():
            start = folder.resolve()
            while text.startswith(("../", "./")):
                start = start.parent if text.startswith("../") else start
                text = text.partition("/")[2]
            text = str(start / text)
        texts[place] = text
    return texts


def _places(value: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Yield each value in plain data that is neither a dict nor a list, with its place."""
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _places(item, (*place, key))
    else:
        yield place, value


def value_at(data: Any, place: Place) -> Any:
    """Return the value at a place of plain data, or None if there is no such place."""
    for key in place:
        if isinstance(data, dict):
            data = data.get(key)
        elif isinstance(data, list) and isinstance(key, int) and key < len(data):
            data = data[key]
        else:
            return None
    return data


def put_texts(data: dict[str, Any], texts: Mapping[Place, str]) -> None:
    """Replace the values in plain data by the texts of [`texts_with_variables`]."""
    for (*parents, last), text in texts.items():
        section: Any = data
        for key in parents:
            section = section.setdefault(key, {}) if isinstance(section, dict) else section[key]
        section[last] = text
