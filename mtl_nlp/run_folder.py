"""The files in the folder of a run: their names, and functions that read and write them.

The folder holds the trained model and, during training, its checkpoints. The names of all other files, such as
`config.json` and `model.safetensors`, are defined by transformers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mtl_nlp.errors import DataError, ModelError
from mtl_nlp.messages import json_text, one_line
from mtl_nlp.recipe.saved import SavedRecipe

CONFIG_NAME = "config.json"
RECIPE_NAME = "recipe.yaml"
RESULTS_NAME = "results.json"
PREDICTIONS_NAME = "predictions.jsonl"
TRAINING_LOG_NAME = "training_log.jsonl"
CARD_NAME = "README.md"
REPORT_NAME = "report.html"
INSPECTION_NAME = "inspection.json"
COMPARISON_NAME = "comparison.json"
"""The file in the folder of a comparison, above the folders of its runs."""
ONNX_NAME = "model.onnx"
WEIGHTING_NAME = "weighting.pt"
GRADIENT_METHOD_NAME = "gradient_method.pt"
CONFLICT_NAME = "conflict.json"
LOCK_NAME = ".mtl_nlp.lock"
STAGED_NAME = ".saving"
"""The folder of a model that is being saved. The complete folder gets the name `SAVED_NAME`, and replaces a model."""
SAVED_NAME = ".saved"
CHECKPOINT_FILES_NAME = "checkpoint_files.json"
CHECKPOINT_PREFIX = "checkpoint"
"""The `PREFIX_CHECKPOINT_DIR` of transformers, without importing transformers."""

_Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]


class _Sampled(BaseModel):
    """The sampling of a dataset in training."""

    model_config = ConfigDict(extra="allow", strict=True)

    rows: int
    probability: _Number
    drawn: int | None = None


class _Best(BaseModel):
    """The best validation score of a task."""

    model_config = ConfigDict(extra="allow", strict=True)

    score: str
    value: _Number
    step: int
    kept_value: _Number | None = None
    kept_step: int | None = None
    fell: bool = False


class _Frozen(BaseModel):
    """The freezing of a task."""

    model_config = ConfigDict(extra="allow", strict=True)

    step: int
    best_step: int


class _Training(BaseModel):
    """The description of a training."""

    model_config = ConfigDict(extra="allow", strict=True)

    steps: int | None = None
    epochs: _Number | None = None
    mixture: dict[str, _Sampled] = Field(default_factory=dict)
    weights: dict[str, _Number | list[_Number]] = Field(default_factory=dict)
    seconds: _Number | None = None
    rows: int | None = None
    rows_per_second: _Number | None = None
    tokens_per_second: _Number | None = None
    encoder_passes: int | None = None
    parameters: int | None = None
    bytes: int | None = None
    best: dict[str, _Best] = Field(default_factory=dict)
    frozen: dict[str, _Frozen] = Field(default_factory=dict)
    skipped: dict[str, int] = Field(default_factory=dict)


class _Provenance(BaseModel):
    """The origin of the scores."""

    model_config = ConfigDict(extra="allow", strict=True)

    versions: dict[str, str] = Field(default_factory=dict)
    data_fingerprints: dict[str, str] = Field(default_factory=dict)


class _Results(BaseModel):
    """The form of `results.json`: the scores of a split, the description of the training, or both."""

    model_config = ConfigDict(extra="allow", strict=True)

    split: str = ""
    tasks: dict[str, dict[str, _Number | None]] = Field(default_factory=dict)
    mtl_score: _Number | None = None
    frames: dict[str, _Number | None] = Field(default_factory=dict)
    training: _Training | None = None
    provenance: _Provenance | None = None

    @model_validator(mode="after")
    def _scores_are_complete(self) -> _Results:
        scores = ("split", "tasks", "mtl_score")
        missing = [key for key in scores if key not in self.model_fields_set]
        if 0 < len(missing) < len(scores):
            raise ValueError(f"`{missing[0]}` is missing")
        return self


def checkpoint_folder(output_dir: Path, step: int) -> Path:
    """Return the folder of the checkpoint that a run writes after an optimizer step."""
    return output_dir / f"{CHECKPOINT_PREFIX}-{step}"


def checkpoint_folders(output_dir: Path) -> list[Path]:
    """Return the folders of a run's checkpoints, complete or not, in no particular order.

    A folder without a step in its name, such as `checkpoint-best`, is a copy that a user has made.
    """
    return [path for path in output_dir.glob(f"{CHECKPOINT_PREFIX}-*") if _suffix_of(path).isdecimal()]


def step_of(checkpoint: Path) -> int:
    """Return the optimizer step after which a checkpoint was written."""
    return int(_suffix_of(checkpoint))


def _suffix_of(checkpoint: Path) -> str:
    return checkpoint.name.removeprefix(f"{CHECKPOINT_PREFIX}-")


def saved_recipe(folder: Path) -> SavedRecipe | None:
    """Return the recipe in a model's folder as it stands, or None if the model was trained without one.

    Raises:
        RecipeError: if the recipe is damaged or holds a secret.
    """
    path = folder / RECIPE_NAME
    return SavedRecipe.read(path) if path.is_file() and path.stat().st_size > 0 else None


def shared_recipe(folder: Path) -> SavedRecipe | None:
    """Return the recipe in a model's folder without local paths, or None if the model was trained without one.

    Raises:
        RecipeError: if the recipe is damaged or holds a secret.
    """
    recipe = saved_recipe(folder)
    return None if recipe is None else recipe.without_local_paths()


def read_results(path: Path) -> dict[str, Any]:
    """Read `results.json`.

    Returns:
        The content of the file; an empty dict if there is no file. The scores `split`, `tasks` and `mtl_score` are all
        present or all missing, and all scores are finite numbers, or null if they are not defined.

    Raises:
        DataError: if the file is damaged.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("expected an object")
        _Results.model_validate(content)
    except ValidationError as error:
        raise DataError(f"{path} is damaged ({_first_problem(error)}). Write it again: mtl-nlp evaluate.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is damaged ({one_line(error)}). Write it again: mtl-nlp evaluate.") from error
    return {key: value for key, value in content.items() if value is not None}


def _first_problem(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg'].removeprefix('Value error, ')}".removeprefix(": ")


def training_in(path: Path) -> dict[str, Any] | None:
    """Return the description of the training in an existing `results.json`, or None if it holds none."""
    try:
        return read_results(path).get("training")
    except DataError:  # the file is about to be overwritten
        return None


def write_results(path: Path, content: Mapping[str, Any]) -> None:
    """Write `results.json`, with null for a score that is not defined.

    Raises:
        ModelError: if the file is a symbolic link.
    """
    write_file(path, json_text(content, indent=2) + "\n")


def write_file(path: Path, text: str | Iterable[str]) -> None:
    """Write a text file into a model's folder. Until the new file is complete, the folder has the old file.

    Args:
        path: the file.
        text: the content of the file, in one piece or in parts.

    Raises:
        ModelError: if the file is a symbolic link, since the folder of a model may come from elsewhere and its links
            may lead to any file.
    """
    if path.is_symlink():
        raise ModelError(f"{path} is a symbolic link, and nothing is written through links. Delete the link.")
    replacement = path.with_name(f".{path.name}.new")
    replacement.unlink(missing_ok=True)
    try:
        with replacement.open("w", encoding="utf-8") as file:
            file.writelines([text] if isinstance(text, str) else text)
        replacement.replace(path)
    finally:
        replacement.unlink(missing_ok=True)
