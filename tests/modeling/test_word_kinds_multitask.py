"""Kinds of word tasks: the text shown for an answer, and repairs of tags."""

from __future__ import annotations

import numpy as np
import pytest

from mtl_nlp.modeling.word_kinds_multitask import ClassPerWord, SpansOfWords
from mtl_nlp.modeling.words_multitask import split_words

WORDS = split_words("Ada Lovelace lives in Paris")


def span(label: str, start: int, end: int) -> dict:
    """Return an entry about the words `start` to `end`, exclusive."""
    return {"entity_group": label, "start": WORDS[start].start, "end": WORDS[end - 1].end}


def test_column_file_has_the_class_of_each_word_and_a_placeholder_for_truncated_words():
    entries = [{"index": 1, "label": "NOUN"}, {"index": 3, "label": "VERB"}]
    assert ClassPerWord("pos", ["NOUN", "VERB"]).as_strings(entries, WORDS) == ["NOUN", "_", "VERB", "_", "_"]


@pytest.mark.parametrize(
    ("scheme", "tags"),
    [
        ("iob2", ["B-PER", "I-PER", "O", "O", "B-LOC"]),
        ("iob1", ["I-PER", "I-PER", "O", "O", "I-LOC"]),
        ("bioes", ["B-PER", "E-PER", "O", "O", "S-LOC"]),
    ],
)
def test_column_file_has_the_tags_of_the_spans(scheme, tags):
    kind = SpansOfWords("ner", tags, scheme)
    assert kind.as_strings([span("PER", 0, 2), span("LOC", 4, 5)], WORDS) == tags
    assert kind.as_strings([], WORDS) == ["O"] * 5


def test_confidence_is_the_probability_of_each_word_s_predicted_label():
    logits = np.log(np.array([[0.1, 0.7, 0.2], [0.2, 0.2, 0.6], [0.5, 0.2, 0.3]], dtype=np.float32))
    kind = ClassPerWord("pos", ["A", "B", "C"])
    assert kind.confidence(logits, kind.decode(logits)) == pytest.approx([0.7, 0.6, 0.5])
    assert kind.confidence(logits[:0], []) == []
    spans = SpansOfWords(
        "ner", ["I-X", "B-X", "O"], "iob2"
    )  # the first tag cannot be I-X, so the best is not always taken
    logits = np.log(np.array([[0.6, 0.3, 0.1], [0.6, 0.1, 0.3]], dtype=np.float32))
    assert spans.decode(logits) == ["B-X", "I-X"]
    assert spans.confidence(logits, ["B-X", "I-X"]) == pytest.approx([0.3, 0.6])


def test_metric_of_spans_follows_the_scheme():
    assert {scheme: SpansOfWords("ner", [], scheme).metric for scheme in ("iob2", "bioes")} == {
        "iob2": "span_f1_iob2",
        "bioes": "span_f1_bioes",
    }
    assert ClassPerWord("pos").metric == "accuracy"


def test_illegal_tags_are_repaired_and_counted():
    kind = SpansOfWords("ner", [], "iob2")
    given = ["O", "I-PER", "I-PER", "I-LOC"]
    canonical = kind.check(given)
    assert canonical == ["O", "B-PER", "I-PER", "B-LOC"]
    assert kind.count_repairs(given, canonical) == 2


def test_marks_have_the_classes_of_words_and_of_spans():
    assert ClassPerWord("pos", ["NOUN", "VERB"]).mark_names == ("NOUN", "VERB")
    kind = SpansOfWords("ner", ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"], "iob2")
    assert kind.mark_names == ("PER", "LOC")
    assert kind.shown(span("PER", 0, 2)) == "PER"
