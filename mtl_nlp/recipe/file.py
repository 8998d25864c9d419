"""The reading of a recipe file: YAML with environment variables and overrides becomes plain data."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from mtl_nlp.errors import RecipeError
from mtl_nlp.messages import one_line

_VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::-(?P<default>[^}]*))?\}")


def read_yaml(path: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Read a recipe file, apply overrides and replace environment variables.

    Args:
        path: the file.
        overrides: `key.path=value` strings; values are read as YAML.

    Raises:
        RecipeError: if the file cannot be read, an override is malformed, or a variable is not set.
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
    """Replace `${VAR}` in all strings by the environment variable."""
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


def relative_paths(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe as plain data without absolute local paths, so that it does not depend on this machine.

    A path of a dataset becomes `./<dataset>/`, followed by the part of the path below the folder that all paths of
    the dataset share. Any other path becomes `./`, followed by the last part of the path.

    Args:
        data: the recipe as plain data, with absolute paths.
    """
    datasets = {}
    for name, dataset in data["datasets"].items():
        names = {key: dataset[key] for key in ("inputs", "labels", "columns", "splits") if key in dataset}
        rest = {key: value for key, value in dataset.items() if key not in names}
        folders = [str(path.parent) for path in _paths_in(rest)]
        datasets[name] = {**_relative(rest, f"./{name}", Path(os.path.commonpath(folders or ["."]))), **names}
    return {**{key: _relative(value, ".", None) for key, value in data.items()}, "datasets": datasets}


def _relative(value: Any, folder: str, common: Path | None) -> Any:
    if isinstance(value, dict):
        return {key: _relative(item, folder, common) for key, item in value.items()}
    if isinstance(value, list):
        return [_relative(item, folder, common) for item in value]
    path = _absolute_path(value)
    if path is not None:
        return f"{folder}/{path.name if common is None else path.relative_to(common)}"
    if isinstance(value, str) and "::" in value:  # the notation of fsspec for a file inside an archive
        return "::".join(_relative(part, folder, common) for part in value.split("::"))
    return value


def _paths_in(value: Any) -> Iterator[Path]:
    """Yield all absolute paths in plain data."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _paths_in(item)
    elif (path := _absolute_path(value)) is not None:
        yield path
    elif isinstance(value, str) and "::" in value:
        yield from _paths_in(value.split("::"))


def _absolute_path(value: Any) -> Path | None:
    path = Path(value.removeprefix("file://").removeprefix("local://")) if isinstance(value, str) else Path()
    # A bare "/" may be a delimiter and does not count as a path.
    return path if path.is_absolute() and path.name else None
