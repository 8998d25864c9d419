"""The texts of a task across runs, and scores of bootstrap resamples of these texts."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mtl_nlp.errors import DataError
from mtl_nlp.evaluation.predictions import Prediction
from mtl_nlp.messages import one_line
from mtl_nlp.modeling.tasks_multitask import Task
from mtl_nlp.transfer.sufficient import TextScores, text_scores

RESAMPLES = 2000
"""The number of bootstrap resamples for scores with sufficient statistics."""
SLOW_RESAMPLES = 200
"""The number of bootstrap resamples for other scores. Efron & Tibshirani (1993, §6.4): 200 suffice for a variance."""
_CHUNK = 4_000_000
"""The number of counts in memory at a time."""

Runs = Sequence[Sequence[Prediction]]
"""The predictions of one task by each run of a side."""
Unit = tuple[str, int]
"""A text: its dataset and row. All windows of a long text are one unit."""


@dataclass(frozen=True)
class AlignedRuns:
    """The runs of both sides on the same texts in the same order.

    Attributes:
        units: the texts, sorted.
        scores: the primary score of each run as a function of the counts of texts, side A before side B.
        runs: the number of runs of side A and of side B.
    """

    units: list[Unit]
    scores: list[TextScores]
    runs: tuple[int, int]

    @property
    def is_fast(self) -> bool:
        """Whether the scores of many resamples cost little."""
        return all(score.is_fast for score in self.scores)

    def observed(self) -> np.ndarray:
        """Return the score of each run on all texts, shape (runs,)."""
        once = np.ones((1, len(self.units)))
        return np.array([score.of(once)[0] for score in self.scores])

    def resampled(self, counts: np.ndarray) -> np.ndarray:
        """Return the score of each run on each resample, shape (B, runs), from counts of shape (B, texts)."""
        return np.stack([score.of(counts) for score in self.scores], axis=1)


def align_runs(a: Runs, b: Runs, task: Task) -> AlignedRuns:
    """Match the texts of all runs of two sides by dataset and row.

    Raises:
        DataError: if a side has no run, a run has a text twice or none, or two runs differ in their texts or gold
            labels, or a label does not fit the task.
    """
    if not a or not b:
        raise DataError(f"Task {task.name!r}: each side of a comparison should have at least one run. Found none.")
    by_run = [texts_by_unit(run, task.name) for run in (*a, *b)]
    first = by_run[0]
    for texts in by_run[1:]:
        _check_same_texts(first, texts, task.name)
    units = sorted(first)
    gold = [first[unit].gold for unit in units]
    kind = task.kind
    try:
        for texts in by_run:
            _check_labels(texts, task)
        scores = [
            text_scores(kind.metric, kind.primary_score, [texts[unit].prediction for unit in units], gold)
            for texts in by_run
        ]
    except DataError:
        raise
    except (ValueError, TypeError) as error:  # such as a tag of a different scheme in a file of predictions
        raise DataError(
            f"Task {task.name!r}: predictions and gold labels should be labels of a {task.type} task. {one_line(error)}"
        ) from error
    return AlignedRuns(units, scores, (len(a), len(b)))


def texts_by_unit(run: Sequence[Prediction], task: str) -> dict[Unit, Prediction]:
    """Return the predictions of one run by text.

    Raises:
        DataError: if there are none, or two for the same text.
    """
    texts: dict[Unit, Prediction] = {}
    for prediction in run:
        unit = (prediction.dataset, prediction.row)
        if unit in texts:
            raise DataError(f"Task {task!r}: each run should have one prediction per text. Found two of {_name(unit)}.")
        texts[unit] = prediction
    if not texts:
        raise DataError(f"Task {task!r}: each run should have at least one labelled text. Found none.")
    return texts


def _check_same_texts(first: Mapping[Unit, Prediction], other: Mapping[Unit, Prediction], task: str) -> None:
    rule = f"Task {task!r}: all runs should be scored on the same texts and gold labels."
    if alone := first.keys() ^ other.keys():
        raise DataError(f"{rule} Found {len(alone)} texts in one run only, such as {_name(min(alone))}.")
    for unit, text in first.items():
        same = other[unit]
        if (text.tokens, text.text, text.text_pair) != (same.tokens, same.text, same.text_pair):
            raise DataError(f"{rule} Found two different texts for {_name(unit)}. Evaluate all runs on the same data.")
        if text.gold != same.gold:
            raise DataError(
                f"{rule} Found {text.gold!r:.80} and {same.gold!r:.80} for {_name(unit)}. Evaluate all runs on the "
                f"same data."
            )


def _check_labels(texts: Mapping[Unit, Prediction], task: Task) -> None:
    """Check the labels of a run, since a file of predictions may come from a different program.

    Raises:
        DataError: if a text of a task that labels words does not have one label, score and so on per word.
        ValueError: if a label of a task that labels texts is not in canonical form.
    """
    kind = task.kind
    for unit, text in texts.items():
        if kind.labels_words:
            for name, value in (("prediction", text.prediction), ("tokens", text.tokens), ("seen", text.seen)):
                _check_words(text.gold, name, value, f"Task {task.name!r}, {_name(unit)}")
            if isinstance(text.score, list):
                _check_words(text.gold, "score", text.score, f"Task {task.name!r}, {_name(unit)}")
        elif kind.has_label_space and kind.check(text.prediction) != text.prediction:
            raise ValueError(
                f"expected {kind.check(text.prediction)!r:.80} for {_name(unit)}; found {text.prediction!r:.80}"
            )


def _check_words(gold: Any, name: str, value: Any, place: str) -> None:
    if not isinstance(gold, list) or (value is not None and not isinstance(value, list)):
        raise DataError(f"{place}: `gold` and `{name}` should be lists with one entry per word. Found {value!r:.80}.")
    if value is not None and len(value) != len(gold):
        raise DataError(
            f"{place}: `{name}` should have one entry per gold label. Found {len(value)} for {len(gold)} gold labels."
        )


def _name(unit: Unit) -> str:
    return f"dataset {unit[0]!r}, row {unit[1]}"


def draw_counts(units: Sequence[Unit], resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Draw bootstrap resamples of texts as counts, in chunks of bounded memory.

    The sizes of the datasets are fixed, so texts are drawn within each dataset. `scipy.stats.bootstrap` passes the
    resampled observations themselves to the statistic and keeps all of them; counts make the scores of all runs on
    the same resamples a product of matrices.

    Args:
        units: the texts, sorted.
        resamples: B, the number of resamples.
        seed: the seed. Equal texts, B and seed give equal counts.

    Yields:
        Counts, shape (b, texts), whose b add up to B.
    """
    datasets = [dataset for dataset, _ in units]
    bounds = [(name, datasets.index(name), datasets.count(name)) for name in dict.fromkeys(datasets)]
    generators = {name: np.random.default_rng([seed, zlib.crc32(name.encode())]) for name, _, _ in bounds}
    chunk = max(1, _CHUNK // len(units))
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        counts = np.empty((rows, len(units)))
        for name, first, size in bounds:
            # Equal to a multinomial distribution, and several times as fast as numpy's for many texts.
            drawn = generators[name].integers(size, size=(rows, size)) + size * np.arange(rows)[:, None]
            counts[:, first : first + size] = np.bincount(drawn.ravel(), minlength=rows * size).reshape(rows, size)
        yield counts
