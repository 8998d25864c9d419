"""The functions of a dataset's `map` and `filter`, which the recipe's author has written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from datasets import Dataset
from datasets.fingerprint import Hasher

from mtl_nlp.data.canonical import progress_bars_from
from mtl_nlp.errors import DataError
from mtl_nlp.recipe.own_code import function_of, source_hash
from mtl_nlp.recipe.sections import DatasetRecipe


def apply_functions(name: str, split: str, recipe: DatasetRecipe, rows: Any) -> Any:
    """Change the raw rows of a split by the dataset's `map`, then keep the rows that its `filter` accepts.

    The caches of `datasets` do not notice a change in a module, so the keys of the caches get the hash of the sources
    of all modules that recipes name.

    Args:
        name: the dataset's name in the recipe, for messages.
        split: the name of the split, for messages.
        recipe: the dataset's section of the recipe.
        rows: a `Dataset`, or an `IterableDataset`, whose rows are changed when they are read.

    Raises:
        RecipeError: if the recipe was not loaded with `allow_code`.
        DataError: if `map` returns no dict, or no row is left.
    """
    if recipe.map is not None:
        where = f"datasets.{name}.map"
        change = _mapping(function_of(recipe.map, where), where)
        rows = _with_bar(rows, rows.map, change, _fingerprint(rows, recipe.map), f"Changing {name}/{split}")
    if recipe.filter is not None:
        keep = function_of(recipe.filter, f"datasets.{name}.filter")
        before = rows
        title = f"Filtering {name}/{split}"
        rows = _with_bar(rows, rows.filter, _filtering(keep), _fingerprint(rows, recipe.filter), title)
        if isinstance(rows, Dataset) and len(rows) == 0:
            raise DataError(f"datasets.{name}.filter: none of the {len(before)} rows of {split} is left.")
        if isinstance(rows, Dataset):
            rows = rows.flatten_indices()  # code that reads a complete column ignores the indices of a selection
    return rows


def _mapping(function: Callable[[dict[str, Any]], Any], where: str) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    def change(row: Mapping[str, Any]) -> dict[str, Any]:
        changed = function(dict(row))
        if not isinstance(changed, dict):
            raise DataError(f"{where}: the function should return a dict of columns. Found {type(changed).__name__}.")
        return changed

    return change


def _filtering(function: Callable[[dict[str, Any]], Any]) -> Callable[[Mapping[str, Any]], bool]:
    def keep(row: Mapping[str, Any]) -> bool:
        return bool(function(dict(row)))

    return keep


def _fingerprint(rows: Any, text: str) -> str:
    """Return the key of the changed rows in the caches of `datasets`."""
    before = rows._fingerprint if isinstance(rows, Dataset) else ""
    return Hasher.hash([before, text, source_hash()])


def _with_bar(rows: Any, apply: Callable[..., Any], function: Callable[..., Any], fingerprint: str, title: str) -> Any:
    if not isinstance(rows, Dataset):
        return apply(function)
    with progress_bars_from(len(rows)):
        return apply(function, new_fingerprint=fingerprint, desc=title)
