"""A plain recipe, and copies of it with one change."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

PLAIN: dict[str, Any] = {
    "encoder": "bert-base-cased",
    "output_dir": "runs/x",
    "tasks": {"pos": {"type": "token-classification"}, "genre": {"type": "text-classification"}},
    "datasets": {
        "ewt": {
            "path": "json",
            "data_files": {"train": "train.jsonl", "test": ["a.jsonl", "b/*.jsonl"]},
            "inputs": {"tokens": "tokens"},
            "labels": {"pos": "upos", "genre": "genre"},
        }
    },
}


def changed(key: str, value: Any) -> dict[str, Any]:
    """Return the plain recipe with one key set, or removed if the value is `...`."""
    data = copy.deepcopy(PLAIN)
    *parents, last = key.split(".")
    section = data
    for parent in parents:
        section = section.setdefault(parent, {})
    if value is ...:
        del section[last]
    else:
        section[last] = value
    return data


def write(folder: Path, data: Any) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    return path
