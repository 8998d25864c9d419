"""Label kinds: everything that depends on the shape of a task's labels.

A kind defines how a label is checked, stored in Arrow, turned into a target, padded into a batch and counted, and also
the loss, the metric, and how the logits of one row become a prediction and an answer. The other modules do not test the
type of the task. A new kind is a subclass of [`WordKind`], [`TextKind`], or a kind of the other modules.

A *unit* is a term of the loss: a word, a text, or the decision about one class of a set. A *target* is a label as
numbers. The target of a unit without a label is `IGNORED` for integer targets and NaN for floating-point targets; a
soft target (a distribution over the classes) may also be all zeros.
This module does not import torch, so that checking a recipe does not wait for that import.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np

from .answering_multitask import PREDICTED as PREDICTED
from .answering_multitask import Answering, Logits
from .answering_multitask import TopK as TopK
from .ragged_multitask import Ragged
from .scores_multitask import ChosenScores
from .words_multitask import Word

if TYPE_CHECKING:
    import torch

IGNORED = -100
"""The target of positions without a trainable label: further sub-words, padding, labels unseen in training."""
Metric = str | ChosenScores | Callable[[list[Any], list[Any]], Mapping[str, float]]
"""A name in `mtl_nlp.evaluation.metrics.METRICS`, chosen scores, or a function from (predictions, references)."""

# For each Arrow type of targets: their NumPy type in a batch, and the target of a unit without a label.
_IN_BATCH: dict[str, tuple[type, float]] = {"int32": (np.int64, IGNORED), "float32": (np.float32, math.nan)}


class Feature(NamedTuple):
    """A column's Arrow type as plain data, since this module must not import `datasets`.

    Attributes:
        dtype: the name of the type of one value, such as `string` or `int32`.
        is_list: whether each row has a list of values.
    """

    dtype: str
    is_list: bool = False


class LabelKind(Answering):
    """The shape of a task's labels, and everything that depends on that shape.

    Args:
        name: the task's name.
        labels: the label space in the order of the logits; empty for numbers, or until the data are read.
    """

    level: ClassVar[str]
    """`token` (a label per word) or `sequence` (a label per text)."""
    auto_class: ClassVar[str]
    """The transformers class whose head computes the logits."""
    pipeline_task: ClassVar[str]
    """The transformers pipeline for that class, which is also the task's tag on the Hub."""
    peft_task_type: ClassVar[str]
    """PEFT's `TaskType` for that class."""
    problem_type: ClassVar[str]
    """The `problem_type` by which transformers chooses the same loss."""
    label_feature: ClassVar[Feature]
    """The Arrow type of canonical labels."""
    target_feature: ClassVar[Feature]
    """The Arrow type of targets: `int32`, `float32`, or lists of either."""
    has_label_space: ClassVar[bool] = True
    """Whether labels are names from a label space."""
    names_are_entries: ClassVar[bool] = False
    """Whether the names in a list label are its entries that are not None; False for a kind with its own `names_in`."""
    is_set: ClassVar[bool] = False
    """Whether a label is a set of names."""
    span_scheme: str | None = None
    """The scheme of the tags if labels are spans of words, else None."""
    display: ClassVar[Literal["marks", "class", "classes", "number"]]
    """Display of an answer on a page: marks in the text, bars with the best class as answer, bars only, or a number."""
    metric: Metric
    """The metric that scores predictions; a subclass may define a method of predictions and references instead."""
    primary_score: str
    """The name of the metric's score that enters the mean `mtl_score`. A higher score must be better."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """See `Answering`; a class that redefines `names_in` has to say again whether the names are the entries."""
        super().__init_subclass__(**kwargs)
        if "names_in" in vars(cls) and "names_are_entries" not in vars(cls):
            cls.names_are_entries = False

    def __init__(self, name: str, labels: Sequence[str] = ()) -> None:
        self.name = name
        self.labels = tuple(labels)

    def check_definition(self) -> None:
        """Check that the class defines all attributes that a kind needs.

        Raises:
            ValueError: if attributes are missing; the message names all of them.
        """
        missing = ", ".join(sorted(LabelKind.__annotations__.keys() - {*dir(type(self)), *vars(self)}))
        if missing:
            raise ValueError(f"The label kind {type(self).__name__} should define {missing}, see `LabelKind`.")

    @property
    def labels_words(self) -> bool:
        """Whether a label has one entry per word; rows then need words, and long texts are cut into windows."""
        return self.level == "token"

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of the head's outputs, one per logit."""
        return self.labels if self.has_label_space else (self.name,)

    @property
    def num_outcomes(self) -> int | None:
        """Number of values that the label of one unit can have, for cross-entropy; None for the squared error."""
        return len(self.labels) if self.has_label_space else None

    @property
    def mark_names(self) -> tuple[str, ...]:
        """The names that marks in a text can have."""
        return self.labels

    @cached_property
    def label_ids(self) -> dict[str, int]:
        """The index of each label in the label space."""
        return {label: index for index, label in enumerate(self.labels)}

    @abc.abstractmethod
    def check(self, value: Any) -> Any:
        """Return the label of one row in canonical form.

        Raises:
            ValueError: if the label has the wrong type; the message states the expected type and the label found.
        """

    def count_repairs(self, given: Any, canonical: Any) -> int:
        """Return the number of illegal entries of a label that `check` has repaired."""
        return 0

    def names_in(self, label: Any) -> Iterable[str]:
        """Return the label names in a canonical label; kinds without a label space have none."""
        return ()

    def numbers_in(self, label: Any) -> Iterable[float]:
        """Return the numbers in a canonical label whose mean and deviation a task may learn; by default none."""
        return ()

    @abc.abstractmethod
    def target_of(self, label: Any) -> Any:
        """Return the target of a canonical label, with `IGNORED` for names outside the label space."""

    @abc.abstractmethod
    def target_of_window(self, label: Any, words: Sequence[int], number: int) -> Any:
        """Return the target of one window of a text, or None if the window has no target.

        Args:
            label: the canonical label of the text.
            words: indices of the words that belong to the window.
            number: the index of the window in the text, from 0.
        """

    @abc.abstractmethod
    def pad(self, targets: Sequence[Any] | np.ndarray, positions: Sequence[Any], length: int) -> np.ndarray:
        """Return the targets of a batch in one array, int64 or float32.

        Args:
            targets: the stored target of each labelled row, as an array or a [`Ragged`]; or as a list.
            positions: for each labelled row, the positions of the first sub-words of its window's words, as a
                [`Ragged`] or a list.
            length: L, the number of sub-words per row of the padded batch.
        """

    def count_units(self, targets: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
        """Return the total weight of the labelled units, Σ_u w_u, the denominator of the mean loss, as a scalar.

        Args:
            targets: the targets, as in `loss_sum`.
            weights: w_u, as in `loss_sum`; None counts the units.
        """
        labelled = self.is_labelled(targets)
        return labelled.sum() if weights is None else (labelled * weights.float().expand(labelled.shape)).sum()

    def is_labelled(self, targets: torch.Tensor) -> torch.Tensor:
        """Return a bool tensor that is True for units with a label."""
        return has_target(targets)

    def spread(self, weights: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return weights of rows, shape (rows,), in a shape that is broadcastable to the units of the targets."""
        return weights.reshape(-1, *[1] * (self.is_labelled(targets).ndim - 1))

    @property
    def scale(self) -> tuple[float, float] | None:
        """Factor and offset from the outputs of a head to logits in the unit of the labels; None for 1 and 0."""
        return None

    def in_units(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return the outputs of a head's layers as logits in the unit of the labels."""
        if self.scale is None:
            return outputs
        factor, offset = self.scale  # in float32: half precision cannot hold a number far above its deviation
        return outputs.float() * factor + offset

    @abc.abstractmethod
    def loss_sum(
        self,
        logits: torch.Tensor,
        targets: torch.Tensor,
        weights: torch.Tensor | None = None,
        *,
        label_smoothing: float = 0.0,
    ) -> torch.Tensor:
        """Return the sum of the loss over the labelled units, Σ_u w_u · loss_u, as a float32 scalar.

        Args:
            logits: shape (rows, L, outputs) for words, (rows, outputs) for texts.
            targets: the array of `pad` as a tensor; kinds with one class per unit also accept a distribution over the
                classes per unit, shape (*units, classes), float, with only zeros or NaN for a unit without a label. The
                built-in `pad` methods lay out class ids only.
            weights: w_u, broadcastable to the shape of the units; None for 1.
            label_smoothing: the share of a target that cross-entropy spreads over all classes; other losses ignore it.
        """

    def mixed_targets(self, targets: torch.Tensor, scores: torch.Tensor, share: float) -> torch.Tensor:
        """Return share · label + (1 - share) · the prediction of a teacher, as targets for `loss_sum`.

        Args:
            targets: the array of `pad` as a tensor. A unit without a label stays without one.
            scores: the teacher's logits, in the shape of the logits in `loss_sum`, with the labels in the same order.
            share: the share of the label, 0 to 1.

        Raises:
            ValueError: if the kind defines no such targets.
        """
        raise ValueError(f"the label kind {type(self).__name__} defines no `mixed_targets` of labels and predictions")

    @abc.abstractmethod
    def logits_shape(self, length: int) -> tuple[int, ...]:
        """Return the shape of one row's logits in a batch padded to `length` sub-words."""

    def shown(self, entry: Mapping[str, Any]) -> str:
        """Return the text that represents one entry of an answer for a reader."""
        return entry["label"]

    @abc.abstractmethod
    def as_strings(self, entries: Sequence[Mapping[str, Any]], words: Sequence[Word]) -> list[str]:
        """Return an answer as strings for a column file: one per word, or one per entry of an answer about the text."""


class WordKind(LabelKind):
    """A kind whose labels are lists with one entry per word; a word is represented by its first sub-word."""

    level = "token"
    auto_class = "AutoModelForTokenClassification"
    pipeline_task = "token-classification"
    peft_task_type = "TOKEN_CLS"
    display = "marks"

    def target_of_window(self, label: Sequence[Any], words: Sequence[int], number: int) -> Any:
        """Return the targets of the window's words."""
        return self.target_of([label[word] for word in words])

    def pad(self, targets: Sequence[Any] | np.ndarray, positions: Sequence[Any], length: int) -> np.ndarray:
        """Return the targets in shape (rows, L); only first sub-words have a label.

        Raises:
            ValueError: if a row does not have one target per word.
        """
        dtype, missing = _IN_BATCH[self.target_feature.dtype]
        padded: np.ndarray = np.full((len(targets), length), missing, dtype=dtype)
        of_words, places = Ragged.of(targets, dtype), Ragged.of(positions)
        if not np.array_equal(of_words.sizes, places.sizes):
            raise ValueError(
                f"Task {self.name!r}: each row should have one target per word. "
                f"Found {of_words.sizes.tolist()} targets for {places.sizes.tolist()} words."
            )
        padded[places.numbers, places.values] = of_words.values
        return padded

    def logits_shape(self, length: int) -> tuple[int, ...]:
        """Return the shape (L, outputs)."""
        return length, len(self.output_names)

    def cut(self, logits: np.ndarray, positions: Sequence[int]) -> np.ndarray:
        """Return the logits of the words' first sub-words, shape (words, outputs)."""
        return logits[positions]

    def cut_all(self, logits: np.ndarray, positions: Ragged) -> Logits:
        """Return the logits of the words' first sub-words of each row, as sequences of vectors."""
        return positions.replaced(logits[positions.numbers, positions.values])

    def join(self, windows: Sequence[np.ndarray]) -> np.ndarray:
        """Return the logits of all words in order, since every word belongs to exactly one window."""
        return np.concatenate(windows)

    def join_all(self, windows: Logits, counts: np.ndarray) -> Logits:
        """Return the logits of all words of each text in order."""
        return Ragged.stacked(windows).grouped(counts)

    def as_strings(self, entries: Sequence[Mapping[str, Any]], words: Sequence[Word]) -> list[str]:
        """Return the text shown for each word, and `_` for words that were truncated from a pair."""
        shown = {entry["index"]: self.shown(entry) for entry in entries}
        return [shown.get(index, "_") for index in range(1, len(words) + 1)]


class TextKind(LabelKind):
    """A kind whose labels are about a text or a pair of texts; a long text is predicted from its first window."""

    level = "sequence"
    auto_class = "AutoModelForSequenceClassification"
    pipeline_task = "text-classification"
    peft_task_type = "SEQ_CLS"

    def target_of_window(self, label: Any, words: Sequence[int], number: int) -> Any:
        """Return the text's target for the first window, and None for later windows."""
        return self.target_of(label) if number == 0 else None

    def pad(self, targets: Sequence[Any] | np.ndarray, positions: Sequence[Any], length: int) -> np.ndarray:
        """Return the targets in shape (rows,), or (rows, outputs) for kinds whose targets are lists."""
        dtype, _ = _IN_BATCH[self.target_feature.dtype]
        shape = (len(self.output_names),) if self.target_feature.is_list else ()
        values = targets.values if isinstance(targets, Ragged) else targets
        return np.array(values, dtype=dtype).reshape(len(targets), *shape)

    def logits_shape(self, length: int) -> tuple[int, ...]:
        """Return the shape (outputs,)."""
        return (len(self.output_names),)

    def cut(self, logits: np.ndarray, positions: Sequence[int]) -> np.ndarray:
        """Return the logits of the text, shape (outputs,)."""
        return logits.copy()

    def cut_all(self, logits: np.ndarray, positions: Ragged) -> Logits:
        """Return the logits of each text, shape (rows, outputs)."""
        return logits.copy()

    def join(self, windows: Sequence[np.ndarray]) -> np.ndarray:
        """Return the logits of the first window."""
        return windows[0]

    def join_all(self, windows: Logits, counts: np.ndarray) -> Logits:
        """Return the logits of the first window of each text, shape (texts, outputs)."""
        return np.asarray(windows)[np.cumsum(counts) - counts]

    def as_strings(self, entries: Sequence[Mapping[str, Any]], words: Sequence[Word]) -> list[str]:
        """Return the text shown for each entry."""
        return [self.shown(entry) for entry in entries]


def has_target(targets: torch.Tensor) -> torch.Tensor:
    """Return True for integer targets other than `IGNORED`, and for floating-point targets other than NaN."""
    return targets.isnan().logical_not() if targets.is_floating_point() else targets.ne(IGNORED)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return the softmax over the last axis; each row of an array has the result that it has alone."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True)) if logits.size else logits
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Return the sigmoid of each logit, without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * logits))
