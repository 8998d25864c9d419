"""Tasks: what a label is, how predictions come out of logits, and what an answer looks like.

`TASK_TYPES` is the only table of task types. A new type is a class here; the rest of the package asks the task.
Nothing here needs torch.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import Any, ClassVar, Final, Literal

import numpy as np

from .spans_multitask import SCHEMES, SpanConstraints, repair_tags, scheme_labels, spans_from_tags
from .words_multitask import Word

IGNORED = -100
"""The label id of what carries no trainable label: further sub-words, padding, labels unseen in training."""
POOLINGS = ("cls", "mean")
THRESHOLD = 0.5
"""A multi-label class is predicted from this probability on."""
PREDICTED: Final = "predicted"
"""Show the classes that are predicted: the best one, or all those that hold."""
TopK = int | Literal["predicted"] | None
"""How many classes an answer shows: a number, those predicted, or all (None)."""


@dataclass(frozen=True, kw_only=True)
class Task(abc.ABC):
    """A prediction problem: a name, a label space and, by its class, a type.

    Args:
        name: the task's name, unique in its model.
        labels: the label space in the order of the logits; empty until it is known from data.
    """

    type: ClassVar[str]
    level: ClassVar[str]
    """`token` (a label a word) or `sequence` (a label a text)."""
    problem_type: ClassVar[str] = "single_label_classification"
    """transformers' own name for the loss."""
    has_label_space: ClassVar[bool] = True
    """Whether the label space is a set of names (False for regression)."""

    name: str
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(self.labels))
        if len(set(self.labels)) < len(self.labels):
            raise ValueError(f"Task {self.name!r}: labels must be unique. Found {list(self.labels)}.")

    @property
    def num_labels(self) -> int:
        """Width of the head's logits."""
        return len(self.labels)

    @property
    @abc.abstractmethod
    def metric(self) -> str:
        """The metric module (`mtl_nlp.evaluation.metrics`) that scores the task."""

    @property
    @abc.abstractmethod
    def primary_score(self) -> str:
        """The one of its scores that `mtl_score` averages."""

    @cached_property
    def label_ids(self) -> dict[str, int]:
        """Label to index."""
        return {label: index for index, label in enumerate(self.labels)}

    def to_dict(self) -> dict[str, Any]:
        """The task as plain data, for `config.json`."""
        fields = {key: value for key, value in dataclasses.asdict(self).items() if value is not None}
        return {**fields, "labels": list(self.labels), "type": self.type}

    def with_labels(self, labels: Iterable[str]) -> Task:
        """A copy with this label space."""
        return dataclasses.replace(self, labels=tuple(labels))

    @abc.abstractmethod
    def check(self, value: Any) -> Any:
        """The label of one row in canonical form.

        Raises:
            ValueError: if it is of the wrong type; the message says what was expected and found.
        """

    def names_in(self, value: Any) -> Iterable[str]:
        """The label names that occur in a canonical label."""
        return [value]

    @abc.abstractmethod
    def encode(self, value: Any) -> Any:
        """A canonical label as numbers; `IGNORED` for names outside the label space."""

    @abc.abstractmethod
    def decode(self, logits: np.ndarray) -> Any:
        """The predicted label in canonical form.

        Args:
            logits: shape (words, num_labels) at the token level, (num_labels,) at the sequence level.
        """

    @abc.abstractmethod
    def answer(self, logits: np.ndarray, words: Sequence[Word], text: str, top_k: TopK) -> list[dict[str, Any]]:
        """The pipeline's answer; arguments as in `decode`, with the words of the text and how many classes to show."""


@dataclass(frozen=True, kw_only=True)
class TokenClassification(Task):
    """A label for each word (part-of-speech tagging), or spans of words written as tags (entities, slots).

    Args:
        scheme: None for plain labels; `iob2`, `iob1` or `bioes` for spans, which are decoded so that no illegal
            sequence of tags comes out and scored by strict span F1.
    """

    type: ClassVar[str] = "token-classification"
    level: ClassVar[str] = "token"

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

    @property
    def metric(self) -> str:
        """Word accuracy, or strict span F1, precision and recall."""
        return "accuracy" if self.scheme is None else f"span_f1_{self.scheme}"

    @property
    def primary_score(self) -> str:
        """Accuracy or F1."""
        return "accuracy" if self.scheme is None else "f1"

    @cached_property
    def _constraints(self) -> SpanConstraints | None:
        return None if self.scheme is None else SpanConstraints(self.labels, self.scheme)

    def check(self, value: Any) -> list[str]:
        """A list of label names, one a word; span tags are repaired to legal ones, as seqeval reads them."""
        if not isinstance(value, list) or not all(isinstance(label, str) for label in value):
            raise ValueError(f"expected a list of label names, one for each word; found {value!r:.80}")
        return value if self.scheme is None else repair_tags(value, self.scheme)

    def names_in(self, value: Sequence[str]) -> Iterable[str]:
        """The names of all words' labels."""
        return value

    def encode(self, value: Sequence[str]) -> list[int]:
        """Label ids, one a word."""
        return [self.label_ids.get(label, IGNORED) for label in value]

    def decode(self, logits: np.ndarray) -> list[str]:
        """A label a word; with a scheme, the best legal sequence of tags."""
        best = logits.argmax(axis=-1) if self._constraints is None else self._constraints.decode(logits)
        return [self.labels[index] for index in best]

    def answer(self, logits: np.ndarray, words: Sequence[Word], text: str, top_k: TopK) -> list[dict[str, Any]]:
        """`{"word", "label", "score", "start", "end", "index"}` for every word (index from 1), or for every span
        `{"entity_group", "score", "word", "start", "end"}` with the mean probability of its tags."""
        tags = self.decode(logits)
        probabilities = softmax(logits)
        scores = [float(row[self.label_ids[tag]]) for row, tag in zip(probabilities, tags, strict=True)]
        if self.scheme is None:
            return [
                {"word": word.text, "label": tag, "score": score, "start": word.start, "end": word.end, "index": index}
                for index, (word, tag, score) in enumerate(zip(words, tags, scores, strict=True), start=1)
            ]
        return [
            {
                "entity_group": span.label,
                "score": math.fsum(scores[span.start : span.end]) / (span.end - span.start),
                "word": text[words[span.start].start : words[span.end - 1].end],
                "start": words[span.start].start,
                "end": words[span.end - 1].end,
            }
            for span in spans_from_tags(tags)
        ]


@dataclass(frozen=True, kw_only=True)
class SequenceTask(Task):
    """A task that labels a whole text or pair of texts.

    Args:
        pooling: what the head reads: `cls`, the first sub-word as the encoder family's stock class does, or `mean`,
            the mean over all sub-words in the first one's place.
    """

    level: ClassVar[str] = "sequence"

    pooling: str = "cls"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pooling not in POOLINGS:
            raise ValueError(
                f"Task {self.name!r}: `pooling` should be one of {', '.join(POOLINGS)}. Found {self.pooling!r}."
            )


@dataclass(frozen=True, kw_only=True)
class TextClassification(SequenceTask):
    """One of several classes for a text or a pair of texts."""

    type: ClassVar[str] = "text-classification"

    metric: ClassVar[str] = "classification"
    primary_score: ClassVar[str] = "accuracy"

    def check(self, value: Any) -> str:
        """A class name; whole numbers and booleans are taken as names."""
        if isinstance(value, str | int | np.integer):
            return str(value)
        raise ValueError(f"expected a class name or number; found {value!r:.80}")

    def encode(self, value: str) -> int:
        """The class's index."""
        return self.label_ids.get(value, IGNORED)

    def decode(self, logits: np.ndarray) -> str:
        """The most probable class."""
        return self.labels[int(logits.argmax())]

    def answer(self, logits: np.ndarray, words: Sequence[Word], text: str, top_k: TopK) -> list[dict[str, Any]]:
        """The `top_k` most probable classes as `{"label", "score"}`, best first."""
        return _ranked(self.labels, softmax(logits))[: 1 if top_k == PREDICTED else top_k]


@dataclass(frozen=True, kw_only=True)
class MultiLabelClassification(SequenceTask):
    """Any number of classes for a text or a pair of texts."""

    type: ClassVar[str] = "multi-label-classification"
    problem_type: ClassVar[str] = "multi_label_classification"

    metric: ClassVar[str] = "multi_label"
    primary_score: ClassVar[str] = "micro_f1"

    def check(self, value: Any) -> list[str]:
        """A list of class names."""
        if not isinstance(value, list) or not all(isinstance(label, str) for label in value):
            raise ValueError(f"expected a list of class names; found {value!r:.80}")
        return sorted(set(value))

    def names_in(self, value: Sequence[str]) -> Iterable[str]:
        """The names in the list."""
        return value

    def encode(self, value: Sequence[str]) -> list[float]:
        """One number a class, 1.0 where the class holds."""
        return [float(label in value) for label in self.labels]

    def decode(self, logits: np.ndarray) -> list[str]:
        """The classes with a probability of at least a half."""
        return sorted(label for label, score in zip(self.labels, sigmoid(logits), strict=True) if score >= THRESHOLD)

    def answer(self, logits: np.ndarray, words: Sequence[Word], text: str, top_k: TopK) -> list[dict[str, Any]]:
        """The `top_k` most probable classes as `{"label", "score"}`, best first."""
        ranked = _ranked(self.labels, sigmoid(logits))
        if top_k == PREDICTED:
            return [entry for entry in ranked if entry["score"] >= THRESHOLD]
        return ranked[:top_k]


@dataclass(frozen=True, kw_only=True)
class Regression(SequenceTask):
    """A number for a text or a pair of texts."""

    type: ClassVar[str] = "regression"
    problem_type: ClassVar[str] = "regression"
    has_label_space: ClassVar[bool] = False

    @property
    def num_labels(self) -> int:
        """One output."""
        return 1

    metric: ClassVar[str] = "correlation"
    primary_score: ClassVar[str] = "pearson"

    def check(self, value: Any) -> float:
        """A finite number."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"expected a finite number; found {value!r:.80}")
        return float(value)

    def names_in(self, value: float) -> Iterable[str]:
        """Numbers have no names."""
        return []

    def encode(self, value: float) -> float:
        """The number itself."""
        return value

    def decode(self, logits: np.ndarray) -> float:
        """The number itself."""
        return float(logits[0])

    def answer(self, logits: np.ndarray, words: Sequence[Word], text: str, top_k: TopK) -> list[dict[str, Any]]:
        """`[{"label": name of the task, "score": number}]`."""
        return [{"label": self.name, "score": float(logits[0])}]


TASK_TYPES: dict[str, type[Task]] = {
    task_type.type: task_type
    for task_type in (TokenClassification, TextClassification, MultiLabelClassification, Regression)
}


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
    return any(task.level == "token" for task in tasks)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True)) if logits.size else logits
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Independent probabilities, without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * logits))


def _ranked(labels: Sequence[str], scores: np.ndarray) -> list[dict[str, Any]]:
    ranking = np.argsort(-scores, kind="stable")
    return [{"label": labels[index], "score": float(scores[index])} for index in ranking]
