"""Sentences about the settings in which the runs of a comparison differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mtl_nlp.recipe.plain_yaml import as_yaml, is_same


def name_of_model(side: str, tasks: Sequence[str], models: int) -> str:
    """Return the name of a model of a side: that of the side, with the first task if the side has several models."""
    return f"{side} {tasks[0]}" if models > 1 else side


def describe_differences(recipes: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """Return a sentence for each recipe that differs from the first in training, loss, adapters or datasets.

    Args:
        recipes: names and recipes as plain data, with variables as they stand.
    """
    if not recipes:
        return []
    (first_name, first), *others = recipes
    reference = dict(_settings(first))
    found = []
    for who, recipe in others:
        own = dict(_settings(recipe))
        changed = [f"trained on {name} too" for name in recipe["datasets"] if name not in first["datasets"]]
        changed += [
            f"{key} {_value(reference.get(key), key)} → {_value(own.get(key), key)}"
            for key in {**reference, **own}
            if not is_same(reference.get(key), own.get(key), key)
        ]
        if changed:
            found.append(f"{who} differs from {first_name}: {', '.join(changed)}")
    return found


def _settings(recipe: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the settings of a recipe by their path, without tasks and datasets."""
    for key, value in recipe.items():
        if isinstance(value, Mapping):
            if prefix or key not in {"tasks", "datasets", "card"}:
                yield from _settings(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _value(value: Any, key: str) -> str:
    return "not set" if value is None else f"{value:.4g}" if isinstance(value, float) else as_yaml(value, key)
