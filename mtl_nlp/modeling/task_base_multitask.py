"""Tasks: a name, a label space, and a type with options; the class of a task is its type. Imports no torch."""

from __future__ import annotations

import abc
import dataclasses
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from .label_kinds_multitask import LabelKind
from .statistics_multitask import LabelStatistics

_NOT_IN_NAMES = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Control characters, line breaks and surrogates. A task is a line or a column of many tables and files."""


@dataclass(frozen=True, kw_only=True)
class Task(abc.ABC):
    """A prediction problem: a name, a label space and a type, which is its class.

    Args:
        name: the task's name, unique in its model: any text of one line.
        labels: the label space in the order of the logits; empty until the data are read.

    Raises:
        ValueError: if the name is not a text of one line, or two labels are equal.
    """

    type: ClassVar[str]
    """The name of the type in recipes and in `config.json`."""
    learned: ClassVar[tuple[str, ...]] = ()
    """The options that `learn` sets from the training labels. A recipe cannot give them."""
    tuned: ClassVar[tuple[str, ...]] = ()
    """The options that `tune` sets from the validation rows after training. A recipe cannot give them."""
    needs_statistics: ClassVar[bool] = True
    """Whether a model cannot be built while `missing_statistics` names an option."""
    scale_option: ClassVar[str | None] = None
    """The option, if the type has one, with which the loss of a task does not depend on the unit of its labels."""

    name: str
    labels: tuple[str, ...] = ()

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
        self._set(labels=labels)
        if len(set(self.labels)) < len(self.labels):
            raise ValueError(f"Task {self.name!r}: labels must be unique. Found {list(self.labels)}.")
        self._set(labels=tuple(self.complete_labels()))

    def complete_labels(self) -> Sequence[str]:
        """Return the label space with the labels that the task's options add; by default none."""
        return self.labels

    def _set(self, **options: Any) -> None:
        """Set options of the frozen dataclass to their checked values."""
        for key, value in options.items():
            object.__setattr__(self, key, value)

    @abc.abstractmethod
    def make_kind(self) -> LabelKind:
        """Return a new label kind for this task's name, labels and options."""

    @cached_property
    def kind(self) -> LabelKind:
        """The task's label kind."""
        kind = self.make_kind()
        kind.check_definition()
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

    def as_given(self) -> Task:
        """Return a copy of the task as a recipe gives it: without label space, and without what data have set."""
        unset: dict[str, Any] = dict.fromkeys((*self.learned, *self.tuned))
        return dataclasses.replace(self, labels=(), **unset)

    @property
    def missing_statistics(self) -> str | None:
        """The option with its value that needs statistics of the training labels, while they are not known."""
        return None

    def learn(self, statistics: LabelStatistics) -> Task:
        """Return a copy of the task with the options `learned` from the training labels; by default the same."""
        return self

    def learn_from(self, other: Task) -> Task:
        """Return a copy of the task with the options `learned` of a different task of the same type."""
        return dataclasses.replace(self, **{key: vars(other)[key] for key in self.learned})

    @property
    def needs_tuning(self) -> str | None:
        """The option with its value that needs validation rows after the training; None if the task needs none."""
        return None

    def tune(self, confidences: Sequence[Any], references: Sequence[Any]) -> Task:
        """Return a copy of the task with the options `tuned` on validation rows; by default the same.

        Args:
            confidences: the `LabelKind.confidence` of each row.
            references: the canonical label of each row.
        """
        return self

    def beside_words(self) -> Task:
        """Return the task with the default options for a model with tasks that label words; by default the same."""
        return self
