"""The label kinds of text tasks: a class, a set of classes, or a number per text or pair of texts."""

from __future__ import annotations

import abc
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from .answering_multitask import Logits
from .class_kinds_multitask import OneClassKind
from .label_kinds_multitask import (
    IGNORED,
    PREDICTED,
    Feature,
    TextKind,
    TopK,
    sigmoid,
    softmax,
)
from .words_multitask import Word

if TYPE_CHECKING:
    import torch

THRESHOLD = 0.5
"""The lowest probability at which a class of a set is predicted, by default."""

LARGEST_NUMBER: Final = float(np.finfo(np.float32).max)
"""The largest number that float32 can hold."""


class ClassesKind(TextKind):
    """A kind whose answers are classes with their probabilities."""

    def answer(self, logits: np.ndarray, words: Sequence[Word], text: str, top_k: TopK) -> list[dict[str, Any]]:
        """Return the `top_k` most probable classes as `{"label", "score"}`, best first."""
        return self._answers(logits[None], top_k)[0]

    def answer_all(
        self, logits: Logits, words: Sequence[Sequence[Word]], texts: Sequence[str], top_k: TopK
    ) -> list[list[dict[str, Any]]]:
        """Return the answer for each text, see `answer`."""
        return self._answers(np.asarray(logits), top_k)

    @abc.abstractmethod
    def _answers(self, logits: np.ndarray, top_k: TopK) -> list[list[dict[str, Any]]]:
        """Return the answers for logits of shape (texts, classes)."""


class ClassPerText(OneClassKind, ClassesKind):
    """A class per text or pair of texts."""

    label_feature = Feature("string")
    target_feature = Feature("int32")
    display = "class"
    metric = "classification"
    primary_score = "accuracy"

    def check(self, value: Any) -> str:
        """Return a class name; integers and booleans become names."""
        if isinstance(value, str | int | np.integer):
            return str(value)
        remedy = ". To predict the number itself, set `type: regression`" if isinstance(value, float) else ""
        raise ValueError(f"expected a class name or number; found {value!r:.80}{remedy}")

    def names_in(self, label: str) -> Iterable[str]:
        """Return the class name as the only name."""
        return [label]

    def target_of(self, label: str) -> int:
        """Return the class id."""
        return self.label_ids.get(label, IGNORED)

    def decode(self, logits: np.ndarray) -> str:
        """Return the most probable class."""
        return self.labels[int(logits.argmax())]

    def decode_all(self, logits: Logits) -> list[str]:
        """Return the most probable class of each text."""
        return [self.labels[index] for index in np.asarray(logits).argmax(axis=-1).tolist()]

    def confidence(self, logits: np.ndarray, label: str) -> float:
        """Return the probability of the class."""
        return float(softmax(logits)[self.label_ids[label]])

    def confidence_all(self, logits: Logits, labels: Sequence[str]) -> list[float]:
        """Return the probability of each text's class."""
        ids = [self.label_ids[label] for label in labels]
        return softmax(np.asarray(logits))[np.arange(len(ids)), ids].tolist()

    def _answers(self, logits: np.ndarray, top_k: TopK) -> list[list[dict[str, Any]]]:
        return _ranked(self.labels, softmax(logits), 1 if top_k == PREDICTED else top_k)


class ClassesPerText(ClassesKind):
    """A set of classes per text or pair of texts, with an independent decision per class.

    Args:
        name: the task's name.
        labels: the label space in the order of the logits.
        pos_weight: class -> the factor of the loss of texts with the class, as in `torch.nn.BCEWithLogitsLoss`; 1 for a
            class that is not named.
        focal: γ of the focal loss (Lin et al. 2017); 0 for the cross-entropy.
        thresholds: class -> the lowest probability at which the class is predicted; `THRESHOLD` for a class that is not
            named.
    """

    problem_type = "multi_label_classification"
    label_feature = Feature("string", is_list=True)
    target_feature = Feature("float32", is_list=True)
    names_are_entries = True
    is_set = True
    display = "classes"
    metric = "multi_label"
    primary_score = "micro_f1"

    def __init__(
        self,
        name: str,
        labels: Sequence[str] = (),
        *,
        pos_weight: Mapping[str, float] | None = None,
        focal: float = 0.0,
        thresholds: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(name, labels)
        self.pos_weight = None if pos_weight is None else [pos_weight.get(label, 1.0) for label in self.labels]
        self.focal = focal
        self.thresholds = {label: (thresholds or {}).get(label, THRESHOLD) for label in self.labels}

    @property
    def num_outcomes(self) -> int:
        """Number of values that the label of one unit can have: 2, since a unit is the decision about one class."""
        return 2

    def check(self, value: Any) -> list[str]:
        """Return a list of class names, sorted and without repetition."""
        if not isinstance(value, list) or not all(isinstance(label, str) for label in value):
            remedy = ""
            if isinstance(value, str):
                remedy = f". If the text has several names, give `labels.{self.name}` a `delimiter`"
            elif isinstance(value, list) and all(isinstance(label, int | float) for label in value):
                remedy = f". Give the numbers names under `tasks.{self.name}.names`"
            raise ValueError(f"expected a list of class names; found {value!r:.80}{remedy}")
        return sorted(set(value))

    def names_in(self, label: Sequence[str]) -> Iterable[str]:
        """Return the names in the list."""
        return label

    def target_of(self, label: Sequence[str]) -> list[float]:
        """Return one number per class: 1.0 for classes in the label, 0.0 for all others."""
        return [float(name in label) for name in self.labels]

    def loss_sum(
        self,
        logits: torch.Tensor,
        targets: torch.Tensor,
        weights: torch.Tensor | None = None,
        *,
        label_smoothing: float = 0.0,
    ) -> torch.Tensor:
        """Return the summed binary cross-entropy over all decisions; units have shape (rows, classes)."""
        # Imported here, since this module must not import torch.
        from .unit_losses_multitask import binary_cross_entropy_sum, constants

        of_class = None if self.pos_weight is None else constants(self.pos_weight, logits.float())
        return binary_cross_entropy_sum(logits, targets, weights, pos_weight=of_class, focal=self.focal)

    def mixed_targets(self, targets: torch.Tensor, scores: torch.Tensor, share: float) -> torch.Tensor:
        """Return the probability of each class, mixed of the label and the teacher's sigmoid."""
        return share * targets + (1.0 - share) * scores.float().sigmoid()

    def decode(self, logits: np.ndarray) -> list[str]:
        """Return the classes whose probability is at least their threshold, sorted by name."""
        return self._above_thresholds(self.confidence(logits, ()))

    def decode_all(self, logits: Logits) -> list[list[str]]:
        """Return the classes of each text, see `decode`."""
        return [self._above_thresholds(scores) for scores in self.confidence_all(logits, [()] * len(logits))]

    def _above_thresholds(self, scores: Mapping[str, float]) -> list[str]:
        return sorted(name for name, score in scores.items() if score >= self.thresholds[name])

    def confidence(self, logits: np.ndarray, label: Sequence[str]) -> dict[str, float]:
        """Return the probability of every class by name."""
        return dict(zip(self.labels, sigmoid(logits).tolist(), strict=True))

    def confidence_all(self, logits: Logits, labels: Sequence[Sequence[str]]) -> list[dict[str, float]]:
        """Return the probability of every class by name for each text."""
        return [dict(zip(self.labels, scores, strict=True)) for scores in sigmoid(np.asarray(logits)).tolist()]

    def _answers(self, logits: np.ndarray, top_k: TopK) -> list[list[dict[str, Any]]]:
        rankings = _ranked(self.labels, sigmoid(logits), None if top_k == PREDICTED else top_k)
        if top_k != PREDICTED:
            return rankings
        return [
            [entry for entry in ranking if entry["score"] >= self.thresholds[entry["label"]]] for ranking in rankings
        ]


class NumberPerText(TextKind):
    """A number per text or pair of texts.

    The layers of a head learn the standardised number (x - mean) / sd, so that the loss of a task does not depend on
    the unit of its numbers. Logits are in that unit.

    Args:
        name: the task's name.
        labels: always empty.
        mean: the mean of the numbers in the training rows.
        sd: their standard deviation, above 0; None for a loss of the numbers as they are.
    """

    problem_type = "regression"
    label_feature = Feature("float64")
    target_feature = Feature("float32")
    has_label_space = False
    display = "number"
    metric = "correlation"
    primary_score = "pearson"

    def __init__(
        self, name: str, labels: Sequence[str] = (), *, mean: float | None = None, sd: float | None = None
    ) -> None:
        super().__init__(name, labels)
        self.mean, self.sd = mean, sd

    def check(self, value: Any) -> float:
        """Return the finite number as a float."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not -math.inf < value < math.inf:
            raise ValueError(f"expected a finite number; found {value!r:.80}")
        check_fits_float32([value])
        return float(value)

    def numbers_in(self, label: float) -> Iterable[float]:
        """Return the number."""
        return [label]

    def target_of(self, label: float) -> float:
        """Return the number unchanged."""
        return label

    @property
    def scale(self) -> tuple[float, float] | None:
        """Standard deviation and mean of the training rows; None without them."""
        return None if self.mean is None or self.sd is None else (self.sd, self.mean)

    def loss_sum(
        self,
        logits: torch.Tensor,
        targets: torch.Tensor,
        weights: torch.Tensor | None = None,
        *,
        label_smoothing: float = 0.0,
    ) -> torch.Tensor:
        """Return the summed squared error, of standardised numbers if the kind has an `sd`."""
        # Imported here, since this module must not import torch.
        from .unit_losses_multitask import squared_error_sum

        outputs = logits.squeeze(-1)
        if self.scale is not None:
            factor, offset = self.scale
            outputs, targets = ((each.float() - offset) / factor for each in (outputs, targets))
        return squared_error_sum(outputs, targets, weights)

    def mixed_targets(self, targets: torch.Tensor, scores: torch.Tensor, share: float) -> torch.Tensor:
        """Return numbers in the unit of the labels, mixed of the label and the teacher's number."""
        return share * targets + (1.0 - share) * scores.float().squeeze(-1)

    def decode(self, logits: np.ndarray) -> float:
        """Return the only logit, which is the number."""
        return float(logits[0])

    def answer(self, logits: np.ndarray, words: Sequence[Word], text: str, top_k: TopK) -> list[dict[str, Any]]:
        """Return `[{"label": name of the task, "score": number}]`."""
        return [{"label": self.name, "score": float(logits[0])}]

    def shown(self, entry: Mapping[str, Any]) -> str:
        """Return the number with four decimals."""
        return f"{entry['score']:.4f}"


def check_fits_float32(numbers: Iterable[float | None]) -> None:
    """Check that no number is infinite in float32, the type of targets in a batch.

    Args:
        numbers: the numbers; None and NaN stand for missing numbers.

    Raises:
        ValueError: if a number is too large.
    """
    for number in numbers:
        if number is not None and abs(number) > LARGEST_NUMBER:
            raise ValueError(
                f"expected numbers of at most {LARGEST_NUMBER:.3g}, the limit of float32; found {number!r:.80}"
            )


def _ranked(labels: Sequence[str], scores: np.ndarray, count: int | None) -> list[list[dict[str, Any]]]:
    """Return the best classes of each text, best first; equal scores keep the order of the labels.

    Args:
        labels: the classes.
        scores: shape (texts, classes).
        count: the number of classes; None for all.
    """
    ranking = np.argsort(-scores, axis=-1, kind="stable")[:, :count]
    chosen = np.take_along_axis(scores, ranking, axis=-1).tolist()
    return [
        [{"label": labels[index], "score": score} for index, score in zip(*best, strict=True)]
        for best in zip(ranking.tolist(), chosen, strict=True)
    ]
