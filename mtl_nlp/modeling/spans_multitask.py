"""Spans of words and their tags: conversion, repair and constrained decoding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from .ragged_multitask import Ragged

SCHEMES = {"iob2": "BI", "iob1": "BI", "bioes": "BIES", "bilou": "BILU", "bmes": "BMES"}
"""The prefixes of each tagging scheme, without `O`: first and later words; or first, inner, last and only word."""

_MEANINGS = {"B": "B", "I": "I", "E": "E", "S": "S", "L": "E", "U": "S", "M": "I"}
"""The prefix of BIOES that has the meaning of each prefix, since no prefix has two meanings."""


_BLOCK = 2**20
"""The number of logits that are decoded at once, padding included; one long text may have more."""


class Span(NamedTuple):
    """The words from `start` to `end` (exclusive), with one label."""

    label: str
    start: int
    end: int


@lru_cache(maxsize=4096)
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

    def decode(self, logits: np.ndarray, sizes: np.ndarray | None = None) -> np.ndarray:
        """Return the legal sequence of tags with the largest sum of logits (Viterbi 1967), for each of several texts.

        Args:
            logits: the logits of the words of all texts, one text after the other, shape (words, tags), float.
            sizes: the number of words of each text, shape (texts,); None for one text.

        Returns:
            Tag indices, shape (words,), equal to the argmax of a text if the argmax is a legal sequence.
        """
        best = logits.argmax(axis=-1)
        texts = Ragged(logits, np.cumsum([0, *([len(logits)] if sizes is None else sizes)]))
        illegal = self._illegal(best, texts.sizes)
        illegal = illegal[np.argsort(-texts.sizes[illegal], kind="stable")]  # the longest first
        while len(illegal):
            count = max(_BLOCK // (int(texts.sizes[illegal[0]]) * len(self.start)), 1)
            block, illegal = np.sort(illegal[:count]), illegal[count:]
            words = texts.take(block)
            best[np.isin(texts.numbers, block)] = self._best_paths(words)
        return best

    def _illegal(self, tags: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """Return the indices of the texts whose sequence of tags is not legal."""
        ends = np.cumsum(sizes)
        filled = sizes > 0
        first, last = (ends - sizes)[filled], ends[filled] - 1
        wrong = np.zeros(len(tags), dtype=bool)
        wrong[1:] = ~self.transitions[tags[:-1], tags[1:]]
        wrong[first] = ~self.start[tags[first]]
        wrong[last] |= ~self.end[tags[last]]
        return np.unique(np.repeat(np.arange(len(sizes)), sizes)[wrong]) if wrong.any() else np.arange(0)

    def _best_paths(self, texts: Ragged) -> np.ndarray:
        """Return the legal tags with the largest sum of logits for each of several texts, shape (words,).

        All texts advance by one word at a time, the longest texts first in the arrays.
        """
        order = np.argsort(-texts.sizes, kind="stable")
        longest_first = texts.take(order)
        sizes, logits = longest_first.sizes, longest_first.padded(0.0)
        active = (sizes[:, None] > np.arange(sizes[0])).sum(axis=0).tolist()
        blocked = np.where(self.transitions.T, 0.0, -np.inf)  # [following, previous]
        scores = np.where(self.start, logits[:, 0], -np.inf).astype(np.float64)
        backpointers = np.zeros(logits.shape, dtype=np.int32)
        for position in range(1, sizes[0]):
            count = active[position]
            candidates = scores[:count, None, :] + blocked
            backpointers[:count, position] = candidates.argmax(axis=-1)
            scores[:count] = candidates.max(axis=-1) + logits[:count, position]
        tags = np.where(self.end, scores, -np.inf).argmax(axis=-1)
        paths = np.zeros(logits.shape[:2], dtype=np.int64)
        for position in range(sizes[0] - 1, -1, -1):
            count = active[position]
            paths[:count, position] = tags[:count]
            tags[:count] = backpointers[np.arange(count), position, tags[:count]]
        rows = np.argsort(order)
        return paths[rows][np.arange(sizes[0]) < texts.sizes[:, None]]
