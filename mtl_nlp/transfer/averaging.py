"""The average of the weights of several trained models with one configuration: a model soup.

The method is that of Wortsman et al. (2022), Model soups: averaging weights of multiple fine-tuned models improves
accuracy without increasing inference time. The models are checkpoints of one run, or runs with different seeds from one
pretrained encoder. Each weight is the mean of the models' weights, accumulated in float32 by torch's `AveragedModel`;
the two factors of an adapter are averaged each on its own, and buffers are copied.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel
from transformers import PreTrainedTokenizerBase

from mtl_nlp.errors import CommandError, ModelError, RecipeError, RunError, writing_to
from mtl_nlp.evaluation.evaluator import Answers, Evaluation, score_answers
from mtl_nlp.evaluation.predictions import predictions_of, write_predictions
from mtl_nlp.evaluation.results import results
from mtl_nlp.hub.loading import load_config, load_model, load_model_tokenizer
from mtl_nlp.hub.model_card import write_model_card
from mtl_nlp.messages import Shown, conceal, table
from mtl_nlp.modeling.configuration_multitask import MultitaskConfig
from mtl_nlp.modeling.modeling_multitask import MultitaskModel
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.run.arguments import evaluation_arguments
from mtl_nlp.run.build import Run, build_trainer
from mtl_nlp.run.prepare import prepare_evaluation
from mtl_nlp.run_folder import (
    PREDICTIONS_NAME,
    RECIPE_NAME,
    RESULTS_NAME,
    checkpoint_folders,
    saved_recipe,
    step_of,
    write_file,
    write_results,
)
from mtl_nlp.training.completeness import checkpoint_problem
from mtl_nlp.training.tuning import datasets_to_tune_on, tune_tasks

logger = logging.getLogger(__name__)

AVERAGE, MEAN = "average", "mean"
_FREE = frozenset({"weights_sha256", "transformers_version", "_name_or_path", "dtype", "architectures"})
"""Keys of a configuration in which models may differ: they say where the weights come from and how they are stored."""


@dataclass(frozen=True, repr=False)
class AveragedRun(Shown):
    """A model whose weights are the mean of several models.

    Attributes:
        folder: the folder with the model.
        model: the model.
        count: the number of averaged models.
        scores: split -> name of an averaged model, or `average` -> its scores; empty without a recipe.
    """

    folder: Path
    model: MultitaskModel
    count: int
    scores: dict[str, dict[str, Evaluation]] = field(default_factory=dict)

    def __repr__(self) -> str:
        return "\n\n".join([f"AveragedRun({conceal(str(self.folder))}, {self.count} models)", *self.tables()])

    def tables(self) -> list[str]:
        """Return a table for each split: the scores of each model, the mean of these scores, and the average's."""
        return [self._table(split) for split in self.scores]

    def _table(self, split: str) -> str:
        *models, average = self.scores[split].values()
        rows = []
        for task, name in [*((each.name, each.kind.primary_score) for each in self._scored(average)), ("all", "")]:
            values = [each.scores[task][name] if name else each.mtl_score for each in (*models, average)]
            values.insert(-1, statistics.fmean(values[:-1]))
            rows.append((task, name or "mtl_score", *(f"{value:.4f}" for value in values)))
        names = [*self.scores[split]]
        return table(("task", f"{split} score", *names[:-1], MEAN, names[-1]), rows)

    def _scored(self, evaluation: Evaluation) -> list[Any]:
        return [task for name, task in self.model.tasks.items() if name in evaluation.scores]


def average(
    folders: Sequence[str | Path],
    output: str | Path,
    *,
    recipe: Recipe | str | Path | Mapping[str, Any] | None = None,
    allow_code: bool = False,
) -> AveragedRun:
    """Average the weights of trained models, and write a new model with the files of a run.

    Thresholds that were tuned on validation rows are tuned again for the average. The recipe in the folder is that of
    the first model.

    Args:
        folders: the folders of runs or checkpoints. A single folder of a run stands for all of its checkpoints.
        output: the folder to write, which is new or empty.
        recipe: the recipe, whose validation and test rows score each model and their average; None for no scores.
        allow_code: whether to run the Python code that the recipe names, see `Recipe.load`.

    Returns:
        The average with the scores of all models.

    Raises:
        CommandError: if there are fewer than two models, a folder is given twice, or the output folder holds files.
        ModelError: if a model cannot be loaded, the models have different configurations or tokenizers, or thresholds
            have to be tuned without validation rows.
        RecipeError: if the recipe does not fit the models, or has neither validation nor test rows.
        DataError: if the recipe's data cannot be loaded.
        RunError: if the folder cannot be written to.
    """
    target = _checked_output(Path(output))
    read = None if recipe is None else Recipe.read(recipe, allow_code=allow_code)
    paths = _models_in([Path(folder) for folder in folders])
    config, tokenizer = _common_parts(paths)
    names = _names_of(paths)
    first = load_model(str(paths[0]), dtype=torch.float32)
    runs = {} if read is None else _runs_of(read, first, str(paths[0]))
    _check_tuning(first, runs)
    mean = AveragedModel(first)
    scores: dict[str, dict[str, Evaluation]] = {split: {} for split in runs}
    for name, path in names.items():
        logger.info("averaging %s", conceal(name))
        model = first if path == paths[0] else load_model(str(path), dtype=torch.float32)
        for split, run in runs.items():
            answers = _answers(run, model, split, path)
            scores[split][name] = score_answers(answers, run.splits[split], run.tasks)
        mean.update_parameters(model)
    model = mean.module
    _tune(model, runs, paths[0])
    model.to(config.dtype or torch.float32)
    answered = {split: _answers(run, model, split, paths[0]) for split, run in runs.items()}
    for split, run in runs.items():
        scores[split][AVERAGE] = score_answers(answered[split], run.splits[split], run.tasks)
    with writing_to(target, "OUT", RunError):
        _write(target, model, tokenizer, paths, runs, answered, scores)
    return AveragedRun(target, model, len(paths), scores)


def _checked_output(folder: Path) -> Path:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise CommandError("average: runs in one process. Call it without `accelerate launch`.")
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise CommandError(f"OUT: {folder} should be a new or empty folder.")
    return folder


def _models_in(folders: Sequence[Path]) -> list[Path]:
    """Return the folders of the models to average; a single run stands for its complete checkpoints."""
    found = [*folders]
    if len(folders) == 1:
        complete = [path for path in checkpoint_folders(folders[0]) if checkpoint_problem(path) is None]
        found = sorted(complete, key=step_of)
    if len(found) < 2:
        raise CommandError(
            f"average: needs at least two models. Found {len(found)} complete checkpoint{'s' * (len(found) != 1)} in "
            f"{folders[0]}. Name several runs or checkpoints."
            if folders
            else "average: needs at least two models. Found none."
        )
    places = [path.resolve() for path in found]
    if twice := [path for number, path in enumerate(found) if places[number] in places[:number]]:
        raise CommandError(f"average: each model should be given once. {twice[0]} is given twice.")
    return found


def _names_of(paths: Sequence[Path]) -> dict[str, Path]:
    """Return the shortest end of each path that names it alone."""
    whole = [path.resolve().parts for path in paths]
    most = max(map(len, whole))
    for number in range(1, most + 1):
        names = ["/".join(parts[-number:]) for parts in whole]
        if len({*names, AVERAGE, MEAN}) == len(names) + 2:
            break
    return dict(zip(names, paths, strict=True))


def _common_parts(paths: Sequence[Path]) -> tuple[MultitaskConfig, PreTrainedTokenizerBase]:
    """Return the configuration and the tokenizer of the first model, after a check that all models have the same."""
    configs = [load_config(str(path)) for path in paths]
    tokenizers = [load_model_tokenizer(str(path), config) for path, config in zip(paths, configs, strict=True)]
    first, vocabulary = _comparable(configs[0]), tokenizers[0].get_vocab()
    for path, config, tokenizer in zip(paths[1:], configs[1:], tokenizers[1:], strict=True):
        key = _difference(first, _comparable(config)) or (
            "" if tokenizer.get_vocab() == vocabulary else "the tokenizer"
        )
        if key:
            raise ModelError(
                f"average: {paths[0]} and {path} differ in {key}. Only models with one configuration can be averaged, "
                f"such as checkpoints or seeds of one recipe."
            )
    return configs[0], tokenizers[0]


def _comparable(config: MultitaskConfig) -> dict[str, Any]:
    """Return a configuration as plain data, without the options of tasks that were tuned on validation rows."""
    tasks = {}
    for task in config.get_tasks():
        unset: dict[str, Any] = dict.fromkeys(task.tuned)
        tasks[task.name] = dataclasses.replace(task, **unset).to_dict()
    return {**config.to_dict(), "tasks": tasks, "the order of the tasks": list(tasks)}


def _difference(one: Any, other: Any) -> str:
    """Return the dotted key of the first difference between two configurations; empty if they are equal."""
    if not isinstance(one, dict) or not isinstance(other, dict):
        return "" if one == other else "."
    for key in dict.fromkeys([*one, *other]):
        if key not in _FREE and (found := _difference(one.get(key), other.get(key))):
            return f"{key}.{found}".rstrip(".")
    return ""


def _runs_of(recipe: Recipe, model: MultitaskModel, folder: str) -> dict[str, Run]:
    """Return the validation and the test rows of a recipe, as far as they exist, ready for the models."""
    found: dict[str, Run] = {}
    problem = None
    for split in ("validation", "test"):
        try:
            found[split] = prepare_evaluation(recipe, model, folder, split)
        except RecipeError as error:
            problem = error
    if not found and problem is not None:
        raise problem
    return found


def _check_tuning(model: MultitaskModel, runs: Mapping[str, Run]) -> None:
    datasets = runs["validation"].splits["validation"] if "validation" in runs else {}
    fed = {task for rows in datasets.values() for task in rows.feeds}
    for name, task in model.tasks.items():
        if task.needs_tuning is not None and name not in fed:
            raise ModelError(
                f"average: `{task.needs_tuning}` of task {name!r} is tuned on validation rows, again for the average. "
                f"Name a recipe with such rows: --recipe."
            )


def _answers(run: Run, model: MultitaskModel, split: str, folder: Path) -> Answers:
    """Return the answers of a model on a split of a recipe."""
    trainer = build_trainer(run, model, evaluation_arguments(run.recipe, folder))
    return trainer.answer(run.splits[split])


def _tune(model: MultitaskModel, runs: Mapping[str, Run], folder: Path) -> None:
    """Tune the thresholds of the average on the validation rows."""
    if "validation" in runs:
        run = runs["validation"]
        datasets = datasets_to_tune_on(model.tasks, run.splits["validation"])
        if datasets:
            tune_tasks(model, _answers(run, model, "validation", folder), datasets)


def _write(
    folder: Path,
    model: MultitaskModel,
    tokenizer: PreTrainedTokenizerBase,
    paths: Sequence[Path],
    runs: Mapping[str, Run],
    answers: Mapping[str, Answers],
    scores: Mapping[str, Mapping[str, Evaluation]],
) -> None:
    """Write the files of a run: model, tokenizer, recipe, results and predictions of the last split, and the card."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    recipe = saved_recipe(paths[0])
    if recipe is not None:
        moved = recipe.model_copy(update={"output_dir": str(folder.resolve())})
        write_file(folder / RECIPE_NAME, moved.to_yaml())
    if runs:
        split, run = [*runs.items()][-1]
        write_predictions(folder / PREDICTIONS_NAME, predictions_of(answers[split], run.splits[split], split))
        evaluation, rows = scores[split][AVERAGE], run.splits[split]
        content = results(split, evaluation, rows, run.recipe.sha256(), own_code=run.recipe.own_code)
        write_results(folder / RESULTS_NAME, {**content, "averaged": len(paths)})
    write_model_card(folder)
