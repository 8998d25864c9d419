"""A run: a recipe with its data loaded and tokenized, ready for a model and a trainer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from transformers import PreTrainedTokenizerBase

from mtl_nlp.data.encoding import EncodedDataset, EncodedStream
from mtl_nlp.data.formats import check_format
from mtl_nlp.data.labels import unite_label_spaces
from mtl_nlp.data.loading import load_splits
from mtl_nlp.errors import RecipeError
from mtl_nlp.hub.loading import load_model_tokenizer
from mtl_nlp.mixture.mixture import TaskMixture
from mtl_nlp.modeling.configuration_multitask import MultitaskConfig
from mtl_nlp.modeling.modeling_multitask import MultitaskModel
from mtl_nlp.modeling.tasks_multitask import Task
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.run.adapters import check_encoder
from mtl_nlp.run.encoder import load_encoder_parts
from mtl_nlp.run.notes import describe_export
from mtl_nlp.run.tokenization import tokenize_datasets


@dataclass
class Run:
    """A recipe's data, ready to train on or to evaluate on.

    Attributes:
        recipe: the recipe.
        tokenizer: the encoder's tokenizer.
        config: the model's configuration with all tasks and their label spaces. Before training it has only the
            adapters of the trained model that the recipe starts from.
        splits: split -> dataset -> its encoded rows.
        streams: dataset -> its training split, if that is streamed.
        notes: sentences for the user about the data.
    """

    recipe: Recipe
    tokenizer: PreTrainedTokenizerBase
    config: MultitaskConfig
    splits: dict[str, dict[str, EncodedDataset]]
    streams: dict[str, EncodedStream]
    notes: list[str] = field(default_factory=list)

    @property
    def starts_trained(self) -> bool:
        """Whether the recipe's encoder is a trained multitask model."""
        return self.config.name_or_path != ""

    @cached_property
    def tasks(self) -> dict[str, Task]:
        """All tasks of the model by name: those of the recipe, and of the trained model that it starts from."""
        return {task.name: task for task in self.config.get_tasks()}

    @property
    def train(self) -> dict[str, EncodedDataset | EncodedStream]:
        """The training splits in the recipe's order; empty for an evaluation."""
        found: dict[str, EncodedDataset | EncodedStream] = {**self.splits.get("train", {}), **self.streams}
        return {name: found[name] for name in self.recipe.datasets if name in found}

    @cached_property
    def mixture(self) -> TaskMixture:
        """The training splits as the recipe mixes them."""
        try:
            return TaskMixture(self.train, **dict(self.recipe.mixture))
        except ValueError as error:
            raise RecipeError(f"mixture: {error}") from error

    @property
    def held_out(self) -> str:
        """The split to report scores on.

        This is `test` or else `validation`, whichever has labels for all of the recipe's tasks. If neither does, it is
        `test` if there is one.
        """
        present = [split for split in ("test", "validation") if split in self.splits]
        for split in present:
            if all(any(task in rows.feeds for rows in self.splits[split].values()) for task in self.recipe.tasks):
                return split
        return present[0]


def prepare_run(recipe: Recipe) -> Run:
    """Load and tokenize everything that a recipe names.

    Args:
        recipe: the recipe.

    Raises:
        RecipeError: if the recipe's encoder, adapters or tasks do not fit each other or a trained model's tasks.
        DataError: if the data cannot be loaded or a row is not valid.
    """
    _check_formats(recipe)
    tokenizer, config = load_encoder_parts(recipe)
    check_encoder(recipe, config.text_config)
    trained = {task.name: task for task in config.get_tasks()}
    tasks = {name: recipe.task(name) for name in recipe.tasks}
    _check_task_options(recipe, trained, tasks)
    loaded = {name: load_splits(name, dataset, tasks) for name, dataset in recipe.datasets.items()}
    spaces = unite_label_spaces(loaded, tasks)
    _check_known_labels(recipe, trained, spaces.tasks)
    notes = [*spaces.notes, *describe_export(spaces.tasks, config.text_config)]
    notes += _add_tasks(recipe, config, spaces.tasks)
    data = tokenize_datasets(recipe, tokenizer, config, loaded)
    return Run(recipe, tokenizer, config, data.splits, data.streams, [*notes, *data.notes])


def prepare_evaluation(recipe: Recipe, model: MultitaskModel, folder: str, split: str) -> Run:
    """Load and tokenize one split of a recipe with the label spaces of a trained model.

    Args:
        recipe: the recipe, whose tasks the model has.
        model: the model.
        folder: the model's folder or Hub id, from which the tokenizer is loaded.
        split: `train`, `validation` or `test`.

    Raises:
        RecipeError: if the model does not have the recipe's tasks, or no dataset has the split.
        DataError: if the data cannot be loaded or a row is not valid.
    """
    _check_formats(recipe)
    for name in recipe.tasks:
        if name not in model.tasks or model.tasks[name].type != recipe.task(name).type:
            raise RecipeError(f"tasks.{name}: the model in {folder} has no such task. It has {', '.join(model.tasks)}.")
    tokenizer = load_model_tokenizer(folder, model.config)
    found = {name: load_splits(name, dataset, model.tasks, only=split) for name, dataset in recipe.datasets.items()}
    loaded = {name: data for name, data in found.items() if data.splits}
    if not loaded:
        raise RecipeError(f"datasets: none has a split {split!r}.")
    data = tokenize_datasets(recipe, tokenizer, model.config, loaded)
    return Run(recipe, tokenizer, model.config, data.splits, data.streams, data.notes)


def _check_formats(recipe: Recipe) -> None:
    """Check the keys of all datasets before the first of them is loaded."""
    for name, dataset in recipe.datasets.items():
        check_format(name, dataset)


def _check_task_options(recipe: Recipe, trained: Mapping[str, Task], tasks: Mapping[str, Task]) -> None:
    """Check that a task that the trained model has too is the same task."""
    for name in trained.keys() & tasks.keys():
        if trained[name].with_labels(()) != tasks[name]:
            raise RecipeError(f"tasks.{name}: {recipe.encoder} has a task of this name and other options. Rename it.")


def _check_known_labels(recipe: Recipe, trained: Mapping[str, Task], tasks: Mapping[str, Task]) -> None:
    """Check that the data has no labels that the trained model's head for the task does not have."""
    for name in trained.keys() & tasks.keys():
        if new := set(tasks[name].labels) - set(trained[name].labels):
            raise RecipeError(
                f"tasks.{name}: {recipe.encoder} was trained without the labels {', '.join(sorted(new))}. A head keeps "
                f"its labels: give the task another name."
            )


def _add_tasks(recipe: Recipe, config: MultitaskConfig, tasks: Mapping[str, Task]) -> list[str]:
    """Add the recipe's tasks to a configuration; return a note if the trained tasks read their texts differently."""
    trained = {task.name: task for task in config.get_tasks()}
    read_words = config.reads_words
    config.tasks = [task.to_dict() for task in {**trained, **tasks, **trained}.values()]
    if not trained or not config.reads_words or read_words:
        return []
    change = f"for a task on words texts are split into words, which {', '.join(trained)} read as they are so far"
    if recipe.freeze:
        raise RecipeError(f"freeze: {change}: they would answer otherwise. Leave out `freeze`, or that task.")
    return [change]
