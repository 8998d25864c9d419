"""The types of tasks, with their options.

`TASK_TYPES` is the only table of task types. A new type is a subclass of [`Task`] with a label kind, registered with
`register_task_type`. The other modules ask the kind of a task, see `label_kinds_multitask`. This module does not
import torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from .head_types_multitask import NotRegisteredError, check_head, registered_name
from .hints_multitask import hint
from .label_kinds_multitask import LabelKind
from .options_multitask import (
    BALANCED,
    TUNED,
    best_threshold,
    number_option,
    threshold_option,
    weights_in_use,
    weights_option,
)
from .spans_multitask import SCHEMES, scheme_labels
from .statistics_multitask import LabelStatistics
from .task_base_multitask import Task
from .text_kinds_multitask import THRESHOLD, ClassesPerText, ClassPerText, NumberPerText
from .word_kinds_multitask import ClassPerWord, SpansOfWords

POOLINGS = ("cls", "mean", "last")

_OTHER_SCHEMES = {
    "bio": "iob2",
    "bio2": "iob2",
    "iob": "iob2 (or iob1)",
    "iobes": "bioes",
    "bmewo": "bmes",
    "bieso": "bioes",
}
_OTHER_TYPES = {
    "ner": "token-classification with `scheme: iob2`",
    "pos": "token-classification",
    "tagging": "token-classification",
    "classification": "text-classification",
    "sequence-classification": "text-classification",
    "sentiment": "text-classification",
    "multilabel": "multi-label-classification",
    "multi-label": "multi-label-classification",
    "sts": "regression",
}
"""Usual names of schemes and types -> their names here."""


@dataclass(frozen=True, kw_only=True)
class ClassTask(Task):
    """A task with one class per word or text.

    Args:
        class_weights: class -> its weight in the mean loss, at least 0, 1 for a class that is not named; `balanced` for
            n / (C · n_c), with the number n_c of training units of the class, their total n, and the number C of
            classes; None for equal weights.
        focal: γ of the focal loss (Lin et al. 2017), which counts certain predictions less; None for the cross-entropy.
        balanced_weights: the class weights that `balanced` has found.
    """

    learned: ClassVar[tuple[str, ...]] = ("balanced_weights",)

    class_weights: str | Mapping[str, float] | None = None
    focal: float | None = None
    balanced_weights: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set(
            class_weights=weights_option(self.name, self.labels, "class_weights", self.class_weights),
            focal=number_option(self.name, "focal", self.focal),
            balanced_weights=weights_option(
                self.name, self.labels, "balanced_weights", self.balanced_weights, words=()
            ),
        )

    @property
    def missing_statistics(self) -> str | None:
        """`class_weights: balanced`, while the weights are not known."""
        is_missing = self.class_weights == BALANCED and self.balanced_weights is None
        return f"class_weights: {BALANCED}" if is_missing else None

    def learn(self, statistics: LabelStatistics) -> Task:
        """Return a copy of the task with balanced weights, if the task asks for them."""
        if self.class_weights != BALANCED:
            return self
        return dataclasses.replace(self, balanced_weights=statistics.class_weights(self.labels))

    @property
    def loss_options(self) -> dict[str, Any]:
        """The arguments of the label kind for the loss."""
        return {"class_weights": weights_in_use(self.class_weights, self.balanced_weights), "focal": self.focal or 0.0}


@dataclass(frozen=True, kw_only=True)
class TokenClassification(ClassTask):
    """A label per word (part-of-speech tagging), or spans of words written as tags (entities, slots).

    Args:
        scheme: None for plain labels; `iob2`, `iob1`, `bioes`, `bilou` or `bmes` for spans. Predicted sequences of
            tags are always legal in the scheme, and spans are scored by strict span F1.
    """

    type: ClassVar[str] = "token-classification"

    scheme: str | None = None

    def __post_init__(self) -> None:
        if self.scheme is not None and self.scheme not in list(SCHEMES):
            raise ValueError(
                f"Task {self.name!r}: `scheme` should be one of {', '.join(SCHEMES)}. Found {self.scheme!r}."
                f"{_other_name(self.scheme, _OTHER_SCHEMES)}"
            )
        super().__post_init__()

    def complete_labels(self) -> Sequence[str]:
        """Return the label space with all tags of its classes."""
        return scheme_labels(self.labels, self.scheme) if self.labels and self.scheme is not None else self.labels

    @property
    def finds_spans(self) -> bool:
        """Whether the task has a scheme."""
        return self.scheme is not None

    def make_kind(self) -> LabelKind:
        """Return a class per word, or spans of words."""
        if self.scheme is None:
            return ClassPerWord(self.name, self.labels, **self.loss_options)
        return SpansOfWords(self.name, self.labels, self.scheme, **self.loss_options)


@dataclass(frozen=True, kw_only=True)
class SequenceTask(Task):
    """A task with a label per text or pair of texts.

    Args:
        pooling: the input of the head: `cls` for the first sub-word, `mean` for the mean over all sub-words, or `last`
            for the last sub-word that is not padding. By default the input of the stock class of the encoder's family,
            see `default_pooling`.
    """

    pooling: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pooling is not None and self.pooling not in POOLINGS:
            raise ValueError(
                f"Task {self.name!r}: `pooling` should be one of {', '.join(POOLINGS)}. Found {self.pooling!r}."
            )

    def with_default_pooling(self, pooling: str) -> Task:
        """Return a copy of the task with an input of its head, unless the task has one.

        A registered head reads all sub-words, and pools them itself.
        """
        if self.pooling is not None:
            return self
        return dataclasses.replace(self, pooling="cls" if registered_name(self.head) is not None else pooling)

    @property
    def pooled_by(self) -> str | None:
        """The input of the head; None while the encoder, which decides the default, is not known."""
        return self.pooling


@dataclass(frozen=True, kw_only=True)
class TextClassification(ClassTask, SequenceTask):
    """One of several classes per text or pair of texts."""

    type: ClassVar[str] = "text-classification"

    def make_kind(self) -> LabelKind:
        """Return a class per text."""
        return ClassPerText(self.name, self.labels, **self.loss_options)


@dataclass(frozen=True, kw_only=True)
class MultiLabelClassification(SequenceTask):
    """Any number of classes per text or pair of texts.

    Args:
        pos_weight: class -> the factor, at least 0, of the loss of texts with the class, 1 for a class that is not
            named; `balanced` for the number of training texts without the class, divided by the number with it; None
            for 1.
        focal: γ of the focal loss (Lin et al. 2017), which counts certain predictions less; None for the cross-entropy.
        threshold: the lowest probability at which a class is predicted, above 0 and below 1; `tuned` for the threshold
            of each class with the highest F1 on the validation rows after training.
        balanced_weights: the factors that `balanced` has found.
        tuned_thresholds: class -> the threshold that `tuned` has found.
    """

    type: ClassVar[str] = "multi-label-classification"
    learned: ClassVar[tuple[str, ...]] = ("balanced_weights",)
    tuned: ClassVar[tuple[str, ...]] = ("tuned_thresholds",)

    pos_weight: str | Mapping[str, float] | None = None
    focal: float | None = None
    threshold: float | str = THRESHOLD
    balanced_weights: Mapping[str, float] | None = None
    tuned_thresholds: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set(
            pos_weight=weights_option(self.name, self.labels, "pos_weight", self.pos_weight),
            focal=number_option(self.name, "focal", self.focal),
            threshold=threshold_option(self.name, self.threshold),
            balanced_weights=weights_option(
                self.name, self.labels, "balanced_weights", self.balanced_weights, words=()
            ),
            tuned_thresholds=weights_option(
                self.name, self.labels, "tuned_thresholds", self.tuned_thresholds, words=()
            ),
        )

    @property
    def missing_statistics(self) -> str | None:
        """`pos_weight: balanced`, while the factors are not known."""
        is_missing = self.pos_weight == BALANCED and self.balanced_weights is None
        return f"pos_weight: {BALANCED}" if is_missing else None

    def learn(self, statistics: LabelStatistics) -> Task:
        """Return a copy of the task with balanced factors, if the task asks for them."""
        if self.pos_weight != BALANCED:
            return self
        return dataclasses.replace(self, balanced_weights=statistics.pos_weight(self.labels))

    @property
    def needs_tuning(self) -> str | None:
        """`threshold: tuned`, if the task asks for it."""
        return f"threshold: {TUNED}" if self.threshold == TUNED else None

    def tune(self, confidences: Sequence[Mapping[str, float]], references: Sequence[Sequence[str]]) -> Task:
        """Return a copy of the task with the threshold of each class that has the highest F1."""
        if self.threshold != TUNED:
            return self
        found = {
            label: best_threshold([row[label] for row in confidences], [label in row for row in references])
            for label in self.labels
        }
        return dataclasses.replace(self, tuned_thresholds=found)

    def make_kind(self) -> LabelKind:
        """Return a set of classes per text."""
        fixed = {} if isinstance(self.threshold, str) else dict.fromkeys(self.labels, self.threshold)
        return ClassesPerText(
            self.name,
            self.labels,
            pos_weight=weights_in_use(self.pos_weight, self.balanced_weights),
            focal=self.focal or 0.0,
            thresholds=fixed or self.tuned_thresholds,
        )


@dataclass(frozen=True, kw_only=True)
class Regression(SequenceTask):
    """A number per text or pair of texts.

    Args:
        normalize: whether the loss is that of the standardised number (x - mean) / sd, so that it does not depend on
            the unit of the numbers; answers and scores are in the unit. Without `mean` and `sd`, as in models of
            earlier releases, the loss is that of the numbers as they are.
        mean: the mean of the numbers in the training rows.
        sd: the standard deviation of the numbers in the training rows; 1 if the numbers are equal.
    """

    type: ClassVar[str] = "regression"
    learned: ClassVar[tuple[str, ...]] = ("mean", "sd")
    needs_statistics: ClassVar[bool] = False
    scale_option: ClassVar[str | None] = "normalize"

    normalize: bool = True
    mean: float | None = None
    sd: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.names is not None:
            raise ValueError(f"Task {self.name!r}: a regression task has no label names. Leave out `names`.")
        if not isinstance(self.normalize, bool):
            raise ValueError(f"Task {self.name!r}: `normalize` should be true or false. Found {self.normalize!r:.80}.")
        self._set(
            mean=number_option(self.name, "mean", self.mean, least=None),
            sd=number_option(self.name, "sd", self.sd),
        )
        if (self.mean is None) is not (self.sd is None) or self.sd == 0.0:
            raise ValueError(
                f"Task {self.name!r}: `mean` and `sd` should both be given, with an `sd` above 0. Found {self.mean} "
                f"and {self.sd}."
            )

    @property
    def missing_statistics(self) -> str | None:
        """`normalize: true`, while mean and deviation are not known."""
        return "normalize: true" if self.normalize and self.sd is None else None

    def learn(self, statistics: LabelStatistics) -> Task:
        """Return a copy of the task with the mean and the standard deviation, unless `normalize` is false."""
        if not self.normalize:
            return self
        return dataclasses.replace(self, mean=statistics.mean, sd=statistics.sd)

    def make_kind(self) -> LabelKind:
        """Return a number per text."""
        if not self.normalize:
            return NumberPerText(self.name, self.labels)
        return NumberPerText(self.name, self.labels, mean=self.mean, sd=self.sd)


_BUILT_IN: tuple[type[Task], ...] = (TokenClassification, TextClassification, MultiLabelClassification, Regression)

TASK_TYPES: dict[str, type[Task]] = {task_type.type: task_type for task_type in _BUILT_IN}
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


def _other_name(found: Any, names: Mapping[str, str]) -> str:
    """Return a sentence on the name that a usual name has here, or an empty text."""
    own = names.get(found.lower()) if isinstance(found, str) else None
    return "" if own is None else f" {found} is called {own} here."


def task_from_dict(fields: dict[str, Any]) -> Task:
    """Build a task from plain data such as `{"name": "pos", "type": "token-classification", "labels": [...]}`.

    Raises:
        NotRegisteredError: if the type or the head is unknown, with the valid types in the message.
        ValueError: if an option is unknown, with the nearest option in the message; or if the task has no name, or a
            value is not valid.
    """
    if not isinstance(fields, Mapping) or "name" not in fields:
        raise ValueError(f"A task should be an object with a `name`, a `type` and its `labels`. Found {fields!r:.80}.")
    fields = dict(fields)
    name, type_name = fields.get("name"), fields.pop("type", None)
    module, head_module = fields.pop("module", None), fields.pop("head_module", None)
    if not isinstance(type_name, str) or type_name not in TASK_TYPES:
        registering = "the module that registers the type" if module is None else f"the module {module!r:.80}"
        raise NotRegisteredError(
            f"Task {name!r}: `type` should be one of {', '.join(TASK_TYPES)}. Found {type_name!r}."
            f"{_other_name(type_name, _OTHER_TYPES)} For a type from outside of mtl_nlp, import {registering} first."
        )
    if fields.get("head") is not None:
        check_head(str(name), fields["head"], head_module)
    task_type = TASK_TYPES[type_name]
    valid = [field.name for field in dataclasses.fields(task_type)]
    for key in fields:
        if key not in valid:
            raise ValueError(f"Task {name!r}: a {type_name} task has no option {key!r}. {hint(key, valid)}")
    return task_type(**fields)


def reads_words(tasks: Iterable[Task]) -> bool:
    """Return whether a model of these tasks splits every text into words: True if any task labels words.

    One encoder pass serves all tasks, so all tasks must read the same sub-words of a text, in training, evaluation
    and the pipeline.
    """
    return any(task.kind.labels_words for task in tasks)
