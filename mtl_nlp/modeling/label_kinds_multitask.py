"""Label kinds: all that depends on the shape of a task's labels.

A kind states how a label is checked, stored in Arrow, turned into targets, padded into a batch and counted; which loss
it has; how one row's logits are cut out of a batch and become a prediction and an answer; and which metric scores it.
The other modules ask the kind instead of the type of the task. A new kind is a subclass of [`WordKind`] or
[`TextKind`], or of one of the kinds in `word_kinds_multitask` and `text_kinds_multitask`.

A *unit* is what has one term in the loss: a word, a text, or one decision of a set of classes. A *target* is a label
as numbers. Units without a label are `IGNORED` among whole numbers, and NaN among floating-point numbers.

Importing this module imports no torch, so that a recipe can be checked at once.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, NamedTuple

import numpy as np

from .words_multitask import Word

if TYPE_CHECKING:
    import torch

IGNORED = -100
"""The target of what carries no trainable label: further sub-words, padding, labels unseen in training."""
PREDICTED: Final = "predicted"
"""Show the classes that are predicted: the best one, or all those that hold."""
TopK = int | Literal["predicted"] | None
"""How many classes an answer shows: a number, those predicted, or all (None)."""
Metric = str | Callable[[list[Any], list[Any]], Mapping[str, float]]
"""A name in `mtl_nlp.evaluation.metrics.METRICS`, or a function of predictions and references."""

# How targets of an Arrow type stand in a batch: their type, and the value of a unit without a label.
_IN_BATCH: dict[str, tuple[type, float]] = {"int32": (np.int64, IGNORED), "float32": (np.float32, math.nan)}


class Feature(NamedTuple):
    """A column's Arrow type as plain data, since this module cannot import `datasets`.

    Attributes:
        dtype: the name of the type of one value, such as `string` or `int32`.
        is_list: whether a row has a list of values.
    """

    dtype: str
    is_list: bool = False


class LabelKind(abc.ABC):
    """The shape of a task's labels, and all that depends on that shape.

    Args:
        name: the task's name.
        labels: the label space in the order of the logits; empty for numbers, and until it is known from data.
    """

    level: ClassVar[str]
    """`token` (a label per word) or `sequence` (a label per text)."""
    auto_class: ClassVar[str]
    """The transformers class whose head computes the logits."""
    pipeline_task: ClassVar[str]
    """The transformers pipeline for that class, which is the Hub's tag for the task too."""
    peft_task_type: ClassVar[str]
    """PEFT's `TaskType` for that class."""
    problem_type: ClassVar[str]
    """The name that transformers has for the loss."""
    label_feature: ClassVar[Feature]
    """How canonical labels are stored."""
    target_feature: ClassVar[Feature]
    """How targets are stored: `int32` or `float32`, or lists of them."""
    has_label_space: ClassVar[bool] = True
    """Whether labels are names out of a set."""
    display: ClassVar[Literal["marks", "class", "classes", "number"]]
    """How a page shows an answer: marks in the text, bars of which the best is the answer, bars, or a number."""
    metric: Metric
    """What scores predictions; a subclass may define it as a method of predictions and references."""
    primary_score: str
    """The score of the metric that `mtl_score` averages."""

    def __init__(self, name: str, labels: Sequence[str] = ()) -> None:
        self.name = name
        self.labels = tuple(labels)

    @property
    def labels_words(self) -> bool:
        """Whether a label has an entry per word, so that its rows need words and long texts are cut into windows."""
        return self.level == "token"

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of the head's outputs, one per logit."""
        return self.labels if self.has_label_space else (self.name,)

    @property
    def mark_names(self) -> tuple[str, ...]:
        """The names that marks in a text can have."""
        return self.labels

    @cached_property
    def label_ids(self) -> dict[str, int]:
        """Label to index."""
        return {label: index for index, label in enumerate(self.labels)}

    @abc.abstractmethod
    def check(self, value: Any) -> Any:
        """Return the label of one row in canonical form.

        Raises:
            ValueError: if the label is of the wrong type; the message says what was expected and found.
        """

    def count_repairs(self, given: Any, canonical: Any) -> int:
        """Return how many entries of a label `check` has changed because they were illegal."""
        return 0

    def names_in(self, label: Any) -> Iterable[str]:
        """Return the label names that occur in a canonical label; none of kinds without a label space."""
        return ()

    @abc.abstractmethod
    def target_of(self, label: Any) -> Any:
        """Return a canonical label as numbers; `IGNORED` for names outside the label space."""

    @abc.abstractmethod
    def target_of_window(self, label: Any, words: Sequence[int], number: int) -> Any:
        """Return the target of one window of a text, None if the window has none.

        Args:
            label: the canonical label of the text.
            words: indices of the words that the window answers for.
            number: the window's number, from 0.
        """

    @abc.abstractmethod
    def pad(self, targets: Sequence[Any], positions: Sequence[Sequence[int]], length: int) -> np.ndarray:
        """Return the targets of a batch as one array, int64 or float32.

        Args:
            targets: of each row with a label, as they are stored.
            positions: for each of these rows the positions of the words that its target is about.
            length: L, sub-words of the padded batch.
        """

    def count_units(self, targets: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
        """Return the weight of all labelled units, Σ_u w_u, the denominator of the mean loss; a scalar.

        Args:
            targets: as `loss_sum` takes them.
            weights: as `loss_sum` takes them; None counts the units.
        """
        labelled = self.is_labelled(targets)
        return labelled.sum() if weights is None else (labelled * weights).sum()

    def is_labelled(self, targets: torch.Tensor) -> torch.Tensor:
        """Return which units have a label, bool."""
        return is_labelled(targets)

    @abc.abstractmethod
    def loss_sum(
        self,
        logits: torch.Tensor,
        targets: torch.Tensor,
        weights: torch.Tensor | None = None,
        *,
        label_smoothing: float = 0.0,
    ) -> torch.Tensor:
        """Return the loss summed over the labelled units, Σ_u w_u · loss_u, a float32 scalar.

        Args:
            logits: shape (rows, L, outputs) for words, (rows, outputs) for texts.
            targets: as `pad` gives them; kinds of one class per unit also take a distribution over the classes per
                unit, shape (*units, classes) float, all zeros for a unit without a label.
            weights: w_u, broadcasts to the shape of the units; None for 1.
            label_smoothing: the share of a target that cross-entropy spreads over all classes; other losses have none.
        """

    @abc.abstractmethod
    def logits_shape(self, length: int) -> tuple[int, ...]:
        """Return the shape of one row's logits in a batch of `length` sub-words."""

    @abc.abstractmethod
    def cut(self, logits: np.ndarray, positions: Sequence[int]) -> np.ndarray:
        """Return what one window answers, as a copy, so that the batch can be freed.

        Args:
            logits: of one row of a batch.
            positions: of the words that the window answers for.
        """

    @abc.abstractmethod
    def join(self, windows: Sequence[np.ndarray]) -> np.ndarray:
        """Return the logits of a text from those of its windows in order, as `cut` gives them."""

    @abc.abstractmethod
    def decode(self, logits: np.ndarray) -> Any:
        """Return the predicted label in canonical form.

        Args:
            logits: shape (words, outputs) for words, (outputs,) for texts.
        """

    @abc.abstractmethod
    def answer(self, logits: np.ndarray, words: Sequence[Word], text: str, top_k: TopK) -> list[dict[str, Any]]:
        """Return the pipeline's answer, one dict per entry; entries about words have `start` and `end`, characters.

        Args:
            logits: as in `decode`.
            words: the words of the text.
            text: the text.
            top_k: how many classes to show.
        """

    def shown(self, entry: Mapping[str, Any]) -> str:
        """Return what a reader sees of one entry of an answer."""
        return entry["label"]

    @abc.abstractmethod
    def as_strings(self, entries: Sequence[Mapping[str, Any]], words: Sequence[Word]) -> list[str]:
        """Return an answer for a file of columns: one string per word, or one per entry of an answer about the text."""


class WordKind(LabelKind):
    """A kind whose labels are lists with an entry per word; the first sub-word stands for its word."""

    level = "token"
    auto_class = "AutoModelForTokenClassification"
    pipeline_task = "token-classification"
    peft_task_type = "TOKEN_CLS"
    display = "marks"

    def target_of_window(self, label: Sequence[Any], words: Sequence[int], number: int) -> Any:
        """Return the targets of the window's words."""
        return self.target_of([label[word] for word in words])

    def pad(self, targets: Sequence[Any], positions: Sequence[Sequence[int]], length: int) -> np.ndarray:
        """Return shape (rows, L), without a label off the first sub-words."""
        dtype, missing = _IN_BATCH[self.target_feature.dtype]
        padded: np.ndarray = np.full((len(targets), length), missing, dtype=dtype)
        sizes = [len(row) for row in positions]
        if sizes != [len(row) for row in targets]:
            raise ValueError(f"Task {self.name!r}: a row should have as many targets as words that it answers for.")
        rows = np.repeat(np.arange(len(sizes)), sizes)
        columns = np.fromiter(chain.from_iterable(positions), dtype=np.int64, count=len(rows))
        padded[rows, columns] = np.fromiter(chain.from_iterable(targets), dtype=dtype, count=len(rows))
        return padded

    def logits_shape(self, length: int) -> tuple[int, ...]:
        """Return (L, outputs)."""
        return length, len(self.output_names)

    def cut(self, logits: np.ndarray, positions: Sequence[int]) -> np.ndarray:
        """Return the logits of the words' first sub-words, shape (words, outputs)."""
        return logits[positions]

    def join(self, windows: Sequence[np.ndarray]) -> np.ndarray:
        """Return the logits of all words: the windows share the words out in order."""
        return np.concatenate(windows)

    def as_strings(self, entries: Sequence[Mapping[str, Any]], words: Sequence[Word]) -> list[str]:
        """Return what is shown of each word, `_` for words that were cut off from a pair."""
        shown = {entry["index"]: self.shown(entry) for entry in entries}
        return [shown.get(index, "_") for index in range(1, len(words) + 1)]


class TextKind(LabelKind):
    """A kind whose labels are about a text or a pair of texts; a long text is answered from its first window."""

    level = "sequence"
    auto_class = "AutoModelForSequenceClassification"
    pipeline_task = "text-classification"
    peft_task_type = "SEQ_CLS"

    def target_of_window(self, label: Any, words: Sequence[int], number: int) -> Any:
        """Return the text's target for the first window, None for the others."""
        return self.target_of(label) if number == 0 else None

    def pad(self, targets: Sequence[Any], positions: Sequence[Sequence[int]], length: int) -> np.ndarray:
        """Return shape (rows,), or (rows, outputs) of kinds whose targets are lists."""
        dtype, _ = _IN_BATCH[self.target_feature.dtype]
        shape = (len(self.output_names),) if self.target_feature.is_list else ()
        return np.array(targets, dtype=dtype).reshape(len(targets), *shape)

    def logits_shape(self, length: int) -> tuple[int, ...]:
        """Return (outputs,)."""
        return (len(self.output_names),)

    def cut(self, logits: np.ndarray, positions: Sequence[int]) -> np.ndarray:
        """Return the logits of the text, shape (outputs,)."""
        return logits.copy()

    def join(self, windows: Sequence[np.ndarray]) -> np.ndarray:
        """Return the logits of the first window."""
        return windows[0]

    def as_strings(self, entries: Sequence[Mapping[str, Any]], words: Sequence[Word]) -> list[str]:
        """Return what is shown of each entry."""
        return [self.shown(entry) for entry in entries]


class OneClassKind(LabelKind):
    """A kind of one class per unit: cross-entropy, with class ids or soft targets."""

    problem_type = "single_label_classification"

    def is_labelled(self, targets: torch.Tensor) -> torch.Tensor:
        """Return which units have a class id, or a distribution that is not all zeros."""
        return targets.ne(0).any(dim=-1) if targets.is_floating_point() else is_labelled(targets)

    def loss_sum(
        self,
        logits: torch.Tensor,
        targets: torch.Tensor,
        weights: torch.Tensor | None = None,
        *,
        label_smoothing: float = 0.0,
    ) -> torch.Tensor:
        """Return the summed cross-entropy."""
        # Here, since this module is imported where torch is not.
        from .unit_losses_multitask import cross_entropy_sum

        return cross_entropy_sum(logits, targets, weights, label_smoothing=label_smoothing, ignore_index=IGNORED)


def is_labelled(targets: torch.Tensor) -> torch.Tensor:
    """Return which units have a target, bool: those that are not `IGNORED`, or not NaN among floating-point numbers."""
    return targets.isnan().logical_not() if targets.is_floating_point() else targets.ne(IGNORED)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return probabilities over the last axis."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True)) if logits.size else logits
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Return independent probabilities, without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * logits))
