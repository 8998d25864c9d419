"""Label spaces: the label names of a task in all datasets that feed the task."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from datasets import Dataset

from mtl_nlp.data.canonical import LABEL_PREFIX
from mtl_nlp.data.encoding import EncodedDataset
from mtl_nlp.data.label_reading import order_names, sort_names
from mtl_nlp.data.loading import LoadedDataset
from mtl_nlp.data.scans import count_names
from mtl_nlp.errors import DataError
from mtl_nlp.modeling.tasks_multitask import Task

_SHOWN = 3
"""The number of groups of nearly equal label names that a note shows."""

_NUMBER = re.compile(r"[+-]?\d{1,15}(\.\d*)?")


@dataclass
class LabelSpaces:
    """The tasks with their label spaces, and notes on differences.

    Attributes:
        tasks: the tasks by name, with their label spaces.
        notes: sentences about differences between datasets that feed the same task.
    """

    tasks: dict[str, Task]
    notes: list[str] = field(default_factory=list)


def label_names(dataset: Dataset, task: Task) -> list[str]:
    """Return the label names of a task in a canonical dataset, in the order of `sort_names`."""
    return sort_names(count_names(dataset[LABEL_PREFIX + task.name], task.kind))


def unite_label_spaces(
    loaded: Mapping[str, LoadedDataset], tasks: Mapping[str, Task], trained: Mapping[str, Task] | None = None
) -> LabelSpaces:
    """Give every task the union of the label names in the datasets that feed the task.

    A ClassLabel column contributes its names in their order, and so do a task's `names` for a column of numbers, and
    0/1 columns. Any other column contributes the names in the training split, see `order_names`. The names of several
    datasets are joined in the order of the recipe.

    Args:
        loaded: the datasets by name.
        tasks: the tasks by name, without labels.
        trained: trained tasks by name, whose label space is kept if it has all labels of the data.

    Raises:
        DataError: if a task has no label in any training split, or if a dataset has no label in common with the others.
    """
    spaces = LabelSpaces({})
    for name, task in tasks.items():
        feeders = {key: data for key, data in loaded.items() if name in data.class_names}
        unlabelled = DataError(f"Task {name!r}: no training row of {', '.join(feeders)} has a label for the task.")
        if not any(data.can_train(name) for data in feeders.values()):
            raise unlabelled
        if not task.kind.has_label_space:
            spaces.tasks[name] = task
            continue
        names: dict[str, list[str]] = {}
        for key, data in feeders.items():
            own = data.class_names[name]
            names[key] = order_names(label_names(data.splits["train"], task), task) if own is None else own
        if not any(names.values()):  # empty lists only
            raise unlabelled
        spaces.notes += _differences(name, names)
        united = tuple(dict.fromkeys(label for labels in names.values() for label in labels))
        spaces.notes += _near_names(name, united)
        known = trained[name].labels if trained is not None and name in trained else ()
        spaces.tasks[name] = task.with_labels(known if set(united) <= set(known) else united)
    return spaces


def _near_names(task: str, names: Iterable[str]) -> list[str]:
    """Return a note on the label names that differ only in blanks, case or the form of a number."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_plain(name), []).append(name)
    near = [" and ".join(map(repr, group)) for group in groups.values() if len(group) > 1]
    if not near:
        return []
    shown = "; ".join(near[:_SHOWN]) + ("; …" if len(near) > _SHOWN else "")
    return [
        f"Task {task}: the labels {shown:.300} differ only in blanks, case or the form of a number, and are different "
        f"classes; to unite them, rename them in `label_map`"
    ]


def _plain(name: str) -> str:
    """Return a label name in the form that nearly equal names share."""
    text = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
    return str(Decimal(text).normalize()) if _NUMBER.fullmatch(text) else text


def _differences(task: str, names: Mapping[str, list[str]]) -> list[str]:
    """Return a note on each dataset of a task that lacks labels of the united label space."""
    united = {label for labels in names.values() for label in labels}
    sets = [set(labels) - {"O"} for labels in names.values() if set(labels) - {"O"}]
    others = [set().union(*(other for other in sets if other is not own)) for own in sets]
    if len(sets) > 1 and any(own.isdisjoint(rest) for own, rest in zip(sets, others, strict=True)):
        spaces = "; ".join(f"{dataset}: {', '.join(labels[:8])}" for dataset, labels in names.items())
        raise DataError(
            f"Task {task!r}: each dataset should share a label with the other datasets of the task. Found {spaces}. "
            "Rename the labels, or make two tasks."
        )
    return [
        f"Task {task}: {dataset} has no {', '.join(sort_names(united - set(labels)))}"
        for dataset, labels in names.items()
        if united - set(labels)
    ]


def count_unseen(encoded: EncodedDataset, task: Task) -> Counter[str]:
    """Return the labels in a split that are not in the task's label space, with their numbers of words or texts.

    Predictions for these labels always count as wrong.
    """
    found, known = count_names(encoded.references[task.name], task.kind), set(task.labels)
    return Counter({name: count for name, count in found.items() if name not in known})
