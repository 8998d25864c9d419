"""The options that tasks learn from the training labels: balanced class weights, and the scale of numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mtl_nlp.data.canonical import LABEL_PREFIX
from mtl_nlp.data.encoding import EncodedDataset, EncodedStream
from mtl_nlp.data.loading import LoadedDataset
from mtl_nlp.data.scans import values_of
from mtl_nlp.errors import DataError
from mtl_nlp.modeling.statistics_multitask import LabelStatistics
from mtl_nlp.modeling.tasks_multitask import Task


def learn_tasks(tasks: Iterable[Task], datasets: Iterable[EncodedDataset]) -> list[Task]:
    """Return tasks with the options that they learn from encoded training splits, for training without a recipe.

    Args:
        tasks: the tasks with their label spaces, in the order of the heads.
        datasets: the training splits. They need not be encoded again for the returned tasks.

    Raises:
        DataError: if a task needs labels and no split has any.
    """
    splits, learned = list(datasets), []
    for task in tasks:
        statistics = LabelStatistics()
        for encoded in splits if task.missing_statistics is not None else ():
            statistics.add(task.kind, values_of(encoded.references.get(task.name, ())))
        learned.append(_learn(task, statistics))
    return learned


def learn_fed_tasks(tasks: Iterable[Task], datasets: Iterable[EncodedDataset | EncodedStream]) -> list[Task]:
    """Return tasks with the options that they learn from training data from Python.

    A task without data, or with the labels of a stream, which were not read, does not learn.

    Args:
        tasks: the tasks with their label spaces.
        datasets: the training splits.
    """
    splits = list(datasets)
    read = [each for each in splits if isinstance(each, EncodedDataset)]
    streamed = {name for each in splits if isinstance(each, EncodedStream) for name in each.feeds}
    fed = {name for each in read for name in each.feeds} - streamed
    return [learn_tasks([task], read)[0] if task.name in fed else task for task in tasks]


def learn_from_splits(
    tasks: Mapping[str, Task], loaded: Mapping[str, LoadedDataset], known: Mapping[str, Task]
) -> dict[str, Task]:
    """Return tasks with the options that they learn from the training splits of a recipe.

    Args:
        tasks: the tasks by name, with their label spaces.
        loaded: the datasets by name.
        known: tasks by name that have learned before, whose learned options are kept where all other options and the
            labels are equal.

    Raises:
        DataError: if a task needs the labels of a stream whose rows were not read.
    """
    learned = {}
    for name, task in tasks.items():
        if name in known and _is_same(known[name], task):
            learned[name] = task.learn_from(known[name])
        elif task.missing_statistics is None:
            learned[name] = task
        else:
            feeders = {key: data for key, data in loaded.items() if name in data.class_names}
            parts = (_statistics_of(key, data, task) for key, data in feeders.items())
            learned[name] = _learn(task, sum(parts, LabelStatistics()))
    return learned


def _statistics_of(name: str, data: LoadedDataset, task: Task) -> LabelStatistics:
    """Return the statistics of a task's labels in the training split of a dataset."""
    if data.stream is None:
        return LabelStatistics().add(task.kind, values_of(data.splits["train"][LABEL_PREFIX + task.name]))
    if task.name not in data.statistics:
        raise DataError(
            f"datasets.{name}.num_rows: `{task.missing_statistics}` of task {task.name!r} needs all training labels. "
            f"Leave `num_rows` out, so that all rows are read before training, or change this option of the task."
        )
    return data.statistics[task.name]


def _is_same(known: Task, task: Task) -> bool:
    """Return whether a task that has learned before has the options and the labels of a task, in any order."""
    return known.as_given() == task.as_given() and set(known.labels) == set(task.labels)


def _learn(task: Task, statistics: LabelStatistics) -> Task:
    if task.missing_statistics is None:
        return task
    if not statistics.rows:
        raise DataError(f"Task {task.name!r}: `{task.missing_statistics}` needs training labels. Found none.")
    return task.learn(statistics)
