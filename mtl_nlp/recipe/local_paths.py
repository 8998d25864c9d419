"""The removal of local paths from a recipe, which is published with its model. Imports no torch."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any

from mtl_nlp.recipe.own_code import FUNCTIONS
from mtl_nlp.recipe.variables import VARIABLE

_NAMES = ("inputs", "labels", "columns", "splits", "stratify_by_column")
"""Keys of a dataset that hold names of columns, tasks and splits, and no paths."""

_OF_NAMES = ("tasks", "mixture", "loss", "adapters", "freeze")
"""Sections that hold names of tasks and datasets, numbers and options; `mixture.headroom` is their only path."""

_FILE_URL = re.compile(r"(?:file|local):(?://(?:localhost(?=/))?)?(?=[/~A-Za-z])")

_START = r"/+(?=[^\s/])|~[\w.-]*/|(?:\./+)*\.\./|[A-Za-z]:[\\/](?=\S)|\\\\[\w.$-]+\\"
"""The start of a path: of the root, a home, the folder above, or a drive or share of Windows."""

_WHOLE = re.compile(rf"(?:{_START}|~(?:[A-Za-z_][\w.-]*)?$)[^\n]*")

# A path inside a text, such as `--config=/home/ada/x.json`, or a URL, which stays.
_INSIDE = re.compile(
    rf"(?P<url>(?!(?:file|local):)[A-Za-z][\w+.-]+://[^\s,;'\"|<>]*)"
    rf"|(?:(?<![\w./~\\\0*?)\]}}-])|(?<=(?<!\w)-[A-Za-z]))(?P<path>(?:{_FILE_URL.pattern})?(?:{_START})[^,;'\"|<>=\n]*)"
)

_Rename = Callable[[PurePath], str]


def relative_paths(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe as plain data without local paths, so that it does not depend on this machine.

    A path of a dataset becomes `./<dataset>/`, followed by the part of the path below the folder that all paths of
    the dataset share and that holds at least one of them. Without such a folder, or if the folder contains the home
    folder, a data file becomes `./<dataset>/<split>/<name>`. Any other path, also one inside a longer text, becomes
    `./`, followed by the last part of the path. A text that starts with a variable, such as `${DATA}/train.jsonl`,
    stays as it is.

    Args:
        data: the recipe as plain data, with absolute paths.
    """
    datasets = {name: _relative_dataset(name, dataset) for name, dataset in data["datasets"].items()}
    names = {key: data[key] for key in _OF_NAMES if key in data}
    changed = {**_relative(data, _name_of, keys=False), **names, "datasets": datasets}
    if isinstance(mixture := data.get("mixture"), dict) and "headroom" in mixture:
        changed["mixture"] = {**mixture, "headroom": _relative(mixture["headroom"], _name_of)}
    if isinstance(distill := data.get("distill"), dict):
        # The keys of teachers are names of tasks.
        changed["distill"] = {key: _relative(value, _name_of, keys=False) for key, value in distill.items()}
    baselines = data.get("baselines")
    if isinstance(baselines, dict) and isinstance(tasks := baselines.get("tasks"), dict):
        # The keys are names of tasks.
        changed["baselines"] |= {"tasks": _relative(tasks, _name_of, keys=False)}
    return changed


def without_local_paths(text: str) -> str:
    """Return a text in which each local path is `./`, followed by the last part of the path."""
    return _relative(text, _name_of)


def local_path(text: str) -> PurePath | None:
    """Return the local path that a text consists of, or None for any other text.

    Paths relative to the current folder, such as `runs/x`, look like Hub ids and are not found.
    """
    text = _FILE_URL.sub("", text, count=1) if _FILE_URL.match(text) else text
    # A bare "/" may be a delimiter and does not count as a path.
    if _WHOLE.fullmatch(text) is None:
        return None
    is_windows = re.match(r"[A-Za-z]:[\\/]|\\\\", text) is not None
    return (PureWindowsPath if is_windows else PurePosixPath)(text)


def _name_of(path: PurePath) -> str:
    """Return `./` and the last part of a path, or `.` for a home folder, whose name is that of its user."""
    is_home = str(path) == str(Path.home()) or (len(path.parts) == 1 and str(path).startswith("~"))
    name = "" if is_home else path.name
    return f"./{name}" if name not in {"", ".."} else "."


def _relative_dataset(name: str, dataset: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: dataset[key] for key in _NAMES if key in dataset}
    kept |= {key: _relative(dataset[key], _name_of) for key in FUNCTIONS if key in dataset}
    rest = {key: value for key, value in dataset.items() if key not in kept}
    shared = _shared_folder(list(_paths_in(rest)))

    def below(path: PurePath) -> str:
        if shared is not None and path.is_relative_to(shared):
            return f"./{name}/{path.relative_to(shared)}"
        return f"./{name}/{_name_of(path).removeprefix('./')}"

    renamed = {key: _relative(value, below) for key, value in rest.items()}
    if shared is None and isinstance(files := rest.get("data_files"), dict):
        renamed["data_files"] = {split: _relative_files(name, split, each) for split, each in files.items()}
    elif shared is None and isinstance(files, list):
        renamed["data_files"] = _relative_files(name, "train", files)
    return {**renamed, **kept}


def _relative_files(name: str, split: str, files: Any) -> Any:
    """Return the files of a split in a folder named after the split. Files of equal names get a folder each."""
    count = Counter(path.name for path in _paths_in(files))
    numbers: Counter[str] = Counter()

    def in_split(path: PurePath) -> str:
        numbers[path.name] += 1
        folder = f"{numbers[path.name]}/" if count[path.name] > 1 else ""
        return f"./{name}/{split}/{folder}{_name_of(path).removeprefix('./')}"

    return _relative(files, in_split)


def _shared_folder(paths: list[PurePath]) -> PurePosixPath | None:
    """Return the folder that contains all paths and is the parent of one, unless it contains the home folder."""
    folders = [str(path.parent) for path in paths if path.is_absolute() and isinstance(path, PurePosixPath)]
    if not folders or len(folders) < len(paths):
        return None
    common = os.path.commonpath(folders)
    return PurePosixPath(common) if common in folders and not Path.home().is_relative_to(common) else None


def _paths_in(value: Any) -> Iterator[PurePath]:
    """Yield the local paths in plain data that are complete texts, or parts of a text between `::`."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _paths_in(item)
    elif isinstance(value, str):
        # `::` is the notation of fsspec for a file inside an archive.
        yield from (path for part in value.split("::") if (path := local_path(part)) is not None)


def _relative(value: Any, rename: _Rename, *, keys: bool = True) -> Any:
    """Return plain data in which `rename` has replaced all local paths, by default also in the keys of dicts."""
    if isinstance(value, dict):
        return {
            _relative(key, rename) if keys and isinstance(key, str) else key: _relative(item, rename)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_relative(item, rename) for item in value]
    return _relative_text(value, rename) if isinstance(value, str) else value


def _relative_text(text: str, rename: _Rename) -> str:
    # Variables are kept apart, since their defaults may be paths too, and since a path may contain a variable.
    variables = [match[0] for match in VARIABLE.finditer(text)]
    numbers = iter(range(len(variables)))
    held = VARIABLE.sub(lambda _: f"\0{next(numbers)}\0", text)
    changed = "::".join(_relative_part(part, rename) for part in held.split("::"))
    return re.sub(r"\0(\d+)\0", lambda match: _relative_default(variables[int(match[1])]), changed)


def _relative_default(variable: str) -> str:
    match = VARIABLE.fullmatch(variable)
    if match is None or not match["default"]:
        return variable
    return f"${{{match['name']}:-{_relative_part(match['default'], _name_of)}}}"


def _relative_part(text: str, rename: _Rename) -> str:
    if (path := local_path(text)) is not None:
        return rename(path)

    def replace(match: re.Match[str]) -> str:
        found = None if match["path"] is None else local_path(match["path"])
        return match[0] if found is None else _name_of(found)

    return _INSIDE.sub(replace, text)
