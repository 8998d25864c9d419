"""The files in the folder of a run: their names, and functions that read and write them.

The folder holds the trained model and, during training, its checkpoints. The names of all other files, such as
`config.json` and `model.safetensors`, are defined by transformers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtl_nlp.errors import DataError
from mtl_nlp.messages import json_text, one_line
from mtl_nlp.recipe.schema import Recipe

RECIPE_NAME = "recipe.yaml"
RESULTS_NAME = "results.json"
CARD_NAME = "README.md"
REPORT_NAME = "report.html"
ONNX_NAME = "model.onnx"
WEIGHTING_NAME = "weighting.pt"
CHECKPOINT_PREFIX = "checkpoint"
"""The `PREFIX_CHECKPOINT_DIR` of transformers, without importing transformers."""


def checkpoint_folder(output_dir: Path, step: int) -> Path:
    """Return the folder of the checkpoint that a run writes after an optimizer step."""
    return output_dir / f"{CHECKPOINT_PREFIX}-{step}"


def checkpoint_folders(output_dir: Path) -> list[Path]:
    """Return the folders of a run's checkpoints, complete or not, in no particular order."""
    return list(output_dir.glob(f"{CHECKPOINT_PREFIX}-*"))


def saved_recipe(folder: Path) -> Recipe | None:
    """Return the recipe in a model's folder, or None if the model was trained without one."""
    path = folder / RECIPE_NAME
    return Recipe.load(path) if path.is_file() and path.stat().st_size > 0 else None


def shared_recipe(folder: Path) -> Recipe | None:
    """Return the recipe in a model's folder without local paths, or None if the model was trained without one."""
    recipe = saved_recipe(folder)
    return None if recipe is None else recipe.without_local_paths()


def read_results(path: Path) -> dict[str, Any]:
    """Read `results.json`.

    Returns:
        The content of the file; an empty dict if there is no file.

    Raises:
        DataError: if the file is damaged.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("expected an object")
        return content
    except ValueError as error:
        raise DataError(f"{path} is damaged ({one_line(error)}). Write it again: mtl-nlp evaluate.") from error


def training_in(path: Path) -> dict[str, Any] | None:
    """Return the description of the training in an existing `results.json`, or None if it holds none."""
    try:
        return read_results(path).get("training")
    except DataError:  # the file is about to be overwritten
        return None


def write_results(path: Path, content: Mapping[str, Any]) -> None:
    """Write `results.json`, with null for a score that is not defined."""
    path.write_text(json_text(content, indent=2) + "\n", encoding="utf-8")
