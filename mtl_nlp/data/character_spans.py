"""Character spans of a text as spans of its words, such as those of doccano, Label Studio and Prodigy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mtl_nlp.modeling.spans_multitask import Span
from mtl_nlp.modeling.words_multitask import Word

_SHAPES = "`{start, end, label}`, `[start, end, label]` or `{value: {start, end, labels}}`"


class CharacterSpan(NamedTuple):
    """The characters from `start` to `end` (exclusive) of a text, with a label as it stands in the data."""

    start: int
    end: int
    label: Any


@dataclass
class AlignedSpans:
    """Spans of words that do not overlap, in order, and the numbers of spans that did not fit the words.

    Attributes:
        spans: the spans.
        misaligned: number of spans that cut a word and were dropped.
        moved: number of spans that cut a word and were moved to borders of words.
        overlapping: number of spans that were dropped since they overlap a longer span.
    """

    spans: list[Span] = field(default_factory=list)
    misaligned: int = 0
    moved: int = 0
    overlapping: int = 0


def read_spans(value: Any, text: str) -> list[CharacterSpan]:
    """Return the spans of a text, without white space at their ends.

    Args:
        value: a list of `{start, end, label}` (Prodigy), of `[start, end, label]` (doccano), or of `{start, end,
            labels}`, also inside of `value` (Label Studio), where each of the labels makes a span; or a dict of lists,
            which is a list of dicts in columns.
        text: the text.

    Raises:
        ValueError: if the value has a different form, or a span is not inside the text.
    """
    if isinstance(value, Mapping) and all(isinstance(column, list) for column in value.values()):
        value = [dict(zip(value, entry, strict=True)) for entry in zip(*value.values(), strict=True)]
    if not isinstance(value, list):
        raise ValueError(f"expected a list of spans, each {_SHAPES}; found {value!r:.80}")
    found = []
    for entry in value:
        start, end, labels = _parts_of(entry)
        if not 0 <= start < end <= len(text):
            raise ValueError(
                f"expected spans inside the text, which has {len(text)} characters; found {start} to {end}"
            )
        inside = text[start:end]
        start, end = start + len(inside) - len(inside.lstrip()), end - len(inside) + len(inside.rstrip())
        found += [CharacterSpan(start, end, label) for label in labels]
    return found


def _parts_of(entry: Any) -> tuple[int, int, list[Any]]:
    """Return the start, the end and the labels of one span."""
    offsets, labels = [], None
    if isinstance(entry, Mapping):
        inner = entry["value"] if isinstance(entry.get("value"), Mapping) else entry
        offsets = [inner.get("start"), inner.get("end")]
        labels = inner.get("labels") if inner.get("label") is None else [inner["label"]]
    elif isinstance(entry, list) and len(entry) == 3:
        offsets, labels = entry[:2], entry[2:]
    # pandas turns whole numbers into floats.
    whole = [int(offset) for offset in offsets if isinstance(offset, int | float) and offset == offset // 1]
    if len(whole) != 2 or not isinstance(labels, list) or not labels or None in labels:
        raise ValueError(f"expected spans of the form {_SHAPES}; found {entry!r:.80}")
    return whole[0], whole[1], labels


def align_spans(spans: Iterable[CharacterSpan], words: Sequence[Word], mode: str) -> AlignedSpans:
    """Return character spans as spans of words.

    A span cuts a word if its start or end is inside the word. The longest of several spans that overlap stays, and the
    first of several longest ones, as in spaCy's `filter_spans`.

    Args:
        spans: the character spans, with strings as labels.
        words: the words of the text, in order.
        mode: the treatment of a span that cuts a word, see `LabelSource.alignment_mode`.
    """
    aligned = AlignedSpans()
    found: list[Span] = []
    for start, end, label in spans:
        touched = [index for index, word in enumerate(words) if word.start < end and word.end > start]
        fits = bool(touched) and words[touched[0]].start == start and words[touched[-1]].end == end
        if not fits and mode == "contract":
            touched = [index for index in touched if start <= words[index].start and words[index].end <= end]
        if not touched or (not fits and mode == "strict"):
            aligned.misaligned += 1
            continue
        aligned.moved += not fits
        found.append(Span(label, touched[0], touched[-1] + 1))
    taken = [False] * len(words)
    for span in sorted(dict.fromkeys(found), key=lambda span: (span.start - span.end, span.start)):
        if any(taken[span.start : span.end]):
            aligned.overlapping += 1
            continue
        taken[span.start : span.end] = [True] * (span.end - span.start)
        aligned.spans.append(span)
    aligned.spans.sort(key=lambda span: span.start)
    return aligned
