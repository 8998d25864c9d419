"""Spans of words and their tags: conversion, repair and constrained decoding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

SCHEMES = {"iob2": "BI", "iob1": "BI", "bioes": "BIES", "bilou": "BILU", "bmes": "BMES"}
"""The prefixes of each tagging scheme, without `O`: first and later words; or first, inner, last and only word."""

_MEANINGS = {"B": "B", "I": "I", "E": "E", "S": "S", "L": "E", "U": "S", "M": "I"}
"""The prefix of BIOES that has the meaning of each prefix, since no prefix has two meanings."""


class Span(NamedTuple):
    """The words from `start` to `end` (exclusive), with one label."""

    label: str
    start: int
    end: int


def split_tag(tag: str) -> tuple[str, str]:
    """Split a tag into its prefix in BIOES and its label: `"B-PER"` into `("B", "PER")`, `"O"` into `("O", "")`.

    The prefixes of the other schemes become those of BIOES: `"L-PER"` becomes `("E", "PER")`.

    Raises:
        ValueError: if the tag is neither `O` nor a prefix, a hyphen and a label.
    """
    if tag == "O":
        return "O", ""
    prefix, hyphen, label = tag.partition("-")
    if not hyphen or not label or prefix not in _MEANINGS:
        *prefixes, last = (f"{prefix}-" for prefix in _MEANINGS)
        raise ValueError(
            f"A span tag should be O, or {', '.join(prefixes)} or {last} followed by a label. Found {tag!r}."
        )
    return _MEANINGS[prefix], label


def as_bioes(tags: Sequence[str]) -> list[str]:
    """Return tags of any scheme with the prefixes of BIOES; tags of iob2, iob1 and bioes stay the same."""
    return [tag if tag == "O" else "-".join(split_tag(tag)) for tag in tags]


def map_tag(tag: str, names: Mapping[str, str | None]) -> str | None:
    """Return a tag with its new name: that of the complete tag, or else that of its label.

    Args:
        tag: the tag.
        names: tag or label -> new name. The new name `O` means no span, and None means no tag.
    """
    key = map_key(tag, names)
    name = names.get(key, key)
    return name if key == tag or name is None or name == "O" else f"{tag.partition('-')[0]}-{name}"


def map_key(tag: str, names: Mapping[str, str | None]) -> str:
    """Return the key under which `map_tag` looks up the new name of a tag: the tag, or else its label."""
    _, hyphen, label = tag.partition("-")
    return tag if tag in names or not hyphen else label


def separated(tags: Sequence[str | None], renamed: Sequence[str | None], scheme: str) -> list[str | None]:
    """Return renamed tags that have the spans of the tags before, although neighbours may have got the same name.

    Tags that have these spans already stay as they are, so that illegal tags are still counted.

    Args:
        tags: the tags before; None for a word without a label.
        renamed: the new tag of each word.
        scheme: the scheme of both.

    Raises:
        ValueError: if a tag is neither `O` nor a prefix, a hyphen and a label.
    """
    starts = {span.start for span in spans_from_tags([tag or "O" for tag in tags])}
    spans: list[Span] = []
    for position, tag in enumerate(renamed):
        label = "" if tag is None else split_tag(tag)[1]
        if label and spans and spans[-1][::2] == (label, position) and position not in starts:
            spans[-1] = spans[-1]._replace(end=position + 1)
        elif label:
            spans.append(Span(label, position, position + 1))
    if spans_from_tags([tag or "O" for tag in renamed]) == spans:
        return list(renamed)
    written = tags_from_spans(spans, len(tags), scheme)
    return [None if old is None else new for old, new in zip(renamed, written, strict=True)]


def spans_from_tags(tags: Sequence[str]) -> list[Span]:
    """Read spans from tags of any scheme with the rules of conlleval, the default mode of seqeval.

    Illegal sequences of tags are accepted. A tag with I or E continues the span of a previous tag with B or I and the
    same label. Every other tag except O starts a new span.
    """
    spans: list[Span] = []
    start, current, previous = 0, "", "O"
    for position, tag in enumerate([*tags, "O"]):
        prefix, label = split_tag(tag)
        continues = prefix in "IE" and label == current and previous in "BI"
        if current and not continues:
            spans.append(Span(current, start, position))
            current = ""
        if prefix != "O" and not continues:
            start, current = position, label
        previous = prefix
    return spans


def tags_from_spans(spans: Sequence[Span], length: int, scheme: str) -> list[str]:
    """Convert non-overlapping spans in order to `length` tags of a scheme."""
    first, inner, *ends = [*SCHEMES[scheme]]
    tags = ["O"] * length
    for span in spans:
        tags[span.start : span.end] = [f"{inner}-{span.label}"] * (span.end - span.start)
        touches_same_label = span.start > 0 and split_tag(tags[span.start - 1])[1] == span.label
        if scheme != "iob1" or touches_same_label:
            tags[span.start] = f"{first}-{span.label}"
        if ends:
            tags[span.end - 1] = f"{ends[span.end - span.start == 1]}-{span.label}"
    return tags


def repair_tags(tags: Sequence[str], scheme: str) -> list[str]:
    """Return legal tags of a scheme for the spans that seqeval reads from `tags`."""
    return tags_from_spans(spans_from_tags(tags), len(tags), scheme)


def scheme_labels(tags: Sequence[str], scheme: str) -> list[str]:
    """Return the given tags in order, completed by the missing tags of the scheme for their labels.

    `O` is put first if it is missing, and the other missing tags are put last.

    Raises:
        ValueError: if a tag does not belong to the scheme.
    """
    complete = dict.fromkeys(["O", *tags] if "O" not in tags else tags)
    for tag in list(complete):
        _, label = split_tag(tag)
        if label and tag[0] not in SCHEMES[scheme]:
            raise ValueError(
                f"Scheme {scheme} has only the prefixes {', '.join(SCHEMES[scheme])}. Found the tag {tag!r}."
            )
        if label:
            complete.update(dict.fromkeys(f"{prefix}-{label}" for prefix in SCHEMES[scheme]))
    return list(complete)


def is_legal(previous: str, following: str, scheme: str) -> bool:
    """Return whether the tag `following` can follow `previous`. `O` also stands for both ends of a text."""
    (left, left_label), (right, right_label) = split_tag(previous), split_tag(following)
    same = left_label == right_label
    if scheme == "iob1":
        return right != "B" or (left in "BI" and same)
    if len(SCHEMES[scheme]) > 2:
        return (right in "IE" and same) if left in "BI" else right in "OBS"
    return right != "I" or (left in "BI" and same)


class SpanConstraints:
    """The legal transitions between tags, as matrices for Viterbi decoding.

    Args:
        labels: the tags in the order of the logits.
        scheme: a scheme of `SCHEMES`.
    """

    def __init__(self, labels: Sequence[str], scheme: str) -> None:
        self.start = np.array([is_legal("O", tag, scheme) for tag in labels])
        self.end = np.array([is_legal(tag, "O", scheme) for tag in labels])
        self.transitions = np.array([[is_legal(a, b, scheme) for b in labels] for a in labels])

    def decode(self, logits: np.ndarray) -> np.ndarray:
        """Return the legal sequence of tags with the largest sum of logits (Viterbi 1967).

        Args:
            logits: shape (words, tags), float.

        Returns:
            Tag indices, shape (words,), equal to the argmax if the argmax is a legal sequence.
        """
        best = logits.argmax(axis=-1)
        if not len(best) or self._is_legal_path(best):
            return best
        scores = np.where(self.start, logits[0], -np.inf)
        backpointers = np.empty(logits.shape, dtype=np.int64)
        blocked = np.where(self.transitions, 0.0, -np.inf)
        for position in range(1, len(logits)):
            candidates = scores[:, None] + blocked
            backpointers[position] = candidates.argmax(axis=0)
            scores = candidates.max(axis=0) + logits[position]
        path = [int(np.where(self.end, scores, -np.inf).argmax())]
        for position in range(len(logits) - 1, 0, -1):
            path.append(int(backpointers[position, path[-1]]))
        return np.array(path[::-1])

    def _is_legal_path(self, path: np.ndarray) -> bool:
        return bool(self.start[path[0]] and self.end[path[-1]] and self.transitions[path[:-1], path[1:]].all())
