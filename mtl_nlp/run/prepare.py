"""The preparation of a run: a recipe's data is loaded and tokenized for a model and a trainer."""

from __future__ import annotations

from collections.abc import Collection, Mapping
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
from mtl_nlp.modeling.tasks_multitask import Task, reads_words
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.run.adapters import check_encoder
from mtl_nlp.run.encoder import load_encoder_parts
from mtl_nlp.run.headroom import headroom_of
from mtl_nlp.run.notes import describe_export
from mtl_nlp.run.tokenization import tokenize_datasets


@dataclass
class Run:
    """A recipe with its data, ready for training or evaluation.

    Attributes:
        recipe: the recipe.
        tokenizer: the encoder's tokenizer.
        config: the model's configuration with all tasks and their label spaces. Before training, the configuration has
            only the adapters of the trained model that the recipe starts from.
        splits: split -> dataset -> its encoded rows.
        streams: dataset -> its training split, if that is streamed.
        notes: sentences for the user about the data.
        headroom: the value of `TaskMixture.headroom`; False for an evaluation.
        trained_heads: the tasks whose heads a trained model has, from which the recipe starts.
    """

    recipe: Recipe
    tokenizer: PreTrainedTokenizerBase
    config: MultitaskConfig
    splits: dict[str, dict[str, EncodedDataset]]
    streams: dict[str, EncodedStream]
    notes: list[str] = field(default_factory=list)
    headroom: bool | dict[str, float] = False
    trained_heads: Collection[str] = ()

    @cached_property
    def tasks(self) -> dict[str, Task]:
        """All tasks of the model by name: the recipe's tasks, and the tasks of a trained model that it starts from.

        The recipe decides the scores of its tasks.
        """
        tasks = {task.name: task for task in self.config.get_tasks()}
        return {
            name: task.with_scores_of(self.recipe.task(name)) if name in self.recipe.tasks else task
            for name, task in tasks.items()
        }

    @property
    def train(self) -> dict[str, EncodedDataset | EncodedStream]:
        """The training splits in the recipe's order; empty for an evaluation."""
        found: dict[str, EncodedDataset | EncodedStream] = {**self.splits.get("train", {}), **self.streams}
        return {name: found[name] for name in self.recipe.datasets if name in found}

    @cached_property
    def mixture(self) -> TaskMixture:
        """The training splits as the recipe mixes them."""
        try:
            return TaskMixture(self.train, **{**dict(self.recipe.mixture), "headroom": self.headroom})
        except ValueError as error:
            raise RecipeError(f"mixture: {error}") from error

    @property
    def held_out(self) -> str:
        """The split to report scores on: the first of `test` and `validation` with labels for all tasks of the recipe.

        If neither split has labels for all tasks, the first existing one of the two is used.
        """
        present = [split for split in ("test", "validation") if split in self.splits]
        for split in present:
            if all(any(task in rows.feeds for rows in self.splits[split].values()) for task in self.recipe.tasks):
                return split
        return present[0]


def prepare_run(recipe: Recipe) -> Run:
    """Load and tokenize the datasets of a recipe.

    Args:
        recipe: the recipe.

    Raises:
        RecipeError: if the recipe's encoder, adapters and tasks do not fit each other or the tasks of a trained model.
        DataError: if the data cannot be loaded or a row is not valid.
    """
    _check_formats(recipe)
    headroom = headroom_of(recipe)
    tokenizer, config = load_encoder_parts(recipe)
    check_encoder(recipe, config.text_config)
    trained = {task.name: task for task in config.get_tasks()}
    tasks = _with_default_options(recipe, trained)
    _check_task_options(recipe, trained, tasks)
    loaded = {name: load_splits(name, dataset, tasks) for name, dataset in recipe.datasets.items()}
    spaces = unite_label_spaces(loaded, tasks)
    _check_known_labels(recipe, trained, spaces.tasks)
    notes = [*spaces.notes, *describe_export(spaces.tasks, config.text_config)]
    notes += _add_tasks(recipe, config, spaces.tasks)
    data = tokenize_datasets(recipe, tokenizer, config, loaded)
    notes += data.notes
    return Run(recipe, tokenizer, config, data.splits, data.streams, notes, headroom, trained.keys())


def prepare_evaluation(recipe: Recipe, model: MultitaskModel, folder: str, split: str) -> Run:
    """Load and tokenize one split of a recipe with the label spaces of a trained model.

    Args:
        recipe: the recipe; the model must have its tasks.
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
            raise RecipeError(
                f"tasks.{name}: the model in {folder} has no {recipe.task(name).type} task of this name. "
                f"The model has {', '.join(f'{task.name} ({task.type})' for task in model.tasks.values())}."
            )
    tokenizer = load_model_tokenizer(folder, model.config)
    found = {name: load_splits(name, dataset, model.tasks, only=split) for name, dataset in recipe.datasets.items()}
    loaded = {name: data for name, data in found.items() if data.splits}
    if not loaded:
        raise RecipeError(f"datasets: no dataset has a split {split!r}. Choose a different --split.")
    data = tokenize_datasets(recipe, tokenizer, model.config, loaded)
    if split not in data.splits:
        raise RecipeError(f"datasets: no row of the split {split!r} has a label. Choose a different --split.")
    return Run(recipe, tokenizer, model.config, data.splits, data.streams, data.notes)


def _with_default_options(recipe: Recipe, trained: Mapping[str, Task]) -> dict[str, Task]:
    """Return the tasks of a recipe, with the default options that tasks on words decide.

    A recipe without tasks on words keeps the options of the stock classes. A trained head keeps its options, which a
    training beside other tasks may have decided.
    """
    tasks = {name: recipe.task(name) for name in recipe.tasks}
    has_words = reads_words(tasks.values())
    for name, task in tasks.items():
        beside_words = task.beside_words()
        is_beside_words = _same_head(trained[name], beside_words) if name in trained else has_words
        if "pooling" not in recipe.tasks[name] and is_beside_words:
            tasks[name] = beside_words
    return tasks


def _same_head(trained: Task, task: Task) -> bool:
    """Return whether a trained task has the options of a task of the recipe; scores have no effect on the head."""
    return trained.with_labels(()).without_scores() == task.without_scores()


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


def _check_known_labels(recipe: Recipe, trained: Mapping[str, Task], tasks: Mapping[str, Task]) -> None:
    """Check that the trained heads have all labels of the data."""
    for name in trained.keys() & tasks.keys():
        if new := set(tasks[name].labels) - set(trained[name].labels):
            raise RecipeError(
                f"tasks.{name}: {recipe.encoder} was trained without the labels {', '.join(sorted(new))}. The labels "
                f"of a trained head cannot change. Rename the task."
            )


def _add_tasks(recipe: Recipe, config: MultitaskConfig, tasks: Mapping[str, Task]) -> list[str]:
    """Add the recipe's tasks to a configuration, and return a note if the trained tasks will read texts differently."""
    trained = {task.name: task for task in config.get_tasks()}
    read_words = config.reads_words
    config.tasks = [task.to_dict() for task in {**trained, **tasks, **trained}.values()]
    if not trained or not config.reads_words or read_words:
        return []
    change = f"the new task on words needs texts split into words; {', '.join(trained)} were trained on unsplit texts"
    if recipe.freeze:
        raise RecipeError(
            f"freeze: {change}, so the answers of frozen tasks would change. Leave out `freeze` or the new task."
        )
    return [change]
