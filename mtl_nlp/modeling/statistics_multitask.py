"""Statistics of the training labels of a task, from which the task learns weights of classes or a scale of numbers.

This module does not import torch, see `tasks_multitask`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

import numpy as np

from .label_kinds_multitask import LabelKind

_EPSILON: Final = float(np.finfo(np.float32).eps)
_SMALLEST: Final = float(np.finfo(np.float32).tiny)


class LabelStatistics:
    """Counts of the label names, and the mean and deviation of the numbers, in the labels of training rows.

    Numbers are added by the formula of Welford (1962), so that rows can be read one by one.

    Attributes:
        rows: number of labels.
        names: number of occurrences of each label name.
        numbers: number of numbers.
        mean: mean of the numbers.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.names: Counter[str] = Counter()
        self.numbers = 0
        self.mean = 0.0
        self._squares = 0.0

    def add(self, kind: LabelKind, labels: Iterable[Any]) -> LabelStatistics:
        """Add canonical labels of a kind, without those that are None, and return the statistics."""
        for label in labels:
            if label is None:
                continue
            self.rows += 1
            self.names.update(kind.names_in(label))
            for number in kind.numbers_in(label):
                self.numbers += 1
                distance = number - self.mean
                self.mean += distance / self.numbers
                self._squares += distance * (number - self.mean)
        return self

    def __add__(self, other: LabelStatistics) -> LabelStatistics:
        """Return the statistics of the labels of both operands, by the formula of Chan et al. (1979)."""
        total = LabelStatistics()
        total.rows, total.names = self.rows + other.rows, self.names + other.names
        total.numbers = self.numbers + other.numbers
        if total.numbers:
            distance, share = other.mean - self.mean, other.numbers / total.numbers
            total.mean = self.mean + distance * share
            total._squares = self._squares + other._squares + distance * distance * self.numbers * share
        return total

    @property
    def sd(self) -> float:
        """The standard deviation of the numbers; 1 for numbers that are equal in float32, the type of targets."""
        deviation = math.sqrt(self._squares / self.numbers) if self.numbers else 0.0
        return deviation if deviation > max(_EPSILON * abs(self.mean), _SMALLEST) else 1.0

    def class_weights(self, labels: Iterable[str]) -> dict[str, float]:
        """Return the weight n / (C · n_c) of each class c that was found, as `balanced` in scikit-learn.

        The mean weight of the units is 1.

        Args:
            labels: the label space; other names do not count.
        """
        counts = self._counts(labels)
        total = sum(counts.values())
        return {label: total / (len(counts) * count) for label, count in counts.items()}

    def pos_weight(self, labels: Iterable[str]) -> dict[str, float]:
        """Return the number of labels without each class, divided by the number of labels with the class.

        A class in every label has no entry, and neither has a class in no label.

        Args:
            labels: the label space.
        """
        counts = self._counts(labels)
        return {label: (self.rows - count) / count for label, count in counts.items() if count < self.rows}

    def _counts(self, labels: Iterable[str]) -> dict[str, int]:
        """Return the number of occurrences of the labels that were found."""
        return {label: self.names[label] for label in labels if self.names[label]}
