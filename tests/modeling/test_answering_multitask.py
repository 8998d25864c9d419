"""The answers for the texts of a batch are exactly the answers for each text alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from mtl_nlp.modeling.answering_multitask import PREDICTED, arranged
from mtl_nlp.modeling.ragged_multitask import Ragged
from mtl_nlp.modeling.spans_multitask import SCHEMES, scheme_labels
from mtl_nlp.modeling.text_kinds_multitask import ClassesPerText, ClassPerText, NumberPerText
from mtl_nlp.modeling.word_kinds_multitask import ClassPerWord, SpansOfWords
from mtl_nlp.modeling.words_multitask import Word

CLASSES = [f"c{number}" for number in range(19)]
KINDS = [
    ClassPerWord("t", CLASSES),
    *(SpansOfWords("t", scheme_labels(["B-A", "B-C", "B-D"], scheme), scheme) for scheme in SCHEMES),
    ClassPerText("t", CLASSES),
    ClassesPerText("t", CLASSES, thresholds={"c3": 0.9}),
    NumberPerText("t"),
]
SIZES = [3, 0, 41, 1, 1, 17, 0, 2] * 4


def logits_of(kind: Any, rng: np.random.Generator) -> Sequence[np.ndarray]:
    """Return the logits of texts, of which some are equal or extreme."""
    outputs = len(kind.output_names)
    if not kind.labels_words:
        return (rng.normal(size=(len(SIZES), outputs)) * rng.choice([0.0, 1.0, 90.0])).astype(np.float32)
    values = (rng.normal(size=(sum(SIZES), outputs)) * 4).round(1).astype(np.float32)
    return Ragged(values, np.cumsum([0, *SIZES]))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{type(kind).__name__} {kind.span_scheme}")
def test_a_batch_gives_the_answers_of_single_texts(kind):
    rng = np.random.default_rng(0)
    for _ in range(5):
        logits = logits_of(kind, rng)
        labels = kind.decode_all(logits)
        assert labels == [kind.decode(each) for each in logits]
        assert labels == kind.decode_all(list(logits))
        scores = [kind.confidence(each, label) for each, label in zip(logits, labels, strict=True)]
        assert repr(kind.confidence_all(logits, labels)) == repr(scores)
        text = "ab " * max(SIZES)
        words = [[Word("ab", 3 * place, 3 * place + 2) for place in range(size)] for size in SIZES]
        for top_k in (PREDICTED, 1, 3, None):
            single = [kind.answer(each, found, text, top_k) for each, found in zip(logits, words, strict=True)]
            assert repr(kind.answer_all(logits, words, [text] * len(SIZES), top_k)) == repr(single)


@pytest.mark.parametrize("kind", KINDS[:1] + KINDS[-3:-2])
def test_windows_of_several_batches_are_cut_and_joined_as_alone(kind):
    rng = np.random.default_rng(1)
    positions = [[1, 3], [], [2], [1, 2, 4]]
    batches = [rng.normal(size=(2, *kind.logits_shape(5))).astype(np.float32) for _ in range(2)]
    rows = [row for batch in batches for row in batch]
    parts = [kind.cut_all(batch, Ragged.of(positions[2 * n : 2 * n + 2])) for n, batch in enumerate(batches)]
    order, counts = [3, 0, 2, 1], np.array([2, 1, 1])
    windows = arranged(parts, np.array(order))
    alone = [kind.cut(rows[number], positions[number]) for number in order]
    for found, expected in zip(windows, alone, strict=True):
        assert np.array_equal(found, expected)
    joined = [kind.join(alone[:2]), kind.join(alone[2:3]), kind.join(alone[3:])]
    for found, expected in zip(kind.join_all(windows, counts), joined, strict=True):
        assert np.array_equal(found, expected)


def test_a_kind_that_redefines_a_step_for_one_text_has_the_step_for_a_batch():
    class Second(ClassPerWord):
        def decode(self, logits: np.ndarray) -> list[str]:
            return [*reversed(super().decode(logits))]

        def cut(self, logits: np.ndarray, positions: Sequence[int]) -> np.ndarray:
            return -super().cut(logits, positions)

    class Sure(ClassPerText):
        def confidence(self, logits: np.ndarray, label: str) -> float:
            return 1.0

    class Shy(ClassesPerText):
        def answer(self, logits: np.ndarray, words: Sequence[Word], text: str, top_k: Any) -> list[dict[str, Any]]:
            return super().answer(logits, words, text, top_k)[:1]

    logits = np.array([[0.0, 1.0], [3.0, 1.0]], dtype=np.float32)
    kind = Second("t", ["a", "b"])
    assert kind.decode(logits) == ["a", "b"]
    assert kind.decode_all([logits, logits[:1]]) == [["a", "b"], ["b"]]
    words = [Word("x", 0, 1), Word("y", 2, 3)]
    (found,) = kind.answer_all([logits], [words], ["x y"], PREDICTED)
    assert found == kind.answer(logits, words, "x y", PREDICTED)
    windows = kind.cut_all(logits[None], Ragged.of([[1]]))
    assert kind.join_all(arranged([windows], np.array([0])), np.array([1]))[0].tolist() == [[-3.0, -1.0]]
    assert Sure("t", ["a", "b"]).confidence_all(logits, ["b", "a"]) == [1.0, 1.0]
    shy = Shy("t", ["a", "b"])
    assert [len(each) for each in shy.answer_all(logits, [[], []], ["", ""], None)] == [1, 1]
    assert type(shy).decode_all is ClassesPerText.decode_all
