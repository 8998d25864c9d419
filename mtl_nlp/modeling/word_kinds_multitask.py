"""The label kinds of word tasks: a class per word, and spans of words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from .answering_multitask import Logits
from .class_kinds_multitask import OneClassKind
from .label_kinds_multitask import IGNORED, Feature, Metric, TopK, WordKind, softmax
from .ragged_multitask import Ragged
from .spans_multitask import Span, SpanConstraints, repair_tags, spans_from_tags, tags_from_spans
from .words_multitask import Word


class ClassPerWord(OneClassKind, WordKind):
    """A class per word, such as its part of speech."""

    label_feature = Feature("string", is_list=True)
    target_feature = Feature("int32", is_list=True)
    names_are_entries = True
    metric: Metric = "accuracy"
    primary_score = "accuracy"

    def check(self, value: Any) -> list[str | None]:
        """Return a list of label names, one per word; None for a word without a label."""
        if not isinstance(value, list) or not all(isinstance(label, str | None) for label in value):
            remedy = ""
            if isinstance(value, list) and all(isinstance(label, int | None) for label in value):
                remedy = f". Give the numbers names under `tasks.{self.name}.names`"
            elif isinstance(value, list) and any(isinstance(label, dict | list) for label in value):
                remedy = ". For spans with character offsets, give the `scheme` of the tags and the input `text`"
            raise ValueError(f"expected a list of label names, one per word; found {value!r:.80}{remedy}")
        return value

    def names_in(self, label: Sequence[str | None]) -> Iterable[str]:
        """Return the names of all words' labels."""
        return [name for name in label if name is not None]

    def target_of(self, label: Sequence[str | None]) -> list[int]:
        """Return class ids, one per word."""
        return [IGNORED if name is None else self.label_ids.get(name, IGNORED) for name in label]

    def _best(self, logits: Ragged) -> np.ndarray:
        """Return the class id of each word of all texts, shape (words,)."""
        return logits.values.argmax(axis=-1)

    def decode(self, logits: np.ndarray) -> list[str]:
        """Return the most probable class of each word; for spans, of the most probable legal sequence of tags."""
        return [self.labels[index] for index in self._best(Ragged.stacked([logits])).tolist()]

    def decode_all(self, logits: Logits) -> list[list[str]]:
        """Return the label of each text, see `decode`."""
        words = Ragged.stacked(logits)
        return words.split([self.labels[index] for index in self._best(words).tolist()])

    def answer(self, logits: np.ndarray, words: Sequence[Word], text: str, top_k: TopK) -> list[dict[str, Any]]:
        """Return `{"word", "label", "score", "start", "end", "index"}` for every word, `index` from 1."""
        labels = self.decode(logits)
        return self._entries(words, text, labels, self.confidence(logits, labels))

    def answer_all(
        self, logits: Logits, words: Sequence[Sequence[Word]], texts: Sequence[str], top_k: TopK
    ) -> list[list[dict[str, Any]]]:
        """Return the answer for each text, see `answer`."""
        labels = self.decode_all(logits)
        scores = self.confidence_all(logits, labels)
        return [self._entries(*each) for each in zip(words, texts, labels, scores, strict=True)]

    def _entries(
        self, words: Sequence[Word], text: str, labels: Sequence[str], scores: Sequence[float]
    ) -> list[dict[str, Any]]:
        """Return the entries of the answer for one text from the label and the probability of each word."""
        return [
            {"word": word, "label": label, "score": score, "start": start, "end": end, "index": index}
            for index, ((word, start, end), label, score) in enumerate(zip(words, labels, scores, strict=True), start=1)
        ]

    def confidence(self, logits: np.ndarray, label: Sequence[str]) -> list[float]:
        """Return the probability of each word's label."""
        return self._scores(Ragged.stacked([logits]), [label])

    def confidence_all(self, logits: Logits, labels: Sequence[Sequence[str]]) -> list[list[float]]:
        """Return the probability of each word's label for each text."""
        words = Ragged.stacked(logits)
        return words.split(self._scores(words, labels))

    def _scores(self, logits: Ragged, labels: Sequence[Sequence[str]]) -> list[float]:
        ids = np.array([self.label_ids[name] for label in labels for name in label], dtype=np.int64)
        return softmax(logits.values)[np.arange(len(ids)), ids].tolist()


class SpansOfWords(ClassPerWord):
    """Spans of words with one class per span, such as entities, written as a tag per word.

    Args:
        name: the task's name.
        labels: the tags in the order of the logits.
        scheme: a scheme of `SCHEMES`.
        **loss: the options of the loss, see [`OneClassKind`].
    """

    primary_score = "f1"

    def __init__(self, name: str, labels: Sequence[str], scheme: str, **loss: Any) -> None:
        super().__init__(name, labels, **loss)
        self.scheme = self.span_scheme = scheme
        self.metric = f"span_f1_{scheme}"

    @property
    def mark_names(self) -> tuple[str, ...]:
        """The classes of the spans, without the tags' prefixes."""
        return tuple(dict.fromkeys(tag[2:] for tag in self.labels if tag != "O"))

    @cached_property
    def _constraints(self) -> SpanConstraints:
        return SpanConstraints(self.labels, self.scheme)

    def check(self, value: Any) -> list[str | None]:
        """Return a list of legal tags, one per word; illegal tags are repaired as seqeval reads them.

        A span ends before a word without a label.
        """
        tags = super().check(value)
        repaired = repair_tags(["O" if tag is None else tag for tag in tags], self.scheme)
        return [None if old is None else new for old, new in zip(tags, repaired, strict=True)]

    def count_repairs(self, given: Sequence[str | None], canonical: Sequence[str | None]) -> int:
        """Return the number of illegal tags that were repaired."""
        return sum(old != new for old, new in zip(given, canonical, strict=True))

    def _best(self, logits: Ragged) -> np.ndarray:
        """Return the tag ids of the most probable legal sequence of each text, shape (words,)."""
        return self._constraints.decode(logits.values, logits.sizes)

    def _entries(
        self, words: Sequence[Word], text: str, labels: Sequence[str], scores: Sequence[float]
    ) -> list[dict[str, Any]]:
        """Return `{"entity_group", "score", "word", "start", "end"}` for every span.

        The `score` of a span is the mean probability of its tags.
        """
        return [
            {
                "entity_group": span.label,
                "score": math.fsum(scores[span.start : span.end]) / (span.end - span.start),
                "word": text[words[span.start].start : words[span.end - 1].end],
                "start": words[span.start].start,
                "end": words[span.end - 1].end,
            }
            for span in spans_from_tags(labels)
        ]

    def shown(self, entry: Mapping[str, Any]) -> str:
        """Return the span's class."""
        return entry["entity_group"]

    def as_strings(self, entries: Sequence[Mapping[str, Any]], words: Sequence[Word]) -> list[str]:
        """Return a tag per word, from the character offsets of the spans."""
        starts = {word.start: index for index, word in enumerate(words)}
        ends = {word.end: index + 1 for index, word in enumerate(words)}
        spans = [Span(self.shown(entry), starts[entry["start"]], ends[entry["end"]]) for entry in entries]
        return tags_from_spans(spans, len(words), self.scheme)
