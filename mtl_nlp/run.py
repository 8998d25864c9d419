"""A run: what a recipe becomes. Loading, label spaces, encoding, model and trainer, one function each."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, get_type_hints

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, PreTrainedConfig, PreTrainedTokenizerBase, set_seed

from mtl_nlp.adapters import adapt, check_encoder
from mtl_nlp.data.encoding import EncodedDataset, EncodedStream, count_unseen, encode_dataset, encode_stream
from mtl_nlp.data.labels import unite_label_spaces
from mtl_nlp.data.loading import LoadedDataset, has_labels, load_splits
from mtl_nlp.data.mixture import TaskMixture
from mtl_nlp.data.sampler import MixtureBatchSampler
from mtl_nlp.data.tokenizer import load_tokenizer
from mtl_nlp.messages import did_you_mean, one_line
from mtl_nlp.modeling.configuration_multitask import MultitaskConfig
from mtl_nlp.modeling.encoding_multitask import default_max_length
from mtl_nlp.modeling.heads_multitask import stock_flaw
from mtl_nlp.modeling.modeling_multitask import MultitaskModel
from mtl_nlp.modeling.tasks_multitask import Task, reads_words
from mtl_nlp.recipe import Recipe, RecipeError
from mtl_nlp.trained_model import load_model, load_model_tokenizer
from mtl_nlp.trainer import MultitaskTrainer
from mtl_nlp.training_args import MultitaskTrainingArguments, batch_sampler


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


def training_arguments(recipe: Recipe) -> MultitaskTrainingArguments:
    """The recipe's `training` and `loss` sections as arguments.

    Raises:
        RecipeError: if a field is unknown or a value is not valid.
    """
    valid = {f.name for f in dataclasses.fields(MultitaskTrainingArguments) if f.init}
    reserved = {
        "output_dir": "output_dir",
        "loss_weights": "loss.weights",
        "loss_scale": "loss.scale",
        "adapter_pull": "adapters.pull",
    }
    for key in recipe.training:
        if key not in valid:
            raise RecipeError(f"training.{key}: no such training argument. {did_you_mean(key, valid)}")
        if key in reserved:
            raise RecipeError(f"training.{key}: give it as `{reserved[key]}`.")
    values = _checked_values(recipe.training)
    try:
        return MultitaskTrainingArguments(
            **values,
            output_dir=recipe.output_dir,
            loss_weights=dict(recipe.loss.weights),
            loss_scale=recipe.loss.scale,
            adapter_pull=0.0 if recipe.adapters is None else recipe.adapters.pull,
        )
    except (ValueError, TypeError, ImportError) as error:  # deepspeed and others are not installed with mtl_nlp
        raise RecipeError(f"training: {one_line(error)}") from error


_NUMBERS: dict[Any, type[int] | type[float]] = {int: int, float: float, int | None: int, float | None: float}
_AT_LEAST_ONE = ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps")


def _checked_values(training: Mapping[str, Any]) -> dict[str, Any]:
    """The values with their types: TrainingArguments takes anything, and what is wrong fails deep inside.

    YAML 1.1 reads an unquoted `no` as False, as which no strategy is known, and `2e-4` as a string.
    """
    types = get_type_hints(MultitaskTrainingArguments)
    values: dict[str, Any] = {}
    for key, value in training.items():
        if value is False and key.endswith("_strategy"):
            value = "no"
        number = _NUMBERS.get(types[key])
        if number is not None and not (value is None and types[key] is not number):
            try:
                value = number(value) if isinstance(value, str) else value
            except ValueError:
                raise RecipeError(f"training.{key}: expected a number, found {value!r}.") from None
            if isinstance(value, bool) or not isinstance(value, int | number):
                kind = "whole number" if number is int else "number"
                raise RecipeError(f"training.{key}: expected a {kind}, found {value!r}.")
        if key in _AT_LEAST_ONE and value < 1:
            raise RecipeError(f"training.{key}: should be at least 1, found {value}.")
        values[key] = value
    if values.get("num_train_epochs", 1) <= 0:
        raise RecipeError(f"training.num_train_epochs: should be above 0, found {values['num_train_epochs']}.")
    return values


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


def describe_export(tasks: Mapping[str, Task], text_config: PreTrainedConfig) -> list[str]:
    """Which tasks no stock class computes, told before training, a sentence each."""
    flaws = {name: stock_flaw(task, text_config) for name, task in tasks.items()}
    return [f"{name}: cannot be exported to a stock class: {flaw}" for name, flaw in flaws.items() if flaw is not None]


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
            notes += describe_losses(encoded, tasks, config.max_length)
    for split, datasets in splits.items():
        feeders = [*datasets.values(), *(streams.values() if split == "train" else ())]
        unscored = [task for task in recipe.tasks if not any(task in encoded.feeds for encoded in feeders)]
        if unscored:
            notes.append(f"{split}: no dataset has labels for {', '.join(unscored)}; mtl_score leaves them out")
    return Run(recipe, tokenizer, config, splits, streams, notes)


def describe_losses(encoded: EncodedDataset, tasks: Mapping[str, Task], max_length: int | None) -> list[str]:
    """What of a split is repaired, unknown, empty, cut or lost, a sentence each."""
    notes = []
    if encoded.repaired:
        notes.append(f"{encoded.name}: {encoded.repaired} illegal span tags, repaired as seqeval reads them")
    for name in encoded.feeds:
        missing = encoded.missing(name) - encoded.unlabelled
        if missing:
            notes.append(f"{encoded.name}: {missing} rows lack a label for {name}; the others of the row are used")
        unseen = count_unseen(encoded, tasks[name])
        if unseen:
            notes.append(
                f"{encoded.name}: {unseen} labels of {name} do not occur in training; they are scored as wrong"
            )
    for count, what in (
        (encoded.empty, "empty texts; kept, their labels count"),
        (encoded.unlabelled, "rows without any label; not used"),
        (encoded.extra_windows, f"more windows of up to {max_length} sub-words, into which long texts are cut"),
        (encoded.truncated, f"texts truncated to {max_length} sub-words"),
    ):
        if count:
            notes.append(f"{encoded.name}: {count} {what}")
    return notes


def build_model(run: Run) -> MultitaskModel:
    """The encoder with new heads and adapters, seeded by the recipe's `training.seed`, or a trained model with more.

    Raises:
        RecipeError: if the encoder cannot be loaded, or the recipe's adapters and frozen parts do not fit it.
        ModelError: if a trained model cannot be loaded.
    """
    recipe = run.recipe
    set_seed(recipe.training.get("seed", 42))
    if run.starts_trained:
        return _completed(load_model(recipe.encoder, **{"dtype": torch.float32, **recipe.model_init_kwargs}), run)
    try:
        model = MultitaskModel.from_encoder(
            recipe.encoder,
            list(run.tasks.values()),
            max_length=run.config.max_length,
            stride=run.config.stride,
            **recipe.model_init_kwargs,
        )
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise RecipeError(f"encoder: {recipe.encoder} cannot be loaded: {one_line(error)}") from error
    return _completed(model, run)


def outline_model(run: Run) -> MultitaskModel:
    """The model that `build_model` would build, without its weights.

    Raises:
        RecipeError: if the recipe's adapters and frozen parts do not fit it.
    """
    with torch.device("meta"):
        return _completed(MultitaskModel(copy.deepcopy(run.config)), run)


def _completed(model: MultitaskModel, run: Run) -> MultitaskModel:
    for name, task in run.tasks.items():
        if name not in model.tasks:
            model.add_task(task)
    model.config.max_length, model.config.stride = run.config.max_length, run.config.stride
    adapt(model, run.recipe)
    return model


def check_splits(run: Run, arguments: MultitaskTrainingArguments) -> None:
    """See that there are splits for what the arguments ask for and for the final scores.

    Raises:
        RecipeError: if there are none.
    """
    if "validation" not in run.splits and arguments.eval_strategy != "no":
        raise RecipeError("training.eval_strategy: there is no validation split. Give one, or `validation_size`.")
    if not run.splits.keys() & {"test", "validation"}:
        raise RecipeError("datasets: there is neither a test nor a validation split to score on.")


def plan_batches(run: Run, arguments: MultitaskTrainingArguments) -> MixtureBatchSampler:
    """The batches that training would take.

    Raises:
        RecipeError: if the mixture cannot be made, or batches of it.
    """
    try:
        return batch_sampler(run.mixture, arguments)
    except ValueError as error:
        raise error if isinstance(error, RecipeError) else RecipeError(f"training: {error}") from error


def build_trainer(run: Run, model: MultitaskModel, arguments: MultitaskTrainingArguments) -> MultitaskTrainer:
    """The trainer of a run.

    Raises:
        RecipeError: if the arguments are at odds, or ask for a package that is not there.
    """
    validation = run.splits.get("validation")
    try:
        trainer = MultitaskTrainer(
            model=model,
            args=arguments,
            processing_class=run.tokenizer,
            train_dataset=run.mixture if run.train else None,
            eval_dataset=validation,
        )
    except (ImportError, RuntimeError, ValueError) as error:  # a reporter that is not installed, arguments at odds
        raise RecipeError(f"training: {one_line(error)}") from error
    trainer.recipe = run.recipe.to_yaml()
    return trainer
