"""Tasks: a name, a label space, and a type with options; the class of a task is its type. Imports no torch."""

from __future__ import annotations

import abc
import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from .head_types_multitask import HEADS, check_head, normal_head, registered_name
from .label_kinds_multitask import LabelKind
from .scores_multitask import choose_scores, score_names
from .statistics_multitask import LabelStatistics

_NOT_IN_NAMES = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Control characters, line breaks and surrogates. A task is a line or a column of many tables and files."""


@dataclass(frozen=True, kw_only=True)
class Task(abc.ABC):
    """A prediction problem: a name, a label space and a type, which is its class.

    Args:
        name: the task's name, unique in its model: any text of one line.
        labels: the label space in the order of the logits; empty until the data are read. All other options need their
            names.
        names: the names of classes that are integers in the data, as a list (the name of 0 first) or as a dict
            from number to name. The names do not affect the order of the logits after training has started.
        head: the layers on the encoder; by default those of the stock class of the encoder's family.
            `{hidden_layers: 1, dropout: 0.1}` for hidden layers before the output layer, or the name of a head from
            `register_head`, or `{type: name}` with the options of that head.
        metrics: the names of the scores of the task, see `SCORES`; None for those of its label kind.
        primary: the score that enters `mtl_score`; None for that of the label kind.

    Raises:
        ValueError: if the name is not a text of one line, two labels are equal, `names` has a different form, there is
            no such head, or a score does not fit the task.
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

    name: str = dataclasses.field(kw_only=False)
    labels: tuple[str, ...] = dataclasses.field(default=(), kw_only=False)
    # A recipe may also give the forms of `given`, which become the form of the field.
    names: dict[int, str] | None = dataclasses.field(
        default=None, compare=False, metadata={"given": dict[int, str] | list[str] | None}
    )
    head: str | dict[str, Any] | None = None
    metrics: tuple[str, ...] | None = dataclasses.field(default=None, metadata={"given": str | list[str] | None})
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
        self._set(labels=labels)
        if len(set(self.labels)) < len(self.labels):
            raise ValueError(f"Task {self.name!r}: labels must be unique. Found {list(self.labels)}.")
        self._set(labels=tuple(self.complete_labels()))
        if self.head is not None:
            check_head(self.name, self.head)
            self._set(head=normal_head(self.head))
        if self.names is not None:
            self._set(names=self._numbered_names(self.names))
        try:
            self._set(metrics=score_names(self.metrics))
        except ValueError as error:
            raise ValueError(f"Task {self.name!r}: {error}") from error

    def _numbered_names(self, names: Any) -> dict[int, str]:
        """Return names by number in ascending order, from a list or a dict; JSON has turned numbers into texts."""
        pairs = dict(enumerate(names)) if isinstance(names, list | tuple) else names
        is_numbered = isinstance(pairs, Mapping) and all(re.fullmatch(r"-?\d+", str(key)) for key in pairs)
        if not is_numbered or not pairs or not all(isinstance(name, str) and name for name in pairs.values()):
            raise ValueError(
                f"Task {self.name!r}: `names` should be a list of label names, or an object from whole number to label "
                f"name. Found {names!r:.80}."
            )
        return {int(key): pairs[key] for key in sorted(pairs, key=int)}

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
    def pooled_by(self) -> str | None:
        """The input of a head on texts, see [`SequenceTask`]; None for a head on words."""
        return None

    @property
    def finds_spans(self) -> bool:
        """Whether a label consists of spans of words, so that most words are outside of all spans."""
        return False

    @property
    def options(self) -> dict[str, Any]:
        """The options of the task's type that have a value."""
        fields = {key: value for key, value in dataclasses.asdict(self).items() if value is not None}
        return {key: value for key, value in fields.items() if key not in {"name", "labels"}}

    def to_dict(self) -> dict[str, Any]:
        """Return the task as plain data, for `config.json`.

        The data name the modules of a type and a head from outside of this package. These modules are never imported:
        the message of an error names them to the user.
        """
        fields = {"name": self.name, "labels": list(self.labels), **self.options, "type": self.type}
        if (module := type(self).__module__).rpartition(".")[0] != __name__.rpartition(".")[0]:
            fields["module"] = module
        if (head := registered_name(self.head)) is not None:
            fields["head_module"] = HEADS[head].__module__
        return fields

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

    def with_scores_of(self, other: Task) -> Task:
        """Return a copy with the scores that a different task asks for; the task itself if it asks for none."""
        if other.metrics is None and other.primary is None:
            return self
        return dataclasses.replace(self, metrics=other.metrics, primary=other.primary)

    def without_scores(self) -> Task:
        """Return a copy of the task with the scores of its label kind."""
        return dataclasses.replace(self, metrics=None, primary=None)

    def with_default_pooling(self, pooling: str) -> Task:
        """Return a copy of the task with an input of its head on texts, unless the task has one; by default the same.

        Args:
            pooling: `cls`, `mean` or `last`.
        """
        return self
