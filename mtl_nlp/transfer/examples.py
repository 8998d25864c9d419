"""The texts that one side answers correctly and the other side does not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import numpy as np

from mtl_nlp.evaluation.predictions import Prediction
from mtl_nlp.messages import json_text
from mtl_nlp.modeling.tasks_multitask import Task
from mtl_nlp.transfer.resampling import Runs, texts_by_unit
from mtl_nlp.transfer.slices import absolute_error, decisions_of, is_number

MOST_EXAMPLES = 50
MOST_CHARACTERS = 400
MOST_WORDS = 12
"""The number of words with different answers that an example lists."""


@dataclass(frozen=True)
class Example:
    """A text that one side answers correctly and the other side does not; for numbers, with a smaller error.

    Attributes:
        dataset: the dataset of the text.
        row: its row.
        text: the text, cut to `MOST_CHARACTERS` characters around the first error.
        gold: the gold label; for tasks that label words, only the words that the wrong side has wrong.
        right: the answer of the side that is right, in the same form.
        wrong: the answer of the other side, in the same form.
        words: for tasks that label words, the words of these labels; else None.
        sure: how sure the wrong side was: the highest probability of a wrong decision, as a mean over its wrong runs;
            for numbers, the mean absolute error; None if there are no probabilities.
    """

    dataset: str
    row: int
    text: str
    gold: Any
    right: Any
    wrong: Any
    words: list[str] | None
    sure: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the example as plain data."""
        return asdict(self)


def examples(right: Runs, wrong: Runs, task: Task, most: int = MOST_EXAMPLES) -> tuple[list[Example], int]:
    """Return texts that one side answers correctly and the other side does not, the surest wrong answers first.

    A side is right about a text if more than half of its runs are, and wrong if less than half are; the answer of a
    side is that of most of its runs. For numbers, the texts are those with a larger mean absolute error on the wrong
    side, the largest errors first.

    Args:
        right: the runs of the side that is right.
        wrong: the runs of the other side, on the same texts.
        task: the task.
        most: the largest number of examples.

    Returns:
        The examples, and the number of all such texts.
    """
    by_run = [[texts_by_unit(run, task.name) for run in runs] for runs in (right, wrong)]
    found = []
    for unit in by_run[0][0]:
        ours, theirs = ([run[unit] for run in runs] for runs in by_run)
        sure = _sureness(ours, theirs)
        if sure is not None:
            found.append((-sure, unit, ours, theirs))
    found.sort(key=lambda entry: entry[:2])
    return [_example(ours, theirs, task) for _, _, ours, theirs in found[:most]], len(found)


def _sureness(ours: Sequence[Prediction], theirs: Sequence[Prediction]) -> float | None:
    """Return how sure the wrong side was, -1 if unknown, or None if the text is not an example."""
    if is_number(theirs[0].gold):
        errors = [fmean(absolute_error(text) for text in texts) for texts in (ours, theirs)]
        return errors[1] if errors[1] > errors[0] else None
    right, wrong = (2 * sum(text.prediction == text.gold for text in texts) for texts in (ours, theirs))
    if not (right > len(ours) and wrong < len(theirs)):
        return None
    highest = [
        max(scores)
        for text in theirs
        if (scores := [score for score, is_correct in decisions_of(text) if not is_correct])
    ]
    return fmean(highest) if highest else -1.0


def _example(ours: Sequence[Prediction], theirs: Sequence[Prediction], task: Task) -> Example:
    sure = _sureness(ours, theirs)
    text, right, wrong = theirs[0], _usual(ours), _usual(theirs)
    if not is_number(text.gold):  # a few runs of a side may differ from the rest
        right, wrong = text.gold, _usual([each for each in theirs if each.prediction != each.gold])
    gold, words, start = text.gold, None, 0
    if task.kind.labels_words and text.tokens is not None:
        places = [i for i, labels in enumerate(zip(wrong, gold, strict=True)) if labels[0] != labels[1]][:MOST_WORDS]
        gold, right, wrong = ([labels[place] for place in places] for labels in (gold, right, wrong))
        words = [_cut(text.tokens[place], 0, 60) for place in places]
        start = sum(len(token) + 1 for token in text.tokens[: places[0]]) if places else 0
    return Example(
        text.dataset,
        text.row,
        _cut(" ".join(text.tokens), start) if text.tokens is not None else _cut_pair(text),
        gold,
        right,
        wrong,
        words,
        sure if sure is not None and sure >= 0 else None,
    )


def _usual(texts: Sequence[Prediction]) -> Any:
    """Return the answer of most runs, the first if several are equally frequent; for numbers, the mean."""
    if is_number(texts[0].prediction):
        return np.mean([text.prediction for text in texts], axis=0).tolist()
    answers = [json_text(text.prediction) for text in texts]
    (usual, _), *_ = Counter(answers).most_common(1)
    return texts[answers.index(usual)].prediction


def _cut_pair(text: Prediction) -> str:
    if text.text_pair is None:
        return _cut(text.text or "", 0)
    return " | ".join(_cut(part or "", 0, MOST_CHARACTERS // 2 - 2) for part in (text.text, text.text_pair))


def _cut(text: str, start: int, most: int = MOST_CHARACTERS) -> str:
    """Return at most `most` characters of a text, in whose middle lies the character at `start` if it is not near."""
    if len(text) <= most:
        return text
    first = min(max(0, start - most // 2), len(text) - most)
    inner = text[first + (first > 0) : first + most - (first + most < len(text))]
    return f"{'…' * (first > 0)}{inner}{'…' * (first + most < len(text))}"
