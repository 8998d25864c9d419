"""The files from which a report is made: those of a run, or of a comparison and its runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers.utils import CONFIG_NAME

from mtl_nlp.errors import DataError, ModelError
from mtl_nlp.evaluation.predictions import Prediction, read_predictions
from mtl_nlp.hub.comparison import read_comparison
from mtl_nlp.messages import conceal, one_line
from mtl_nlp.modeling.configuration_multitask import MultitaskConfig
from mtl_nlp.modeling.head_types_multitask import NotRegisteredError
from mtl_nlp.modeling.tasks_multitask import Task
from mtl_nlp.recipe.local_paths import without_local_paths
from mtl_nlp.recipe.saved import SavedRecipe
from mtl_nlp.report.insight_files import Conflict, Inspection, read_conflict, read_inspection
from mtl_nlp.run_folder import (
    COMPARISON_NAME,
    CONFLICT_NAME,
    INSPECTION_NAME,
    PREDICTIONS_NAME,
    RESULTS_NAME,
    TRAINING_LOG_NAME,
    read_results,
    shared_recipe,
)
from mtl_nlp.transfer.analysis import Analysis

OWN = "run"
"""The name of the only side of a report on one run."""


@dataclass(frozen=True)
class RunFiles:
    """The files of one run.

    Attributes:
        folder: the run's folder.
        seed: the seed, as in `comparison.json`; empty for a run outside of a comparison.
    """

    folder: Path
    seed: str = ""

    @cached_property
    def results(self) -> dict[str, Any]:
        """The content of `results.json`; empty if there is no such file."""
        return read_results(self.folder / RESULTS_NAME)

    @cached_property
    def training(self) -> dict[str, Any]:
        """The description of the training in `results.json`; empty if there is none."""
        return self.results.get("training") or {}

    @cached_property
    def log(self) -> list[dict[str, Any]]:
        """The entries of `training_log.jsonl`; empty if there is no such file."""
        return read_log(self.folder / TRAINING_LOG_NAME)

    @cached_property
    def config(self) -> MultitaskConfig | None:
        """The model's configuration; None if there is none."""
        if not (self.folder / CONFIG_NAME).is_file():
            return None
        try:
            return MultitaskConfig.from_pretrained(self.folder)
        except NotRegisteredError as error:
            raise ModelError(f"{self.folder / CONFIG_NAME}: {error}") from error
        except (OSError, ValueError) as error:
            raise ModelError(f"{self.folder / CONFIG_NAME} is damaged ({error!s:.200}). Train again.") from error

    @cached_property
    def tasks(self) -> dict[str, Task]:
        """The model's tasks by name; empty if there is no configuration."""
        return {} if self.config is None else {task.name: task for task in self.config.get_tasks()}

    @cached_property
    def inspection(self) -> Inspection | None:
        """The content of `inspection.json`; None if there is no such file."""
        return read_inspection(self.folder / INSPECTION_NAME)

    @cached_property
    def conflict(self) -> Conflict | None:
        """The content of `conflict.json`; None if there is no such file."""
        return read_conflict(self.folder / CONFLICT_NAME)

    @cached_property
    def predictions(self) -> dict[str, list[Prediction]]:
        """The predictions by task; empty if there is no `predictions.jsonl`."""
        path = self.folder / PREDICTIONS_NAME
        return read_predictions(path) if path.is_file() else {}

    @cached_property
    def recipe(self) -> SavedRecipe | None:
        """The recipe without local paths; None if there is none."""
        return shared_recipe(self.folder)


@dataclass(frozen=True)
class Material:
    """The content of a report.

    Attributes:
        name: the name of the folder.
        comparison: the content of `comparison.json`; None for a run.
        runs: for each side, its runs of all seeds; a file of predictions is a run without other files.
        missing: the number of runs whose folders do not exist.
    """

    name: str
    comparison: dict[str, Any] | None
    runs: Mapping[str, list[RunFiles]] = field(default_factory=dict)
    missing: int = 0
    _analyses: dict[tuple[str, str], Analysis] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def tasks(self) -> dict[str, Task]:
        """The tasks by name, from the configurations of all runs."""
        found: dict[str, Task] = {}
        for run in self.all_runs():
            found |= {name: task for name, task in run.tasks.items() if name not in found}
        return found

    @property
    def task_names(self) -> list[str]:
        """The names of the tasks in order."""
        return list(self.tasks if self.comparison is None else self.comparison["tasks"])

    @property
    def joint(self) -> list[str]:
        """The sides whose runs share an encoder; the only side of a run."""
        return [side for side in self.runs if self.comparison is None or side != self.comparison["reference"]]

    def all_runs(self) -> Iterator[RunFiles]:
        """Yield the runs of all sides, those of the joint sides first."""
        for side in [*self.joint, *(side for side in self.runs if side not in self.joint)]:
            yield from self.runs[side]

    def analysed(self, side: str, task: str, analyse: Callable[[], Analysis]) -> Analysis:
        """Return the analysis of a side's answers to a task, which is made once."""
        if (side, task) not in self._analyses:
            self._analyses[side, task] = analyse()
        return self._analyses[side, task]

    def predictions(self, side: str, task: str) -> list[list[Prediction]]:
        """Return a side's predictions for a task: a list for each run that has some."""
        return [found for run in self.runs[side] if (found := run.predictions.get(task))]


def read_material(folder: Path) -> Material:
    """Read the folder of a run or a comparison. The larger files are read when they are needed.

    Args:
        folder: a folder with `comparison.json`, or with the files of a run.

    Raises:
        DataError: if the folder is neither, or a file is damaged.
    """
    name = conceal(folder.resolve().name)
    path = folder / COMPARISON_NAME
    if path.is_file():
        comparison = _for_page(read_comparison(path))
        runs: dict[str, list[RunFiles]] = {side: [] for side in comparison["sides"]}
        missing = 0
        for side, content in comparison["sides"].items():
            for seed, entries in content["runs"].items():
                existing = [each for each in entries if (folder / each["folder"]).is_dir()]
                missing += len(entries) - len(existing)
                runs[side] += [RunFiles(folder / each["folder"], seed) for each in existing]
            if content.get("predictions") is not None:
                runs[side].append(RunFiles(folder / content["predictions"]))
        return Material(name, comparison, runs, missing)
    if not (folder / RESULTS_NAME).is_file():
        raise DataError(
            f"{folder} has neither {COMPARISON_NAME} nor {RESULTS_NAME}. Name the folder of a comparison (mtl-nlp "
            f"compare) or of a trained run (mtl-nlp train)."
        )
    return Material(name, None, {OWN: [RunFiles(folder)]})


def _for_page(comparison: dict[str, Any]) -> dict[str, Any]:
    """Return a comparison whose texts have no local paths and no values of the environment.

    The title of a side can be a folder, and a warning can name a file.
    """
    sides = {name: {**side, "title": _public(side["title"])} for name, side in comparison["sides"].items()}
    texts = {key: [_public(text) for text in comparison[key]] for key in ("differs", "warnings", "notes")}
    recipes = {side: _public(text) for side, text in comparison["provenance"]["recipes"].items()}
    return {**comparison, **texts, "sides": sides, "provenance": {**comparison["provenance"], "recipes": recipes}}


def _public(text: str) -> str:
    return without_local_paths(conceal(text))


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read `training_log.jsonl`.

    Returns:
        The entries in order; an empty list if there is no file.

    Raises:
        DataError: if the file is not UTF-8, or a line is not a JSON object with a step; the message names the line.
    """
    if not path.is_file():
        return []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: should be UTF-8 text. Found {one_line(error)}.") from error
    entries = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            entry = None
        if not _is_entry(entry):
            raise DataError(
                f"{path}:{number}: should be a JSON object with a `step` and an `epoch` that are numbers. Found "
                f"{line!r:.80}."
            )
        entries.append(entry)
    return entries


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("step"), int):
        return False
    return isinstance(entry.get("epoch", 0), int | float)
