"""The values that the constructor and the methods of a trainer accept, brought into one form or refused in one line."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any

from datasets import DatasetDict, IterableDatasetDict
from transformers import PreTrainedTokenizerBase, TrainingArguments
from transformers.utils import logging

from mtl_nlp.data.encoding import EncodedDataset, EncodedStream
from mtl_nlp.data.from_python import Columns, check_label_spaces, named_datasets, shown
from mtl_nlp.errors import DataError
from mtl_nlp.mixture.mixture import TaskMixture
from mtl_nlp.modeling.modeling_multitask import MultitaskModel
from mtl_nlp.modeling.tasks_multitask import Task
from mtl_nlp.modeling.windows_multitask import default_max_length
from mtl_nlp.training.arguments import MultitaskTrainingArguments

logger = logging.get_logger(__name__)

Preprocess = Callable[[Any, Any], Any] | Mapping[str, Callable[[Any, Any], Any]]
"""`preprocess_logits_for_metrics`: a function of dicts by task, or a function for each of some tasks."""

Sets = dict[str, dict[str, EncodedDataset]]
"""Evaluation sets: name of the set -> name of the dataset -> split. A single set without a name has the name ''."""


def training_arguments_of(args: TrainingArguments | None) -> MultitaskTrainingArguments:
    """Return training arguments for multitask training, with the values that plain training arguments change.

    Plain arguments with `load_best_model_at_end` choose the model by `mtl_score`, unless they name a metric. The metric
    `loss` is the default of plain arguments and counts as no name; `eval_loss` chooses by the loss.

    Args:
        args: the arguments of a trainer; None for the defaults of Trainer.

    Raises:
        ValueError: if the arguments are of a different class, or a value is not valid.
    """
    if args is None:
        return MultitaskTrainingArguments("tmp_trainer")
    if isinstance(args, MultitaskTrainingArguments):
        return args
    if type(args) is not TrainingArguments:
        raise ValueError(
            f"`args` should be MultitaskTrainingArguments, or plain TrainingArguments. Found {type(args).__name__}."
        )
    # Compared with values after the same changes, such as names that became members of an enumeration.
    plain = vars(TrainingArguments(args.output_dir))
    changed = {
        field.name: vars(args)[field.name]
        for field in dataclasses.fields(TrainingArguments)
        if field.init and vars(args)[field.name] != plain[field.name]
    }
    if args.load_best_model_at_end and args.metric_for_best_model == "loss":
        # Plain arguments fill in their default; a user who wants the loss names `eval_loss`.
        del changed["metric_for_best_model"], changed["greater_is_better"]
    return MultitaskTrainingArguments(**{**changed, "output_dir": args.output_dir})


def check_model(model: Any) -> None:
    """Check that a model has the heads of tasks.

    Raises:
        ValueError: if the model is of a different class.
    """
    if not isinstance(model, MultitaskModel):
        raise ValueError(
            f"`model` should be a MultitaskModel, such as MultitaskModel.from_encoder(encoder, tasks). Found "
            f"{type(model).__name__}."
        )


def check_callables(tasks: Mapping[str, Task], data_collator: Any, compute_loss_func: Any, **by_task: Any) -> None:
    """Check the functions that a trainer is given.

    Args:
        tasks: the model's tasks by name.
        data_collator: the collator; None for the default.
        compute_loss_func: Trainer's argument, which is refused.
        **by_task: further arguments by name: a function, or a dict from task to function; None for none.

    Raises:
        ValueError: if a collator does not lay out the labels of tasks, or a dict names an unknown task.
    """
    if compute_loss_func is not None:
        raise ValueError(
            "`compute_loss_func` would replace the joint loss, which is exact over micro-batches and processes. For "
            "the weights of the tasks pass `loss_weighting=`; for the loss of one task define a LabelKind "
            "with `loss_sum` (see register_task_type)."
        )
    if data_collator is not None and (
        not callable(data_collator) or data_collator.__module__.split(".")[0] == "transformers"
    ):
        raise ValueError(
            f"`data_collator` should lay out the labels of all tasks, like MultitaskDataCollator. Found "
            f"{_name_of(data_collator)}. Leave it out, and pass the tokenizer as `processing_class`."
        )
    for argument, given in by_task.items():
        unknown = given.keys() - tasks.keys() if isinstance(given, Mapping) else set()
        if unknown:
            raise ValueError(
                f"`{argument}` should name tasks of the model ({', '.join(tasks)}). Found "
                f"{', '.join(sorted(map(repr, unknown)))}."
            )


def _name_of(collator: Any) -> str:
    return collator.__name__ if isinstance(collator, FunctionType) else type(collator).__name__


def columns_of(
    model: MultitaskModel,
    train_dataset: Any,
    tokenizer: PreTrainedTokenizerBase | None,
    **given: Any,
) -> Columns:
    """Return the columns of the raw datasets of a trainer, with the model's tasks and its tokenizer.

    Args:
        model: the model.
        train_dataset: the training data. Columns and tokenizer that are not given are those of a mixture of raw
            datasets, and the window is that of the model, or else of encoded data.
        tokenizer: the tokenizer.
        **given: further attributes of the columns; None for those of the mixture.

    Raises:
        ValueError: if there is no tokenizer.
    """
    known = train_dataset.columns if isinstance(train_dataset, TaskMixture) else None
    known = known or Columns()
    tokenizer = tokenizer or known.tokenizer
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise ValueError(
            f"`processing_class` should be the model's tokenizer, see load_tokenizer. Found {type(tokenizer).__name__}."
        )
    config = model.config
    window = (config.max_length, config.stride)
    if config.max_length is None:
        window = _window_of(train_dataset) or (default_max_length(tokenizer, config.text_config), config.stride)
    changes = {key: value for key, value in given.items() if value is not None}
    return dataclasses.replace(
        known,
        **changes,
        tasks=tuple(model.tasks.values()),
        tokenizer=tokenizer,
        max_length=window[0],
        stride=window[1],
    )


def _window_of(train_dataset: Any) -> tuple[int, int | None] | None:
    """Return `max_length` and `stride` of the first encoded dataset that knows them."""
    given = train_dataset.datasets if isinstance(train_dataset, TaskMixture) else named_datasets(train_dataset) or {}
    for dataset in given.values():
        if isinstance(dataset, EncodedDataset | EncodedStream) and dataset.max_length is not None:
            return dataset.max_length, dataset.stride
    return None


def mixture_of(given: Any, columns: Columns) -> TaskMixture | None:
    """Return the mixture to train on, made from datasets if it is not a mixture yet.

    Args:
        given: a mixture, encoded or raw datasets by name, or a single dataset; None for no training.
        columns: the columns of raw datasets, with the model's tasks and tokenizer.

    Raises:
        DataError: if the value is not a dataset, or the data does not fit the model's tasks.
    """
    if given is None or isinstance(given, TaskMixture):
        mixture = given
    elif named_datasets(given) is None:
        raise DataError(
            f"`train_dataset` should be a TaskMixture, or datasets by name (see `encode`). Found "
            f"{type(given).__name__}."
        )
    else:
        mixture = TaskMixture(given, **vars(columns))
    for name, dataset in {} if mixture is None else mixture.datasets.items():
        check_label_spaces(name, dataset, {task.name: task for task in columns.tasks})
    return mixture


def trained_tasks_of(mixture: TaskMixture | None, tasks: Mapping[str, Task]) -> dict[str, Task]:
    """Return the tasks that a mixture has labels for; without a mixture, all tasks."""
    datasets = {} if mixture is None else mixture.datasets
    fed = {task for encoded in datasets.values() for task in encoded.feeds} or tasks.keys()
    return {name: task for name, task in tasks.items() if name in fed}


def warn_of_missing_scale(tasks: Mapping[str, Task]) -> None:
    """Warn of trained tasks whose loss depends on the unit of their numbers, since they have not learned a scale."""
    for name, task in tasks.items():
        if task.missing_statistics is not None:
            logger.warning(
                f"Task {name!r}: `{task.missing_statistics}` has no effect, since the model has not learned the scale "
                f"of the training labels, like models of earlier releases. Build a new model with the `tasks` of a "
                f"TaskMixture of raw datasets, or with mtl_nlp.data.learn_tasks(tasks, datasets)."
            )


def evaluation_sets(given: Any, columns: Columns, tasks: Mapping[str, Task]) -> Sets:
    """Return evaluation sets in one form, with encoded splits.

    Args:
        given: encoded or raw splits by dataset, a single split, or a mixture; or a dict whose values are dicts or
            mixtures, which are several sets. A `DatasetDict` stands for its split `validation`.
        columns: the columns of raw datasets, with the model's tasks and tokenizer.
        tasks: the model's tasks by name.

    Raises:
        DataError: if a value is not a dataset, sets and datasets are mixed, or the data does not fit the model's tasks.
    """
    datasets = given.datasets if isinstance(given, TaskMixture) else named_datasets(given)
    if not datasets:
        raise DataError(
            f"`eval_dataset` should be splits by dataset (see `encode`), or a dict of such sets. Found {given!r:.80}."
        )
    sets = {name for name, value in datasets.items() if _is_set(value)}
    if sets and sets != datasets.keys():
        raise DataError(
            f"`eval_dataset` should hold either sets (dicts or mixtures) or datasets. Found the sets "
            f"{', '.join(sorted(sets))} beside {', '.join(name for name in datasets if name not in sets)}."
        )
    parts = datasets if sets else {"": datasets}
    return {name: _parts_of(value, columns, tasks) for name, value in parts.items()}


def _is_set(value: Any) -> bool:
    # A DatasetDict is a dict, and stands for a dataset.
    return isinstance(value, TaskMixture | Mapping) and not isinstance(value, DatasetDict | IterableDatasetDict)


def _parts_of(value: Any, columns: Columns, tasks: Mapping[str, Task]) -> dict[str, EncodedDataset]:
    datasets = value.datasets if isinstance(value, TaskMixture) else value
    if not datasets:
        raise DataError("`eval_dataset`: a set should have at least one dataset. Found none.")
    encoded = columns.encode(datasets, "validation")
    for name, dataset in encoded.items():
        if not isinstance(dataset, EncodedDataset):
            raise DataError(f"{name}: a streamed split cannot be evaluated. Encode a datasets.Dataset.")
        check_label_spaces(name, dataset, tasks)
        for task, labels in dataset.unknown_labels.items():
            _warn_once(
                f"{name}: the evaluation rows have the labels {shown(labels)}, which task {task!r} does not have. All "
                f"predictions for these labels count as wrong."
            )
    return encoded


@functools.cache
def _warn_once(text: str) -> None:
    logger.warning(text)


def check_named_sets(sets: Sets, args: MultitaskTrainingArguments, *, has_headroom: bool) -> None:
    """Check that the decisions of a training can be made from several evaluation sets.

    Args:
        sets: the evaluation sets, see `evaluation_sets`.
        args: the training arguments.
        has_headroom: whether the mixture follows the headroom of the tasks.

    Raises:
        ValueError: if the best model is not chosen by one of the sets, or tasks would be frozen or drawn by scores.
    """
    if not sets or "" in sets:
        return
    first = next(iter(sets))
    metric = args.metric_for_best_model
    if metric is not None and not any(metric.removeprefix("eval_").startswith(f"{name}_") for name in sets):
        raise ValueError(
            f"`metric_for_best_model` should be a metric of one of the evaluation sets ({', '.join(sets)}), such as "
            f"'{first}_mtl_score'. Found {metric!r}."
        )
    if args.freeze_patience is not None or has_headroom:
        raise ValueError(
            "`freeze_patience` and a mixture with `headroom` need scores on one evaluation set. Found the sets "
            f"{', '.join(sets)}. Pass the datasets of one set."
        )
