"""A run: what a recipe becomes. Loading, label spaces, encoding, model and trainer, one function each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from transformers import AutoConfig, PreTrainedTokenizerBase

from mtl_nlp.data.encoding import EncodedDataset, EncodedStream, encode_dataset, encode_stream
from mtl_nlp.data.labels import unite_label_spaces
from mtl_nlp.data.loading import LoadedDataset, has_labels, load_splits
from mtl_nlp.data.tokenizer import load_tokenizer
from mtl_nlp.errors import RecipeError
from mtl_nlp.hub.loading import load_model_tokenizer
from mtl_nlp.messages import one_line
from mtl_nlp.mixture.mixture import TaskMixture
from mtl_nlp.modeling.configuration_multitask import MultitaskConfig
from mtl_nlp.modeling.modeling_multitask import MultitaskModel
from mtl_nlp.modeling.tasks_multitask import Task, reads_words
from mtl_nlp.modeling.windows_multitask import default_max_length
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.run.adapters import check_encoder
from mtl_nlp.run.notes import describe_export, describe_lost_rows


@dataclass
class Run:
    """A recipe's data, ready to train on or to evaluate on.

    Attributes:
        recipe: the recipe.
        tokenizer: the encoder's.
        config: the model's configuration, its tasks with their label spaces; for training, with only those adapters
            that a trained model brings.
        splits: split -> dataset -> its encoded rows.
        streams: dataset -> its training split, if that is streamed.
        notes: what the user should be told about the data, a sentence each.
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
        """The training splits in the recipe's order; none for an evaluation."""
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
        """The split to report: `test` if it feeds all of the recipe's tasks, else `validation` if so, else any."""
        present = [split for split in ("test", "validation") if split in self.splits]
        for split in present:
            if all(any(task in rows.feeds for rows in self.splits[split].values()) for task in self.recipe.tasks):
                return split
        return present[0]


def prepare_run(recipe: Recipe) -> Run:
    """Load and encode everything a recipe names.

    Raises:
        RecipeError, DataError: see there.
    """
    tokenizer, config = _encoder_parts(recipe)
    check_encoder(recipe, config.text_config)
    trained = {task.name: task for task in config.get_tasks()}
    tasks = {name: recipe.task(name) for name in recipe.tasks}
    for name in trained.keys() & tasks.keys():
        if trained[name].with_labels(()) != tasks[name]:
            raise RecipeError(f"tasks.{name}: {recipe.encoder} has a task of this name and other options. Rename it.")
    loaded = {name: load_splits(name, dataset, tasks) for name, dataset in recipe.datasets.items()}
    spaces = unite_label_spaces(loaded, tasks)
    for name, task in spaces.tasks.items():
        if name in trained and (new := set(task.labels) - set(trained[name].labels)):
            raise RecipeError(
                f"tasks.{name}: {recipe.encoder} was trained without the labels {', '.join(sorted(new))}. A head keeps "
                f"its labels: give the task another name."
            )
    read_words = config.reads_words
    config.tasks = [task.to_dict() for task in (trained | spaces.tasks | trained).values()]
    notes = [*spaces.notes, *describe_export(spaces.tasks, config.text_config)]
    if trained and config.reads_words and not read_words:
        change = f"for a task on words texts are split into words, which {', '.join(trained)} read as they are so far"
        if recipe.freeze:
            raise RecipeError(f"freeze: {change}: they would answer otherwise. Leave out `freeze`, or that task.")
        notes.append(change)
    return _encode(recipe, tokenizer, config, loaded, notes)


def prepare_evaluation(recipe: Recipe, model: MultitaskModel, folder: str, split: str) -> Run:
    """Load and encode one split of a recipe with the label spaces of a trained model.

    Raises:
        RecipeError: if the recipe's tasks are not the model's, or no dataset has the split.
    """
    for name in recipe.tasks:
        if name not in model.tasks or model.tasks[name].type != recipe.task(name).type:
            raise RecipeError(f"tasks.{name}: the model in {folder} has no such task. It has {', '.join(model.tasks)}.")
    tokenizer = load_model_tokenizer(folder, model.config)
    found = {name: load_splits(name, dataset, model.tasks, only=split) for name, dataset in recipe.datasets.items()}
    loaded = {name: data for name, data in found.items() if data.splits}
    if not loaded:
        raise RecipeError(f"datasets: none has a split {split!r}.")
    return _encode(recipe, tokenizer, model.config, loaded, [])


def _encoder_parts(recipe: Recipe) -> tuple[PreTrainedTokenizerBase, MultitaskConfig]:
    """Tokenizer and configuration that a recipe starts with, before its own tasks: a trained model's, or a new one."""
    encoder = recipe.encoder
    hub = {
        key: value
        for key, value in recipe.model_init_kwargs.items()
        if key in {"revision", "cache_dir", "trust_remote_code"}
    }
    try:
        config = AutoConfig.from_pretrained(encoder, **hub)
        if not isinstance(config, MultitaskConfig):
            config = MultitaskConfig(text_config=config)
        on_words = config.reads_words or reads_words([recipe.task(name) for name in recipe.tasks])
        tokenizer = load_tokenizer(encoder, reads_words=on_words, **hub)
    except (OSError, ValueError) as error:
        raise RecipeError(f"encoder: {encoder} cannot be loaded: {one_line(error)}") from error
    limit = default_max_length(tokenizer, config.text_config)
    if recipe.max_length is not None and limit is not None and recipe.max_length > limit:
        raise RecipeError(
            f"max_length: the encoder reads at most {limit} sub-words at once. Found {recipe.max_length}."
        )
    config.max_length = recipe.max_length or config.max_length or limit
    config.stride = config.stride if recipe.stride is None else recipe.stride
    if config.max_length is not None and config.stride is not None:
        capacity = config.max_length - tokenizer.num_special_tokens_to_add()
        if config.stride >= capacity:
            raise RecipeError(
                f"stride: windows hold {capacity} sub-words beside special tokens and should share fewer. "
                f"Found {config.stride}."
            )
    return tokenizer, config


def _encode(
    recipe: Recipe,
    tokenizer: PreTrainedTokenizerBase,
    config: MultitaskConfig,
    loaded: Mapping[str, LoadedDataset],
    notes: list[str],
) -> Run:
    tasks = {task.name: task for task in config.get_tasks()}
    splits: dict[str, dict[str, EncodedDataset]] = {}
    streams: dict[str, EncodedStream] = {}
    notes = list(notes)
    encoding: dict[str, Any] = {
        "reads_words": config.reads_words,
        "max_length": config.max_length,
        "stride": config.stride,
    }
    for name, data in loaded.items():
        if data.stream is not None:
            stream = encode_stream(
                f"{name}/train",
                data.stream,
                tasks,
                tokenizer,
                **encoding,
                num_rows=data.num_rows,
                buffer_size=recipe.datasets[name].buffer_size,
            )
            streams[name] = stream
            how = "counted; `num_rows` spares it" if recipe.datasets[name].num_rows is None else "as given"
            notes.append(f"{stream.name}: streamed, {data.num_rows} rows ({how})")
        for split, rows in data.splits.items():
            if split != "train" and not any(has_labels(rows, task) for task in data.class_names):
                notes.append(f"{name}/{split}: no row has a label; the split is not used")
                continue
            encoded = encode_dataset(f"{name}/{split}", rows, tasks, tokenizer, **encoding)
            splits.setdefault(split, {})[name] = encoded
            notes += describe_lost_rows(encoded, tasks, config.max_length)
    for split, datasets in splits.items():
        feeders = [*datasets.values(), *(streams.values() if split == "train" else ())]
        unscored = [task for task in recipe.tasks if not any(task in encoded.feeds for encoded in feeders)]
        if unscored:
            notes.append(f"{split}: no dataset has labels for {', '.join(unscored)}; mtl_score leaves them out")
    return Run(recipe, tokenizer, config, splits, streams, notes)
