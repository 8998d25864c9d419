"""Span scores over arrays equal those of seqeval."""

from __future__ import annotations

import random

import pytest
from seqeval.metrics.v1 import precision_recall_fscore_support
from seqeval.scheme import IOB1, IOB2, IOBES, Entities

from mtl_nlp.evaluation.spans import Spans, span_scores
from mtl_nlp.modeling.spans_multitask import as_bioes

PREFIXES = {IOB2: ("BI",), IOB1: ("BI",), IOBES: ("BIES", "BILU", "BMES")}


def random_texts(rng: random.Random, prefixes: str, count: int) -> list[list[str]]:
    """Return tags at random, which are mostly illegal sequences, and some empty texts."""
    tags = ["O", "O", *(f"{prefix}-{label}" for prefix in prefixes for label in ("A", "B", "B-C"))]
    return [[rng.choice(tags) for _ in range(rng.randrange(8))] for _ in range(count)]


@pytest.mark.parametrize("scheme", PREFIXES)
@pytest.mark.parametrize("average", ["micro", "macro", "weighted", None])
def test_scores_are_exactly_those_of_seqeval(scheme, average):
    rng = random.Random(0)
    for prefixes in PREFIXES[scheme]:
        for count in (1, 2, 5, 200):
            references = random_texts(rng, prefixes, count)
            predictions = [[rng.choice([tag, tag, "O", f"{prefixes[0]}-A"]) for tag in text] for text in references]
            sides = [[as_bioes(text) for text in side] for side in (references, predictions)]
            if average != "micro" and not any(Entities(side, scheme).unique_tags for side in sides):
                continue
            expected = precision_recall_fscore_support(*sides, average=average, scheme=scheme, zero_division=0)
            found = span_scores(predictions, references, scheme, average)
            assert [repr(each) for each in found] == [repr(each) for each in expected]


def test_spans_have_labels_and_borders_and_no_span_crosses_two_texts():
    spans = Spans([["B-A", "I-A"], ["I-A"], [], ["B-A"]], IOB2)
    assert spans.unique_tags == {"A"}
    assert len(spans.filter("A")) == 2
    assert Spans([], IOB2).unique_tags == Spans([[]], IOB2).unique_tags == set()
    other = Spans([["B-A", "O"], ["O"], [], ["B-A"]], IOB2)
    assert len(spans.filter("A") & other.filter("A")) == 1


def test_tags_of_a_different_scheme_are_refused():
    with pytest.raises(ValueError, match="Invalid token is found: S-A"):
        Spans([["S-A"]], IOB2)
