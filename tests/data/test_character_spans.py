from __future__ import annotations

import copy

import pytest
from datasets import Dataset

from mtl_nlp import TokenClassification, encode
from mtl_nlp.data.character_spans import CharacterSpan, align_spans, read_spans
from mtl_nlp.modeling.spans_multitask import Span
from mtl_nlp.modeling.words_multitask import split_words

TEXT = "Ada Lovelace lives in New York."


def spans_of(text: str, *parts: tuple[str, str]) -> list[CharacterSpan]:
    return [CharacterSpan(text.index(part), text.index(part) + len(part), label) for part, label in parts]


@pytest.mark.parametrize(
    "value",
    [
        [{"start": 0, "end": 12, "label": "PER"}, {"start": 22, "end": 30, "label": "LOC", "token_start": 4}],
        [[0, 12, "PER"], [22, 30, "LOC"]],
        [
            {"start": 0, "end": 12, "labels": ["PER"], "text": "Ada Lovelace"},
            {"start": 22, "end": 30, "labels": ["LOC"]},
        ],
        [{"value": {"start": 0, "end": 12, "labels": ["PER"]}}, {"value": {"start": 22, "end": 30, "labels": ["LOC"]}}],
        {"start": [0, 22], "end": [12, 30], "label": ["PER", "LOC"]},
        [{"start": 0.0, "end": 13, "label": "PER"}, {"start": 21, "end": 30, "label": "LOC", "value": None}],
    ],
    ids=["Prodigy", "doccano", "Label Studio, minimal", "Label Studio", "columns", "white space at the ends"],
)
def test_spans_of_the_annotation_tools_are_read_alike(value):
    assert read_spans(value, TEXT) == spans_of(TEXT, ("Ada Lovelace", "PER"), ("New York", "LOC"))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("PER", "expected a list of spans, each .*found 'PER'"),
        ([{"start": 0, "label": "PER"}], "expected spans of the form"),
        ([{"start": 0, "end": 3}], "expected spans of the form"),
        ([[0, 3]], "expected spans of the form"),
        (["B-PER"], "expected spans of the form"),
        ([[20, 32, "LOC"]], "expected spans inside the text, which has 31 characters; found 20 to 32"),
        ([[3, 3, "LOC"]], "found 3 to 3"),
    ],
)
def test_spans_of_a_different_form_or_outside_of_the_text_are_refused(value, message):
    with pytest.raises(ValueError, match=message):
        read_spans(value, TEXT)


@pytest.mark.parametrize(
    ("mode", "spans", "misaligned", "moved"),
    [
        ("strict", [], 3, 0),
        ("contract", [Span("PER", 0, 1)], 2, 1),
        ("expand", [Span("PER", 0, 2), Span("LOC", 4, 5)], 1, 2),
    ],
)
def test_spans_that_cut_a_word_are_dropped_or_moved_and_counted(mode, spans, misaligned, moved):
    cut = [*spans_of(TEXT, ("Ada Love", "PER"), ("ew", "LOC")), CharacterSpan(3, 4, "LOC")]
    aligned = align_spans(cut, split_words(TEXT), mode)
    assert (aligned.spans, aligned.misaligned, aligned.moved) == (spans, misaligned, moved)


def test_the_longest_of_overlapping_spans_stays_and_a_repeated_span_is_one_span():
    spans = spans_of(TEXT, ("Lovelace", "PER"), ("Ada Lovelace", "PER"), ("New York", "LOC"), ("New York", "LOC"))
    aligned = align_spans([*spans, *spans_of(TEXT, ("New York", "ORG"))], split_words(TEXT), "strict")
    assert aligned.spans == [Span("PER", 0, 2), Span("LOC", 4, 6)]
    assert (aligned.overlapping, aligned.misaligned, aligned.moved) == (2, 0, 0)


def test_tokens_that_were_added_to_the_tokenizer_are_words_of_a_text_with_spans(tokenizers):
    tokenizer = copy.deepcopy(tokenizers["wordpiece"])
    tokenizer.add_tokens(["[E1]"])
    rows = Dataset.from_dict({"text": ["[E1] Ada lives"], "spans": [[{"start": 5, "end": 8, "label": "PER"}]]})
    task = TokenClassification(name="ner", labels=["O", "B-PER", "I-PER"], scheme="iob2")
    encoded = encode(rows, inputs={"text": "text"}, labels={"ner": "spans"}, tasks=[task], tokenizer=tokenizer)
    assert list(encoded.references["ner"]) == [["O", "B-PER", "O"]]
    assert tokenizer.convert_tokens_to_ids("[E1]") in encoded.windows[0]["input_ids"]
