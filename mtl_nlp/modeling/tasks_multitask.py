"""Tasks: a name, a label space, and by its class a type with options.

`TASK_TYPES` is the only table of task types. A new type is a subclass of [`Task`] with its label kind, registered by
`register_task_type`; the other modules ask the kind of a task, see `label_kinds_multitask`. Nothing here needs torch.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import Any, ClassVar, TypeVar

from .label_kinds_multitask import LabelKind
from .spans_multitask import SCHEMES, scheme_labels
from .text_kinds_multitask import ClassesPerText, ClassPerText, NumberPerText
from .word_kinds_multitask import ClassPerWord, SpansOfWords

POOLINGS = ("cls", "mean")


@dataclass(frozen=True, kw_only=True)
class Task(abc.ABC):
    """A prediction problem: a name, a label space and, by its class, a type.

    Args:
        name: the task's name, unique in its model.
        labels: the label space in the order of the logits; empty until it is known from data.
    """

    type: ClassVar[str]
    """The name of the type, as a recipe gives it."""

    name: str
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(self.labels))
        if len(set(self.labels)) < len(self.labels):
            raise ValueError(f"Task {self.name!r}: labels must be unique. Found {list(self.labels)}.")

    @abc.abstractmethod
    def make_kind(self) -> LabelKind:
        """Return a new label kind for this task's name, labels and options."""

    @cached_property
    def kind(self) -> LabelKind:
        """The task's label kind."""
        return self.make_kind()

    @property
    def num_labels(self) -> int:
        """Width of the head's logits."""
        return len(self.kind.output_names)

    @property
    def pools_mean(self) -> bool:
        """Whether the head reads the mean over all sub-words."""
        return False

    @property
    def options(self) -> dict[str, Any]:
        """The options of the task's type that have a value."""
        fields = {key: value for key, value in dataclasses.asdict(self).items() if value is not None}
        return {key: value for key, value in fields.items() if key not in {"name", "labels"}}

    def to_dict(self) -> dict[str, Any]:
        """Return the task as plain data, for `config.json`."""
        return {"name": self.name, "labels": list(self.labels), **self.options, "type": self.type}

    def with_labels(self, labels: Iterable[str]) -> Task:
        """Return a copy with this label space."""
        return dataclasses.replace(self, labels=tuple(labels))


@dataclass(frozen=True, kw_only=True)
class TokenClassification(Task):
    """A label for each word (part-of-speech tagging), or spans of words written as tags (entities, slots).

    Args:
        scheme: None for plain labels; `iob2`, `iob1` or `bioes` for spans, which are decoded so that no illegal
            sequence of tags comes out and scored by strict span F1.
    """

    type: ClassVar[str] = "token-classification"

    scheme: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scheme is None:
            return
        if self.scheme not in SCHEMES:
            raise ValueError(
                f"Task {self.name!r}: `scheme` should be one of {', '.join(SCHEMES)}. Found {self.scheme!r}."
            )
        if self.labels:
            object.__setattr__(self, "labels", tuple(scheme_labels(self.labels, self.scheme)))

    def make_kind(self) -> LabelKind:
        """Return a class per word, or spans of words."""
        if self.scheme is None:
            return ClassPerWord(self.name, self.labels)
        return SpansOfWords(self.name, self.labels, self.scheme)


@dataclass(frozen=True, kw_only=True)
class SequenceTask(Task):
    """A task that labels a whole text or pair of texts.

    Args:
        pooling: what the head reads: `cls`, the first sub-word as the encoder family's stock class does, or `mean`,
            the mean over all sub-words in the first one's place.
    """

    pooling: str = "cls"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pooling not in POOLINGS:
            raise ValueError(
                f"Task {self.name!r}: `pooling` should be one of {', '.join(POOLINGS)}. Found {self.pooling!r}."
            )

    @property
    def pools_mean(self) -> bool:
        """Whether the head reads the mean over all sub-words."""
        return self.pooling == "mean"


@dataclass(frozen=True, kw_only=True)
class TextClassification(SequenceTask):
    """One of several classes for a text or a pair of texts."""

    type: ClassVar[str] = "text-classification"

    def make_kind(self) -> LabelKind:
        """Return a class per text."""
        return ClassPerText(self.name, self.labels)


@dataclass(frozen=True, kw_only=True)
class MultiLabelClassification(SequenceTask):
    """Any number of classes for a text or a pair of texts."""

    type: ClassVar[str] = "multi-label-classification"

    def make_kind(self) -> LabelKind:
        """Return a set of classes per text."""
        return ClassesPerText(self.name, self.labels)


@dataclass(frozen=True, kw_only=True)
class Regression(SequenceTask):
    """A number for a text or a pair of texts."""

    type: ClassVar[str] = "regression"

    def make_kind(self) -> LabelKind:
        """Return a number per text."""
        return NumberPerText(self.name, self.labels)


TASK_TYPES: dict[str, type[Task]] = {
    task_type.type: task_type
    for task_type in (TokenClassification, TextClassification, MultiLabelClassification, Regression)
}
"""The task types by name."""

_TaskType = TypeVar("_TaskType", bound=type[Task])


def register_task_type(task_type: _TaskType) -> _TaskType:
    """Make a task type known by its `type`, so that recipes can name it and saved models with it load.

    A class decorator, for classes outside of the package. A class that is defined again, as in a notebook, replaces
    itself.

    Raises:
        ValueError: if the name is that of another class.
    """
    known = TASK_TYPES.get(task_type.type, task_type)
    if (known.__module__, known.__qualname__) != (task_type.__module__, task_type.__qualname__):
        raise ValueError(
            f"A task type should have a name of its own. Found {task_type.type!r}, which is that of "
            f"{known.__module__}.{known.__qualname__}. Give {task_type.__qualname__} another `type`."
        )
    TASK_TYPES[task_type.type] = task_type
    return task_type


def task_from_dict(fields: dict[str, Any]) -> Task:
    """Build a task from plain data such as `{"name": "pos", "type": "token-classification", "labels": [...]}`.

    Raises:
        ValueError: if the type or an option is unknown; the message names the nearest valid one.
    """
    fields = dict(fields)
    name, type_name = fields.get("name"), fields.pop("type", None)
    if type_name not in TASK_TYPES:
        raise ValueError(f"Task {name!r}: `type` should be one of {', '.join(TASK_TYPES)}. Found {type_name!r}.")
    task_type = TASK_TYPES[type_name]
    valid = [field.name for field in dataclasses.fields(task_type)]
    for key in fields:
        if key not in valid:
            nearest = get_close_matches(key, valid, n=1, cutoff=0.0)[0]
            raise ValueError(f"Task {name!r}: a {type_name} task has no option {key!r}. Did you mean {nearest!r}?")
    return task_type(**fields)


def reads_words(tasks: Iterable[Task]) -> bool:
    """Whether a model of these tasks splits every text into words: as soon as one of them labels words.

    So training, evaluation and the pipeline, in which one encoder pass feeds all tasks, give the encoder the same
    sub-words for the same text.
    """
    return any(task.kind.labels_words for task in tasks)
