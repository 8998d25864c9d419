"""Label spaces: which names a task's labels have, over all datasets that feed it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from datasets import Dataset

from mtl_nlp.data.canonical import LABEL_PREFIX
from mtl_nlp.data.loading import LoadedDataset
from mtl_nlp.errors import DataError
from mtl_nlp.modeling.tasks_multitask import Task


@dataclass
class LabelSpaces:
    """The tasks with their label spaces, and what there is to tell about them.

    Attributes:
        tasks: the tasks by name, completed.
        notes: sentences about differences between datasets that feed one task.
    """

    tasks: dict[str, Task]
    notes: list[str] = field(default_factory=list)


def label_names(dataset: Dataset, task: Task) -> list[str]:
    """The label names that occur in a canonical dataset, sorted."""
    found: set[str] = set()
    for value in dataset[LABEL_PREFIX + task.name]:
        if value is not None:
            found.update(task.kind.names_in(value))
    return sorted(found)


def unite_label_spaces(loaded: Mapping[str, LoadedDataset], tasks: Mapping[str, Task]) -> LabelSpaces:
    """Complete every task with the labels of the datasets that feed it.

    A ClassLabel column gives its names in its order, any other column those of its training split, sorted; the spaces
    of several datasets are united in the recipe's order.

    Args:
        loaded: the datasets by name.
        tasks: the tasks by name, without labels.

    Raises:
        DataError: if a task has no label in any training split, or datasets differ so that nothing is shared.
    """
    spaces = LabelSpaces({})
    for name, task in tasks.items():
        feeders = {key: data for key, data in loaded.items() if name in data.class_names}
        unlabelled = DataError(f"Task {name!r}: no training row of {', '.join(feeders)} has a label for it.")
        if not any(data.can_train(name) for data in feeders.values()):
            raise unlabelled
        if not task.kind.has_label_space:
            spaces.tasks[name] = task
            continue
        names: dict[str, list[str]] = {}
        for key, data in feeders.items():
            known = data.class_names[name]
            names[key] = label_names(data.splits["train"], task) if known is None else known
        if not any(names.values()):  # empty lists only
            raise unlabelled
        spaces.notes += _differences(name, names)
        spaces.tasks[name] = task.with_labels(dict.fromkeys(label for labels in names.values() for label in labels))
    return spaces


def _differences(task: str, names: Mapping[str, list[str]]) -> list[str]:
    """What each dataset of a task lacks of the united label space."""
    united = {label for labels in names.values() for label in labels}
    sets = [set(labels) - {"O"} for labels in names.values() if set(labels) - {"O"}]
    others = [set().union(*(other for other in sets if other is not own)) for own in sets]
    if len(sets) > 1 and any(own.isdisjoint(rest) for own, rest in zip(sets, others, strict=True)):
        spaces = "; ".join(f"{dataset}: {', '.join(labels[:8])}" for dataset, labels in names.items())
        raise DataError(
            f"Task {task!r}: its datasets have no label in common ({spaces}). Rename the labels, or make two tasks."
        )
    return [
        f"Task {task}: {dataset} has no {', '.join(sorted(united - set(labels)))}"
        for dataset, labels in names.items()
        if united - set(labels)
    ]
