"""The preparation of a run: a recipe's data is loaded and tokenized for a model and a trainer."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from mtl_nlp.data.encoding import EncodedDataset
from mtl_nlp.data.formats import check_format
from mtl_nlp.data.labels import unite_label_spaces
from mtl_nlp.data.learning import learn_from_splits
from mtl_nlp.data.loading import LoadedDataset, has_labels, load_splits
from mtl_nlp.data.repeated import describe_repeated_texts
from mtl_nlp.errors import MtlNlpError, RecipeError
from mtl_nlp.hub.loading import load_model_tokenizer
from mtl_nlp.messages import conceal
from mtl_nlp.modeling.configuration_multitask import MultitaskConfig
from mtl_nlp.modeling.encoders_multitask import default_pooling
from mtl_nlp.modeling.heads_multitask import fit_to_encoder
from mtl_nlp.modeling.modeling_multitask import MultitaskModel
from mtl_nlp.modeling.tasks_multitask import POOLINGS, Task, reads_words
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.run.adapters import check_encoder
from mtl_nlp.run.build import Run
from mtl_nlp.run.encoder import describe_code, load_encoder_parts
from mtl_nlp.run.headroom import headroom_of
from mtl_nlp.run.notes import HELD_OUT, describe_context, describe_padding
from mtl_nlp.run.teachers import check_teachers, teachers_of
from mtl_nlp.run.tokenization import tokenize_datasets
from mtl_nlp.training.restoring import read_config

logger = logging.getLogger(__name__)


def prepare(
    recipe: Recipe | str | Path | Mapping[str, Any], checkpoint: Path | None = None, *, allow_code: bool = False
) -> Run:
    """Load and tokenize the datasets of a recipe.

    Args:
        recipe: the recipe, its file, or its keys and values.
        checkpoint: the folder of the checkpoint to resume from, whose order of labels is kept.
        allow_code: whether to run the Python code that the recipe names, see `Recipe.load`.

    Returns:
        The run, which builds the model and the trainer: `prepare("recipe.yaml").build_trainer()`.

    Raises:
        RecipeError: if the recipe is not valid, or its encoder, adapters and tasks do not fit each other or the tasks
            of a trained model.
        DataError: if the data cannot be loaded or a row is not valid.
    """
    recipe = Recipe.read(recipe, allow_code=allow_code)
    _check_formats(recipe)
    headroom, teachers = headroom_of(recipe), teachers_of(recipe)
    logger.info("loading the tokenizer of %s", conceal(recipe.encoder))
    tokenizer, config = load_encoder_parts(recipe)
    check_encoder(recipe, config.text_config)
    trained = {task.name: fit_to_encoder(task, config.text_config) for task in config.get_tasks()}
    tasks = _with_default_options(recipe, trained, config.text_config)
    _check_task_options(recipe, trained, tasks)
    loaded = {name: load_splits(name, dataset, tasks, tokenizer=tokenizer) for name, dataset in recipe.datasets.items()}
    try:
        spaces = unite_label_spaces(loaded, tasks, trained)
    except ValueError as error:  # an option of a task names a label that the data do not have
        raise error if isinstance(error, MtlNlpError) else RecipeError(f"tasks: {error}") from error
    _check_known_labels(recipe, trained, spaces.tasks)
    resumed = {} if checkpoint is None else {task.name: task for task in read_config(checkpoint).get_tasks()}
    ordered = {name: _in_order_of(resumed.get(name), task) for name, task in spaces.tasks.items()}
    check_teachers(teachers, ordered)
    learned = learn_from_splits(ordered, loaded, {**resumed, **trained})
    notes = [*describe_code(recipe), *describe_padding(tokenizer, config.text_config)]
    notes += spaces.notes
    notes += describe_context(learned, config.text_config)
    notes += _add_tasks(recipe, config, learned)
    data = tokenize_datasets(recipe, tokenizer, config, loaded)
    _check_tuning(learned, data.splits.get("validation", {}))
    notes += [*data.notes, *describe_repeated_texts(loaded)]
    return Run(recipe, tokenizer, config, data.splits, data.streams, notes, headroom, trained.keys(), teachers)


def prepare_evaluation(recipe: Recipe, model: MultitaskModel, folder: str, split: str | None = None) -> Run:
    """Load and tokenize one split of a recipe with the label spaces of a trained model.

    Args:
        recipe: the recipe; the model must have its tasks.
        model: the model.
        folder: the model's folder or Hub id, from which the tokenizer is loaded.
        split: `train`, `validation` or `test`; by default `test`, and also `validation` if `test` lacks labels of a
            task. `Run.held_out` is then the split to score, as after a training.

    Raises:
        RecipeError: if the model does not have the recipe's tasks, or no dataset has the split.
        DataError: if the data cannot be loaded or a row is not valid.
    """
    _check_formats(recipe)
    for name in recipe.tasks:
        if name not in model.tasks or model.tasks[name].type != recipe.task(name).type:
            raise RecipeError(
                f"tasks.{name}: the model in {folder} has no {recipe.task(name).type} task of this name. "
                f"The model has {', '.join(f'{task.name} ({task.type})' for task in model.tasks.values())}."
            )
    tokenizer = load_model_tokenizer(folder, model.config)
    # The names of numbers belong to the recipe's data.
    tasks = {name: replace(model.tasks[name], names=recipe.task(name).names) for name in recipe.tasks}
    wanted = HELD_OUT if split is None else (split,)
    loaded: dict[str, LoadedDataset] = {}
    for each in wanted:
        found = {name: load_splits(name, dataset, tasks, each, tokenizer) for name, dataset in recipe.datasets.items()}
        loaded = {
            name: _united(loaded.get(name), data) for name, data in found.items() if data.splits or name in loaded
        }
        if all(any(_is_labelled(data, each, task) for data in loaded.values()) for task in recipe.tasks):
            break
    names = " or ".join(map(repr, wanted))
    remedy = "Choose a different --split" if split else "Name a split: --split train"
    if not loaded:
        raise RecipeError(f"datasets: no dataset has a split {names}. {remedy}.")
    data = tokenize_datasets(recipe, tokenizer, model.config, loaded)
    if not data.splits:
        raise RecipeError(f"datasets: no row of the split {names} has a label. {remedy}.")
    notes = list(dict.fromkeys(data.notes))
    if split is None and "test" not in data.splits:
        notes.append("scored on validation, because there is no test split with labels")
    return Run(recipe, tokenizer, model.config, data.splits, data.streams, notes)


def _united(first: LoadedDataset | None, other: LoadedDataset) -> LoadedDataset:
    """Return a dataset with the splits and notes of two loads of the same dataset."""
    if first is None:
        return other
    return replace(
        other,
        splits=first.splits | other.splits,
        drawn_from=first.drawn_from | other.drawn_from,
        notes=[*first.notes, *other.notes],
    )


def _is_labelled(data: LoadedDataset, split: str, task: str) -> bool:
    """Return whether any row of a split has a label for a task."""
    return split in data.splits and task in data.class_names and has_labels(data.splits[split], task)


def _with_default_options(
    recipe: Recipe, trained: Mapping[str, Task], text_config: PreTrainedConfig
) -> dict[str, Task]:
    """Return the tasks of a recipe, with the default options that tasks on words and the encoder decide.

    A recipe without tasks on words keeps the options of the stock classes. Beside tasks on words, a head reads the mean
    instead of the first sub-word, which serves the tasks on words. A trained head keeps its options, which a training
    beside other tasks may have decided.

    Raises:
        RecipeError: if an option does not fit the encoder.
    """
    tasks = {name: recipe.task(name) for name in recipe.tasks}
    own = default_pooling(text_config)
    usual = "mean" if own == "cls" and reads_words(tasks.values()) else own
    for name, task in tasks.items():
        possible = [task.with_default_pooling(pooling) for pooling in (usual, *POOLINGS)]
        kept = [each for each in possible if name in trained and _same_head(trained[name], each)]
        try:
            tasks[name] = fit_to_encoder((kept or possible)[0], text_config)
        except ValueError as error:
            raise RecipeError(f"tasks: {error}") from error
    return tasks


def _same_head(trained: Task, task: Task) -> bool:
    """Return whether a trained task has the options of a task of the recipe; scores have no effect on the head."""
    return trained.as_given().without_scores() == task.without_scores()


def _check_formats(recipe: Recipe) -> None:
    """Check the keys of all datasets before the first dataset is loaded."""
    for name, dataset in recipe.datasets.items():
        check_format(name, dataset)


def _check_task_options(recipe: Recipe, trained: Mapping[str, Task], tasks: Mapping[str, Task]) -> None:
    """Check that the tasks in both the recipe and the trained model have the same options."""
    for name in trained.keys() & tasks.keys():
        if not _same_head(trained[name], tasks[name]):
            raise RecipeError(
                f"tasks.{name}: {recipe.encoder} has a task of this name with different options. Rename the task."
            )


def _check_tuning(tasks: Mapping[str, Task], validation: Mapping[str, EncodedDataset]) -> None:
    """Check that there are validation rows for the options that are tuned after training."""
    for name, task in tasks.items():
        if task.needs_tuning is not None and not any(name in encoded.feeds for encoded in validation.values()):
            raise RecipeError(
                f"tasks.{name}: `{task.needs_tuning}` needs a validation split with labels of the task. Add one, or "
                f"set `validation_size` in a dataset."
            )


def _check_known_labels(recipe: Recipe, trained: Mapping[str, Task], tasks: Mapping[str, Task]) -> None:
    """Check that the trained heads have all labels of the data."""
    for name in trained.keys() & tasks.keys():
        if new := set(tasks[name].labels) - set(trained[name].labels):
            raise RecipeError(
                f"tasks.{name}: {recipe.encoder} was trained without the labels {', '.join(sorted(new))}. The labels "
                f"of a trained head cannot change. Rename the task."
            )


def _in_order_of(resumed: Task | None, task: Task) -> Task:
    """Return a task with the order of labels of the same task in a checkpoint, where both have the same labels."""
    is_same = resumed is not None and set(resumed.labels) == set(task.labels)
    return task.with_labels(resumed.labels) if resumed is not None and is_same else task


def _add_tasks(recipe: Recipe, config: MultitaskConfig, tasks: Mapping[str, Task]) -> list[str]:
    """Add the recipe's tasks to a configuration, and return a note if the trained tasks will read texts differently."""
    trained = {task.name: task for task in config.get_tasks()}
    read_words = config.reads_words
    config.tasks = [task.to_dict() for task in {**trained, **tasks, **trained}.values()]
    config.pair_tasks = _pair_tasks(recipe, trained, config.pair_tasks or []) or None
    if not trained or not config.reads_words or read_words:
        return []
    change = f"the new task on words needs texts split into words; {', '.join(trained)} were trained on unsplit texts"
    if recipe.freeze:
        raise RecipeError(
            f"freeze: {change}, so the answers of frozen tasks would change. Leave out `freeze` or the new task."
        )
    return [change]


def _pair_tasks(recipe: Recipe, trained: Collection[str], before: Collection[str]) -> list[str]:
    """Return the tasks all of whose rows are pairs of texts, in the recipe and in the training before, if any."""
    of_recipe = [
        name
        for name in recipe.tasks
        if all("text_pair" in each.inputs for each in recipe.datasets.values() if name in each.labels)
        and (name in before or name not in trained)
    ]
    return [*(name for name in before if name not in recipe.tasks), *of_recipe]
