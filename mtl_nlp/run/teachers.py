"""The teachers of a recipe: the models that its section `distill` names, their checks, and their scores on disk."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow.compute as pc
from datasets import Dataset

from mtl_nlp.data.canonical import LABEL_PREFIX, code_fingerprint
from mtl_nlp.data.encoding import EncodedDataset
from mtl_nlp.data.teachers import score_type, with_scores, write_scores
from mtl_nlp.errors import DataError, ModelError, RecipeError, writing_to
from mtl_nlp.hub.comparison import SINGLE, read_comparison
from mtl_nlp.hub.loading import load_config, load_model, load_model_tokenizer
from mtl_nlp.messages import conceal
from mtl_nlp.modeling.configuration_multitask import MultitaskConfig
from mtl_nlp.modeling.label_kinds_multitask import LabelKind
from mtl_nlp.modeling.saving_multitask import hash_weights
from mtl_nlp.modeling.tasks_multitask import Task
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.run.argument_types import seed_of
from mtl_nlp.run_folder import COMPARISON_NAME
from mtl_nlp.training.arguments import MultitaskTrainingArguments
from mtl_nlp.training.distilling import teacher_scores

logger = logging.getLogger(__name__)

_FOLDER = "mtl_nlp_teachers"
"""The folder in the cache of `datasets` with the scores of teachers."""
_SHOWN = 8
"""The number of labels in a message."""


@dataclass(frozen=True)
class Teacher:
    """The teacher of a task.

    Attributes:
        folder: the folder of the trained model.
        config: the configuration of the model.
    """

    folder: str
    config: MultitaskConfig

    @property
    def weights(self) -> str:
        """The SHA-256 of the weights."""
        return self.config.weights_sha256 or hash_weights(Path(self.folder)) or self.folder


@dataclass(frozen=True)
class _Scores:
    """The scores of a teacher for a training split."""

    task: Task
    teacher: Teacher
    encoded: EncodedDataset

    @property
    def path(self) -> Path:
        """The file of the scores, whose name is a hash of all that the scores depend on."""
        windows: Dataset = self.encoded.windows
        told = [code_fingerprint(), self.teacher.weights, self.task.name, list(self.task.labels), windows._fingerprint]
        key = hashlib.sha256(json.dumps(told).encode()).hexdigest()
        return Path(datasets.config.HF_DATASETS_CACHE) / _FOLDER / f"{key}.arrow"

    @property
    def _labels(self) -> Any:
        return self.encoded.windows.data.column(LABEL_PREFIX + self.task.name)

    @property
    def rows(self) -> int:
        """Number of windows with a label of the task."""
        return len(self._labels) - self._labels.null_count

    @property
    def bytes(self) -> int:
        """Number of bytes of the scores on disk."""
        units = pc.sum(pc.list_value_length(self._labels)).as_py() if self.task.kind.labels_words else self.rows
        return units * len(self.task.kind.output_names) * score_type(self.task).itemsize


def teachers_of(recipe: Recipe) -> dict[str, Teacher]:
    """Return the teacher of each task that a recipe teaches; empty without a section `distill`.

    Raises:
        RecipeError: if a folder holds no comparison or no trained model, or the comparison has no single-task run of a
            task.
    """
    found = {}
    for task, folder in _folders_of(recipe).items():
        try:
            found[task] = Teacher(folder, load_config(folder))
        except ModelError as error:
            raise RecipeError(f"distill.teachers: the teacher of {task!r}: {error}") from error
    return found


def _folders_of(recipe: Recipe) -> dict[str, str]:
    """Return the folder of the teacher of each task."""
    if recipe.distill is None:
        return {}
    given = recipe.distill.teachers
    if not isinstance(given, str):
        return {task: given[task] for task in recipe.tasks if task in given}
    path = Path(given) / COMPARISON_NAME
    if not path.is_file():
        raise RecipeError(
            f"distill.teachers: {given} is not the folder of a comparison: it has no {COMPARISON_NAME}. Name a folder "
            f"that mtl-nlp compare wrote, or the folder of a trained model for each task."
        )
    try:
        runs = read_comparison(path)["sides"].get(SINGLE, {}).get("runs", {})
    except DataError as error:
        raise RecipeError(f"distill.teachers: {error}") from error
    of_seed: list[dict[str, Any]] = runs.get(str(seed_of(recipe))) or next(iter(runs.values()), [])
    folders = {run["tasks"][0]: str(path.parent / run["folder"]) for run in of_seed if len(run["tasks"]) == 1}
    if missing := [task for task in recipe.tasks if task not in folders]:
        raise RecipeError(
            f"distill.teachers: the comparison in {given} has no single-task run of the task {missing[0]!r}. Name a "
            f"teacher for each task that should be taught: `teachers: {{task: folder}}`."
        )
    return {task: folders[task] for task in recipe.tasks}


def check_teachers(teachers: Mapping[str, Teacher], tasks: Mapping[str, Task]) -> None:
    """Check that each teacher has its task, with the labels of the data.

    Args:
        teachers: the teachers by task.
        tasks: the tasks by name, with their label spaces.

    Raises:
        RecipeError: if a teacher does not have its task, its labels differ, or the labels of a task cannot be mixed
            with predictions.
    """
    for name, teacher in teachers.items():
        task, owned = tasks[name], {each.name: each for each in teacher.config.get_tasks()}
        where = f"distill.teachers: the teacher of {name!r}, {teacher.folder},"
        if name not in owned or owned[name].type != task.type:
            has = ", ".join(f"{each.name} ({each.type})" for each in owned.values())
            raise RecipeError(f"{where} has no {task.type} task of this name. It has {has}.")
        own, labels = set(owned[name].labels), set(task.labels)
        for what, those in (("lacks the labels", labels - own), ("also has the labels", own - labels)):
            if those:
                shown = ", ".join(sorted(those)[:_SHOWN]) + (", …" if len(those) > _SHOWN else "")
                raise RecipeError(
                    f"{where} {what} {shown}. Teacher and student should have the same labels. Name a teacher that was "
                    f"trained on the same data."
                )
        if type(task.kind).mixed_targets is LabelKind.mixed_targets:
            raise RecipeError(
                f"distill.teachers: task {name!r} cannot be taught: its label kind {type(task.kind).__name__} defines "
                f"no `mixed_targets`. Leave out its teacher."
            )


def _scores_of(
    splits: Mapping[str, Any], teachers: Mapping[str, Teacher], tasks: Mapping[str, Task]
) -> Iterator[tuple[str, list[_Scores]]]:
    """Yield each training split that feeds a taught task, with the scores of its teachers."""
    for name, encoded in splits.items():
        if taught := [task for task in teachers if task in encoded.feeds]:
            yield name, [_Scores(tasks[task], teachers[task], encoded) for task in taught]


def taught_splits(
    splits: Mapping[str, Any],
    teachers: Mapping[str, Teacher],
    tasks: Mapping[str, Task],
    arguments: MultitaskTrainingArguments,
) -> dict[str, Any]:
    """Return training splits with the scores of teachers, which are computed unless they are in the cache.

    The first process of each machine computes the scores, and the others read its files.

    Args:
        splits: the training splits by dataset.
        teachers: the teachers by task.
        tasks: the tasks by name, with their label spaces.
        arguments: the training arguments, with the device and the size of batches without gradients.

    Raises:
        ModelError: if a teacher cannot be loaded.
        RecipeError: if the cache cannot be written.
    """
    found = dict(splits)
    with arguments.main_process_first(desc="the scores of teachers"):
        for name, scores in _scores_of(splits, teachers, tasks):
            for each in scores:
                if not each.path.is_file():
                    _compute(each, arguments)
            found[name] = with_scores(splits[name], [each.path for each in scores])
    return found


def _compute(scores: _Scores, arguments: MultitaskTrainingArguments) -> None:
    """Compute the scores of a teacher for a split, and write their file."""
    teacher, task, encoded = scores.teacher, scores.task, scores.encoded
    logger.info("computing the teacher's scores of %s for %s: %d rows", task.name, encoded.name, scores.rows)
    model = load_model(teacher.folder).to(arguments.device)
    tokenizer = load_model_tokenizer(teacher.folder, model.config)
    computed = teacher_scores(model, tokenizer, encoded, task, arguments.per_device_eval_batch_size)
    with writing_to(scores.path, "the cache of datasets"):
        write_scores(scores.path, task, computed)


def describe_teachers(splits: Mapping[str, Any], teachers: Mapping[str, Teacher], tasks: Mapping[str, Task]) -> str:
    """Return sentences about the teachers of a training and the cost of their scores; empty without teachers.

    Args:
        splits: the training splits by dataset.
        teachers: the teachers by task.
        tasks: the tasks by name, with their label spaces.
    """
    if not teachers:
        return ""
    every = [each for _, scores in _scores_of(splits, teachers, tasks) for each in scores]
    missing = sum(each.rows for each in every if not each.path.is_file())
    cost = f"before training, in {missing:,} encoder passes over a row" if missing else "already, and are in the cache"
    size = sum(each.bytes for each in every) / 1e6
    lines = [f"teacher of {task}: {conceal(teacher.folder)}" for task, teacher in teachers.items()]
    return "\n".join(
        [
            *lines,
            f"distill: the teachers' scores are computed once, {cost} ({size:,.1f} MB on disk). The targets of a "
            f"taught task are λ · label + (1 - λ) · prediction of the teacher, with λ = step / total steps.",
        ]
    )
