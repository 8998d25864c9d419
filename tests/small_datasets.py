"""Small datasets, written to files and loaded by a recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mtl_nlp.data.loading import LoadedDataset, load_splits
from mtl_nlp.recipe.schema import Recipe

TYPES = {
    "pos": {"type": "token-classification"},
    "ner": {"type": "token-classification", "scheme": "iob2"},
    "topic": {"type": "text-classification"},
    "tags": {"type": "multi-label-classification"},
    "score": {"type": "regression"},
}

TOKENS = {"tokens": "tokens"}

TEXT = {"text": "text"}


def load(folder: Path, inputs: dict[str, str], labels: dict[str, str], **dataset: Any) -> LoadedDataset:
    """Load the dataset `d` of a recipe in a folder."""
    data = {
        "encoder": "e",
        "output_dir": "o",
        "tasks": {task: TYPES[task] for task in labels},
        "datasets": {"d": {"path": "json", "inputs": inputs, "labels": labels, **dataset}},
    }
    recipe = Recipe.from_dict(data, folder)
    return load_splits("d", recipe.datasets["d"], {name: recipe.task(name) for name in recipe.tasks})


def write(path: Path, *rows: dict[str, Any] | str) -> str:
    """Write rows as JSON lines, and strings unchanged; return the name of the file."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path.name


def rows_of(loaded: LoadedDataset, split: str = "train") -> list[dict[str, Any]]:
    return loaded.splits[split].to_list()
