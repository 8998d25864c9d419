"""Spans and tags: equality with seqeval, round trips, repair and legal decoding."""

import itertools
import random

import numpy as np
import pytest
from seqeval.metrics.sequence_labeling import get_entities

from mtl_nlp.modeling import spans_multitask
from mtl_nlp.modeling.spans_multitask import (
    SCHEMES,
    Span,
    SpanConstraints,
    as_bioes,
    is_legal,
    map_tag,
    repair_tags,
    scheme_labels,
    spans_from_tags,
    split_tag,
    tags_from_spans,
)


def random_tags(rng, prefixes, length):
    labels = ("PER", "LOC", "X-PER")
    return [rng.choice(["O", *(f"{p}-{rng.choice(labels)}" for p in prefixes)]) for _ in range(length)]


def random_spans(rng, length):
    spans, position = [], 0
    while position < length:
        end = min(position + rng.randint(1, 4), length)
        if rng.random() < 0.7:
            spans.append(Span(rng.choice(["PER", "LOC", "X-PER"]), position, end))
        position = end
    return spans


def legal(tags, scheme):
    return all(is_legal(a, b, scheme) for a, b in itertools.pairwise(["O", *tags, "O"]))


@pytest.mark.parametrize("prefixes", ["BI", "BIES", "I", "IES"])
def test_spans_are_read_as_seqeval_reads_them(prefixes):
    rng = random.Random(0)
    for _ in range(2000):
        tags = random_tags(rng, prefixes, rng.randint(0, 12))
        assert [(s.label, s.start, s.end - 1) for s in spans_from_tags(tags)] == get_entities(tags)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_span_tags_are_legal_and_round_trip(scheme):
    rng = random.Random(1)
    for _ in range(2000):
        length = rng.randint(0, 12)
        spans = random_spans(rng, length)
        tags = tags_from_spans(spans, length, scheme)
        assert legal(tags, scheme)
        assert spans_from_tags(tags) == spans


@pytest.mark.parametrize("scheme", SCHEMES)
def test_repaired_tags_are_legal_and_mean_the_same_spans(scheme):
    rng = random.Random(2)
    for _ in range(1000):
        tags = random_tags(rng, "BIES", rng.randint(0, 12))
        repaired = repair_tags(tags, scheme)
        assert legal(repaired, scheme)
        assert spans_from_tags(repaired) == spans_from_tags(tags)
        assert repair_tags(repaired, scheme) == repaired


def test_bilou_and_bmes_are_bioes_with_other_prefixes():
    spans = [Span("PER", 0, 3), Span("LOC", 3, 4)]
    assert tags_from_spans(spans, 5, "bilou") == ["B-PER", "I-PER", "L-PER", "U-LOC", "O"]
    assert tags_from_spans(spans, 5, "bmes") == ["B-PER", "M-PER", "E-PER", "S-LOC", "O"]
    for scheme in ("bilou", "bmes", "bioes"):
        assert as_bioes(tags_from_spans(spans, 5, scheme)) == tags_from_spans(spans, 5, "bioes")
    assert scheme_labels(["U-A"], "bilou") == ["O", "U-A", "B-A", "I-A", "L-A"]
    with pytest.raises(ValueError, match=r"Scheme bmes has only the prefixes B, M, E, S\. Found the tag 'I-A'"):
        scheme_labels(["I-A"], "bmes")


def test_new_names_of_tags_are_those_of_the_complete_tag_or_of_its_label():
    names = {"PERSON": "PER", "B-GPE": "B-LOC", "DATE": "O", "MISC": None}
    tags = ["B-PERSON", "I-PERSON", "B-GPE", "I-GPE", "B-DATE", "B-MISC", "O", "X"]
    renamed = ["B-PER", "I-PER", "B-LOC", "I-GPE", "O", None, "O", "X"]
    assert [map_tag(tag, names) for tag in tags] == renamed


def test_iob1_writes_b_only_between_touching_spans_of_one_label():
    spans = [Span("PER", 0, 2), Span("PER", 2, 3), Span("LOC", 3, 4), Span("X-LOC", 4, 5), Span("LOC", 5, 6)]
    assert tags_from_spans(spans, 7, "iob1") == ["I-PER", "I-PER", "B-PER", "I-LOC", "I-X-LOC", "I-LOC", "O"]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_decoding_equals_a_search_over_all_legal_sequences(scheme):
    labels = scheme_labels(["O", "B-A", "B-C"], scheme)
    constraints, rng = SpanConstraints(labels, scheme), np.random.default_rng(0)
    for length in (1, 2, 3):
        paths = [
            p for p in itertools.product(range(len(labels)), repeat=length) if legal([labels[i] for i in p], scheme)
        ]
        for _ in range(60):
            logits = rng.normal(size=(length, len(labels)))
            best = max(paths, key=lambda path: logits[range(length), path].sum())
            assert tuple(constraints.decode(logits)) == best


@pytest.mark.parametrize("scheme", SCHEMES)
def test_decoding_never_gives_an_illegal_sequence(scheme):
    labels = scheme_labels(["B-A", "B-C", "B-D"], scheme)
    constraints, rng = SpanConstraints(labels, scheme), np.random.default_rng(1)
    for _ in range(300):
        logits = rng.normal(size=(rng.integers(1, 15), len(labels))).astype(np.float32)
        assert legal([labels[index] for index in constraints.decode(logits)], scheme)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_legal_argmax_is_unchanged(scheme):
    labels = scheme_labels(["B-PER", "B-LOC", "B-X-PER"], scheme)
    constraints, rng = SpanConstraints(labels, scheme), random.Random(3)
    for _ in range(200):
        tags = tags_from_spans(random_spans(rng, 8), 8, scheme)
        best = np.array([labels.index(tag) for tag in tags])
        logits = np.random.default_rng(4).uniform(size=(8, len(labels)))
        logits[range(8), best] += 1
        assert constraints.decode(logits).tolist() == best.tolist()


def viterbi(constraints: SpanConstraints, logits: np.ndarray) -> list[int]:
    """Return the best legal tags of one text by the recursion over words, in plain Python."""
    size = len(constraints.start)
    scores = [float(logits[0, tag]) if constraints.start[tag] else -np.inf for tag in range(size)]
    before: list[list[int]] = []
    for row in logits[1:]:
        reached = [[scores[a] if constraints.transitions[a, b] else -np.inf for a in range(size)] for b in range(size)]
        before.append([column.index(max(column)) for column in reached])
        scores = [max(column) + float(row[tag]) for tag, column in enumerate(reached)]
    ends = [score if allowed else -np.inf for score, allowed in zip(scores, constraints.end, strict=True)]
    path = [ends.index(max(ends))]
    for column in reversed(before):
        path.append(column[path[-1]])
    return path[::-1]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("block", [2**20, 200, 1])
def test_texts_decoded_together_have_the_tags_of_each_text_alone(scheme, block, monkeypatch):
    monkeypatch.setattr(spans_multitask, "_BLOCK", block)
    labels = scheme_labels(["B-A", "B-C"], scheme)
    constraints, rng = SpanConstraints(labels, scheme), np.random.default_rng(2)
    sizes = np.array([0, 5, 1, 23, 1, 0, 9, 23, 2])
    for _ in range(5):
        logits = rng.normal(size=(sizes.sum(), len(labels))).round(1).astype(np.float32)  # with equal scores
        parts = np.split(logits, np.cumsum(sizes)[:-1])
        expected = [viterbi(constraints, part) if len(part) else [] for part in parts]
        assert constraints.decode(logits, sizes).tolist() == [tag for path in expected for tag in path]
        assert [constraints.decode(part).tolist() for part in parts] == expected


@pytest.mark.parametrize("scheme", SCHEMES)
def test_empty_logits_decode_to_no_tags(scheme):
    assert len(SpanConstraints(["O", "B-A", "I-A"], scheme).decode(np.zeros((0, 3)))) == 0


def test_tag_is_split_at_its_first_hyphen():
    assert [split_tag(tag) for tag in ("O", "B-PER", "I-a-b")] == [("O", ""), ("B", "PER"), ("I", "a-b")]


@pytest.mark.parametrize("tag", ["PER", "B-", "-PER", "X-PER", "", "b-PER"])
def test_malformed_tags_are_refused(tag):
    with pytest.raises(ValueError, match=r"A span tag should be O, or B-, .* or M- followed by a label\. Found"):
        split_tag(tag)


def test_labels_of_a_different_scheme_are_refused():
    with pytest.raises(ValueError, match=r"Scheme iob2 has only the prefixes B, I\. Found the tag 'S-PER'"):
        scheme_labels(["O", "B-PER", "S-PER"], "iob2")
