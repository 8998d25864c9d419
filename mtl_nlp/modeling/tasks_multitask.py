"""Tasks: a name, a label space, and a type with options; the class of a task is its type.

`TASK_TYPES` is the only table of task types. A new type is a subclass of [`Task`] with a label kind, registered with
`register_task_type`. The other modules ask the kind of a task, see `label_kinds_multitask`. This module does not
import torch.
"""

from __future__ import annotations

import abc
import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import Any, ClassVar, TypeVar

from .label_kinds_multitask import LabelKind
from .scores_multitask import choose_scores, score_names
from .spans_multitask import SCHEMES, scheme_labels
from .text_kinds_multitask import ClassesPerText, ClassPerText, NumberPerText
from .word_kinds_multitask import ClassPerWord, SpansOfWords

POOLINGS = ("cls", "mean")

_NOT_IN_NAMES = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Control characters, line breaks and surrogates. A task is a line or a column of many tables and files."""


@dataclass(frozen=True, kw_only=True)
class Task(abc.ABC):
    """A prediction problem: a name, a label space and a type, which is its class.

    Args:
        name: the task's name, unique in its model: any text of one line.
        labels: the label space in the order of the logits; empty until the data are read.
        metrics: the names of the scores of the task, see `SCORES`; None for those of its label kind.
        primary: the score that enters `mtl_score`; None for that of the label kind.

    Raises:
        ValueError: if the name is not a text of one line, two labels are equal, or a score does not fit the task.
    """

    type: ClassVar[str]
    """The name of the type in recipes and in `config.json`."""

    name: str
    labels: tuple[str, ...] = ()
    metrics: tuple[str, ...] | None = None
    primary: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip() or _NOT_IN_NAMES.search(self.name):
            raise ValueError(
                f"Task {self.name!r:.80}: the name of a task should be a text of one line, without control characters. "
                f"Rename the task."
            )
        given = self.labels
        labels = tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else (None,)
        if not all(isinstance(label, str) for label in labels):
            raise ValueError(f"Task {self.name!r:.80}: `labels` should be a list of strings. Found {given!r:.80}.")
        object.__setattr__(self, "labels", labels)
        if len(set(self.labels)) < len(self.labels):
            raise ValueError(f"Task {self.name!r}: labels must be unique. Found {list(self.labels)}.")
        try:
            object.__setattr__(self, "metrics", score_names(self.metrics))
        except ValueError as error:
            raise ValueError(f"Task {self.name!r}: {error}") from error

    @abc.abstractmethod
    def make_kind(self) -> LabelKind:
        """Return a new label kind for this task's name, labels and options."""

    @cached_property
    def kind(self) -> LabelKind:
        """The task's label kind."""
        kind = self.make_kind()
        kind.check_definition()
        if self.metrics is not None or self.primary is not None:
            try:
                kind.metric, kind.primary_score = choose_scores(
                    kind.metric, kind.primary_score, self.metrics, self.primary
                )
            except ValueError as error:
                raise ValueError(f"Task {self.name!r}: {error}") from error
        return kind

    @property
    def num_labels(self) -> int:
        """Number of the head's logits per unit."""
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
        """Return a copy of the task with these labels as its label space."""
        return dataclasses.replace(self, labels=tuple(labels))

    def with_scores_of(self, other: Task) -> Task:
        """Return a copy with the scores that a different task asks for; the task itself if it asks for none."""
        if other.metrics is None and other.primary is None:
            return self
        return dataclasses.replace(self, metrics=other.metrics, primary=other.primary)

    def without_scores(self) -> Task:
        """Return a copy of the task with the scores of its label kind."""
        return dataclasses.replace(self, metrics=None, primary=None)

    def beside_words(self) -> Task:
        """Return the task with the default options for a model with tasks that label words; by default the same."""
        return self


@dataclass(frozen=True, kw_only=True)
class TokenClassification(Task):
    """A label per word (part-of-speech tagging), or spans of words written as tags (entities, slots).

    Args:
        scheme: None for plain labels; `iob2`, `iob1` or `bioes` for spans. Predicted sequences of tags are always
            legal in the scheme, and spans are scored by strict span F1.
    """

    type: ClassVar[str] = "token-classification"

    scheme: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scheme is None:
            return
        if self.scheme not in list(SCHEMES):
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
    """A task with a label per text or pair of texts.

    Args:
        pooling: the input of the head: `cls` for the first sub-word, as in the stock class of the encoder's family, or
            `mean` for the mean over all sub-words.
    """

    pooling: str = "cls"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pooling not in POOLINGS:
            raise ValueError(
                f"Task {self.name!r}: `pooling` should be one of {', '.join(POOLINGS)}. Found {self.pooling!r}."
            )

    def beside_words(self) -> Task:
        """Return the task with mean pooling: the first sub-word serves the tasks that label words."""
        return dataclasses.replace(self, pooling="mean")

    @property
    def pools_mean(self) -> bool:
        """Whether the head reads the mean over all sub-words."""
        return self.pooling == "mean"


@dataclass(frozen=True, kw_only=True)
class TextClassification(SequenceTask):
    """One of several classes per text or pair of texts."""

    type: ClassVar[str] = "text-classification"

    def make_kind(self) -> LabelKind:
        """Return a class per text."""
        return ClassPerText(self.name, self.labels)


@dataclass(frozen=True, kw_only=True)
class MultiLabelClassification(SequenceTask):
    """Any number of classes per text or pair of texts."""

    type: ClassVar[str] = "multi-label-classification"

    def make_kind(self) -> LabelKind:
        """Return a set of classes per text."""
        return ClassesPerText(self.name, self.labels)


@dataclass(frozen=True, kw_only=True)
class Regression(SequenceTask):
    """A number per text or pair of texts."""

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
    """Register a task type under its `type`, so that recipes can name the type and saved models with it can be loaded.

    Use this function to decorate classes outside of the package. A class that is defined again, as in a notebook,
    replaces its earlier definition.

    Raises:
        ValueError: if the class has no `type`, or a different class has the same `type`.
    """
    if not isinstance(vars(task_type).get("type"), str):
        raise ValueError(f"A task type should define its name as `type`, a string. {task_type.__qualname__} has none.")
    known = TASK_TYPES.get(task_type.type, task_type)
    if (known.__module__, known.__qualname__) != (task_type.__module__, task_type.__qualname__):
        raise ValueError(
            f"The `type` of a task type should be unique. Found {task_type.type!r}, which belongs to "
            f"{known.__module__}.{known.__qualname__}. Give {task_type.__qualname__} a different `type`."
        )
    TASK_TYPES[task_type.type] = task_type
    return task_type


def task_from_dict(fields: dict[str, Any]) -> Task:
    """Build a task from plain data such as `{"name": "pos", "type": "token-classification", "labels": [...]}`.

    Raises:
        ValueError: if the type or an option is unknown, with the valid types or the nearest option in the message; or
            if the task has no name, or a value is not valid.
    """
    if not isinstance(fields, Mapping) or "name" not in fields:
        raise ValueError(f"A task should be an object with a `name`, a `type` and its `labels`. Found {fields!r:.80}.")
    fields = dict(fields)
    name, type_name = fields.get("name"), fields.pop("type", None)
    if not isinstance(type_name, str) or type_name not in TASK_TYPES:
        raise ValueError(
            f"Task {name!r}: `type` should be one of {', '.join(TASK_TYPES)}. Found {type_name!r}. For a type from "
            f"outside of mtl_nlp, import the module that registers the type first."
        )
    task_type = TASK_TYPES[type_name]
    valid = [field.name for field in dataclasses.fields(task_type)]
    for key in fields:
        if key not in valid:
            nearest = get_close_matches(key, valid, n=1, cutoff=0.0)[0]
            raise ValueError(f"Task {name!r}: a {type_name} task has no option {key!r}. Did you mean {nearest!r}?")
    return task_type(**fields)


def reads_words(tasks: Iterable[Task]) -> bool:
    """Return whether a model of these tasks splits every text into words: True if any task labels words.

    One encoder pass serves all tasks, so all tasks must read the same sub-words of a text, in training, evaluation
    and the pipeline.
    """
    return any(task.kind.labels_words for task in tasks)
