"""The part of a label kind that turns logits into predictions and answers, for one text and for the texts of a batch.

Each step has a method for one text, and a method with the suffix `_all` for the texts of a batch. A new kind defines
the methods for one text, which the others then call text by text. The built-in kinds also define the others with
operations on the arrays of a batch.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, Final, Literal

import numpy as np

from .ragged_multitask import Ragged
from .words_multitask import Word

PREDICTED: Final = "predicted"
"""The `top_k` for the predicted classes: the best class, or every class of a predicted set."""
TopK = int | Literal["predicted"] | None
"""Number of classes in an answer, `"predicted"` for the predicted classes, or None for all classes."""

Logits = Sequence[np.ndarray] | np.ndarray
"""The logits of windows or texts: a [`Ragged`] for words, one array with a row per text, or a list of arrays."""

_STEPS = (("cut", "join"), ("decode",), ("confidence",), ("answer",))
"""The steps; steps that are named together exchange values of one type."""


class Answering(abc.ABC):
    """The steps from the logits of a batch to answers. A subclass that defines a step for one text has both methods."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let the method for a batch call the method for one text if the class redefines only the latter."""
        super().__init_subclass__(**kwargs)
        depth: dict[str, int] = {}
        for number, base in enumerate(cls.__mro__):
            depth |= {name: number for name in vars(base) if name not in depth}
        for steps in _STEPS:
            if any(depth[step] < depth[f"{step}_all"] for step in steps):
                for step in steps:
                    setattr(cls, f"{step}_all", vars(Answering)[f"{step}_all"])

    @abc.abstractmethod
    def cut(self, logits: np.ndarray, positions: Sequence[int]) -> np.ndarray:
        """Return a copy of the logits that belong to one window, so that the batch can be freed.

        Args:
            logits: the logits of one row of a batch.
            positions: the positions of the first sub-words of the window's words.
        """

    def cut_all(self, logits: np.ndarray, positions: Ragged) -> Logits:
        """Return the logits of each window of a batch, see `cut`.

        Args:
            logits: the logits of all rows of a batch.
            positions: for each row, the positions of the first sub-words of the window's words.
        """
        return [self.cut(row, places.tolist()) for row, places in zip(logits, positions, strict=True)]

    @abc.abstractmethod
    def join(self, windows: Sequence[np.ndarray]) -> np.ndarray:
        """Return the logits of a text from the logits of its windows in order, each as returned by `cut`."""

    def join_all(self, windows: Logits, counts: np.ndarray) -> Logits:
        """Return the logits of each text, see `join`.

        Args:
            windows: the logits of the windows of all texts in order, as returned by `cut_all`.
            counts: the number of windows of each text, shape (texts,).
        """
        ends = np.cumsum(counts).tolist()
        return [self.join(list(windows[start:end])) for start, end in zip([0, *ends[:-1]], ends, strict=True)]

    @abc.abstractmethod
    def decode(self, logits: np.ndarray) -> Any:
        """Return the predicted label in canonical form.

        Args:
            logits: shape (words, outputs) for words, (outputs,) for texts.
        """

    def decode_all(self, logits: Logits) -> list[Any]:
        """Return the predicted label of each text.

        Args:
            logits: the logits of each text, as in `decode`: a [`Ragged`], one array for texts with one row each, or a
                list of arrays.
        """
        return [self.decode(each) for each in logits]

    def confidence(self, logits: np.ndarray, label: Any) -> Any:
        """Return the probability of a predicted label, or None for a kind that defines no probability.

        Args:
            logits: the logits, as in `decode`.
            label: the label that `decode` returns for the logits.

        Returns:
            A list with one number per word, one number per text, or the probability of every class by name.
        """
        return None

    def confidence_all(self, logits: Logits, labels: Sequence[Any]) -> list[Any]:
        """Return the probability of each text's label.

        Args:
            logits: the logits of each text, as in `decode_all`.
            labels: the labels that `decode_all` returns for the logits.
        """
        return [self.confidence(each, label) for each, label in zip(logits, labels, strict=True)]

    @abc.abstractmethod
    def answer(self, logits: np.ndarray, words: Sequence[Word], text: str, top_k: TopK) -> list[dict[str, Any]]:
        """Return the pipeline's answer, one dict per entry; entries about words have `start` and `end` in characters.

        Args:
            logits: the logits, as in `decode`.
            words: the words of the text.
            text: the text.
            top_k: the number of classes to show, see `TopK`.
        """

    def answer_all(
        self, logits: Logits, words: Sequence[Sequence[Word]], texts: Sequence[str], top_k: TopK
    ) -> list[list[dict[str, Any]]]:
        """Return the answer for each text.

        Args:
            logits: the logits of each text, as in `decode_all`.
            words: the words of each text.
            texts: the texts.
            top_k: the number of classes to show, see `TopK`.
        """
        return [self.answer(*each, top_k) for each in zip(logits, words, texts, strict=True)]


def arranged(parts: Sequence[Logits], order: np.ndarray) -> Logits:
    """Return the logits of windows from several batches in a given order.

    Args:
        parts: for each batch, the result of `Answering.cut_all`.
        order: indices of the windows, counted over all batches, shape (windows,).
    """
    if len(order) == 1:
        return parts[0]
    ragged = [part for part in parts if isinstance(part, Ragged)]
    if len(ragged) == len(parts):
        return Ragged.joined(ragged).take(order)
    arrays = [part for part in parts if isinstance(part, np.ndarray)]
    if len(arrays) == len(parts):
        return np.concatenate(arrays)[order]
    windows = [window for part in parts for window in part]
    return [windows[number] for number in order.tolist()]
