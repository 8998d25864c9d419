"""The labels of raw rows as label names: class numbers, delimited texts, 0/1 columns and spans become names."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from datasets import ClassLabel, List, Value

from mtl_nlp.data.character_spans import CharacterSpan, align_spans, read_spans
from mtl_nlp.data.csv_files import NUMBER
from mtl_nlp.modeling.label_kinds_multitask import IGNORED
from mtl_nlp.modeling.spans_multitask import map_key, map_tag, separated, tags_from_spans
from mtl_nlp.modeling.tasks_multitask import Task
from mtl_nlp.modeling.words_multitask import Word
from mtl_nlp.recipe.label_columns import LabelSource

UNLABELLED = "unlabelled_words"
"""The column with the number of words without a label per row, in rows where other words have one."""
MISALIGNED = "misaligned"
"""The column with the number of character spans per row that cut a word and were dropped."""
MOVED = "moved"
"""The column with the number of character spans per row that cut a word and were moved to borders of words."""
OVERLAPPING = "overlapping"
"""The column with the number of character spans per row that overlapped a longer span and were dropped."""
EMPTY = "empty_cells"
"""The column with the number of empty cells per row that were read as a set without names."""

_LARGEST_EXACT = 2**53
"""The whole number from which floats cannot tell neighbouring whole numbers apart."""

_TRUTH: Mapping[Any, bool] = {0: False, 1: True, "false": False, "true": True}

_WHOLE = re.compile(r"([+-]?\d+)(?:\.0*)?")
"""A text that is a whole number, also as pandas writes it in a column with empty cells."""


@dataclass(frozen=True)
class LabelReader:
    """A reader of one task's raw labels.

    Attributes:
        task: the task; its label space is not used.
        source: the columns.
        class_names: the names of a ClassLabel column, see `class_names_of`; None for other columns.
        label_map: name in the data -> new name, see `LabelMaps`.
        empty_cells: whether a missing text with names between delimiters is a set without names, as in a CSV file.
        met: the entries of `label_map` that gave a name in the data a new name.
        counts: the numbers of words, spans and cells of the last label, by column such as `UNLABELLED`.
    """

    task: Task
    source: LabelSource
    class_names: Sequence[str] | None = None
    label_map: Mapping[str, str | None] = field(default_factory=dict)
    empty_cells: bool = False
    met: set[str] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)

    def read(self, values: Sequence[Any], text: str | None = None, words: Sequence[Word] = ()) -> Any:
        """Return the label of one row as the check of the task's kind expects it, or None for a row without a label.

        Args:
            values: the row's values, one per column of the source.
            text: the text, if the labels of words are character spans.
            words: the words of the text.

        Raises:
            ValueError: if a value does not have the form that the source demands, or a number has no name.
        """
        kind = self.task.kind
        self.counts.clear()
        value: Any = self._set_of_columns(values) if self.source.one_hot else values[0]
        if is_null(value):
            return self._without_value()
        if not kind.has_label_space or kind.label_feature.dtype != "string":
            is_missing = self.class_names is not None and not isinstance(value, list) and value < 0
            return None if is_missing else self._number_in_text(value)
        if text is not None and kind.labels_words:
            return self._tags_of_spans(value, text, words)
        if self.source.delimiter is not None:
            value = self._split(value, self.source.delimiter)
        if not isinstance(value, list):
            return self._name(value)
        if kind.labels_words:
            names = self._tags(value)
            missing = names.count(None)
            self.counts[UNLABELLED] = missing
            return None if missing == len(names) > 0 else names
        named = [(entry, self._name(entry)) for entry in (self._classes_of_vector(value) if kind.is_set else value)]
        # A missing entry stays, so that the kind's check refuses it; a name without a new name is left out.
        return [name for entry, name in named if name is not None or entry is None]

    def known_names(self, features: Mapping[str, Any]) -> list[str] | None:
        """Return the label names in their order, if the columns' types or the task define them, else None.

        Args:
            features: column -> its type in `datasets`.
        """
        if self.source.one_hot:
            names: Iterable[str] = self.source.one_hot
        else:
            feature = features[self.source.column]
            inner = feature.feature if isinstance(feature, List) else feature
            is_number = isinstance(inner, Value) and re.match(r"u?int|float|bool|double", inner.dtype) is not None
            if isinstance(inner, ClassLabel):
                names = self.class_names or inner.names
            elif self.task.names is not None and is_number:
                names = self.task.names.values()
            else:
                return None
        renamed = [self.renamed(name) for name in names]
        return list(dict.fromkeys(name for name in renamed if name is not None))

    def renamed(self, name: str) -> str | None:
        """Return the new name of a name in the data; None for no label."""
        is_tag = self.task.kind.span_scheme is not None
        key = map_key(name, self.label_map) if is_tag else name
        new = map_tag(name, self.label_map) if is_tag else self.label_map.get(name, name)
        if new != name:
            self.met.add(key)
        return new

    def unmet(self, met: Iterable[str]) -> list[str]:
        """Return the entries of `label_map` that give a new name and are not among some entries."""
        found = set(met)
        return [key for key, new in self.label_map.items() if key != new and key not in found]

    def _without_value(self) -> list[str] | None:
        """Return the label of a row whose value is missing."""
        if not self.empty_cells or self.source.delimiter is None:
            return None
        self.counts[EMPTY] = 1
        return []

    def _name(self, value: Any) -> Any:
        """Return the new name of a class; None if the class is missing; other values than names unchanged."""
        name = self._own_name(value)
        return self.renamed(name) if self.label_map and isinstance(name, str) else name

    def _own_name(self, value: Any) -> Any:
        """Return the name of a class in the data; None if it is missing; other values than names unchanged."""
        if is_null(value):
            return None
        if isinstance(value, str) and not value:
            raise ValueError("expected label names that are not empty; found ''. For no label, give null")
        number = self._number(value)
        if number is not None and self.class_names is not None:
            if number < 0:  # `datasets` uses -1 for a missing label
                return None
            if number >= len(self.class_names):
                raise ValueError(f"expected a class number below {len(self.class_names)}; found {number}")
            return self.class_names[number]
        if number == IGNORED and not isinstance(value, str):
            return None
        if number is not None and self.task.names is not None:
            if number not in self.task.names:
                raise ValueError(
                    f"expected a number with a name; found {number}. Name it under `tasks.{self.task.name}.names`, "
                    f"which has {', '.join(map(str, self.task.names)):.60}"
                )
            return self.task.names[number]
        if self._is_number_without_name(value):
            raise ValueError(
                f"expected a whole number or a name of `tasks.{self.task.name}.names`; found {value!r:.80}. Write a "
                f"number of `names`, which has {', '.join(map(str, self.task.names or ())):.60}"
            )
        needs_text = bool(self.label_map) and not self.task.kind.labels_words
        if isinstance(value, bool):
            return str(value) if needs_text else value
        return value if number is None else str(number) if needs_text else number

    def _tags(self, values: list[Any]) -> list[Any]:
        """Return the new name of each word's label; spans with one new name stay apart."""
        own = [self._own_name(value) for value in values]
        scheme = self.task.kind.span_scheme
        if not self.label_map or not all(isinstance(name, str | None) for name in own):
            return own
        new = [None if name is None else self.renamed(name) for name in own]
        return new if scheme is None else separated(own, new, scheme)

    def _number(self, value: Any) -> int | None:
        """Return a class number as int; None for other values.

        pandas reads integers with gaps as floats. A text of digits, or a truth value, is a number only if the task
        names numbers.
        """
        has_names = self.task.names is not None
        if isinstance(value, bool):
            return int(value) if has_names else None
        if isinstance(value, str):
            whole = _WHOLE.fullmatch(value.strip()) if has_names else None
            return None if whole is None else int(whole[1])
        if isinstance(value, float):
            return int(value) if value.is_integer() and abs(value) < _LARGEST_EXACT else None
        return int(value) if isinstance(value, int | np.integer) else None

    def _is_number_without_name(self, value: Any) -> bool:
        """Return whether a text is a number such as `1.5`, and the task names other numbers."""
        names = self.task.names
        return (
            names is not None
            and isinstance(value, str)
            and value not in names.values()
            and NUMBER.fullmatch(value.strip()) is not None
        )

    def _number_in_text(self, value: Any) -> Any:
        """Return the number that a text such as `2.5` is, for a task of numbers; other values unchanged."""
        feature = self.task.kind.label_feature
        if not isinstance(value, str) or feature.is_list or not feature.dtype.startswith("float"):
            return value
        try:
            return float(value)
        except ValueError:
            return value

    def _split(self, value: Any, delimiter: str) -> list[str]:
        """Return the names in a delimited text; a column of single numbers may have become numbers."""
        number = self._number(value)
        text = str(value if number is None or isinstance(value, str) else number)
        if isinstance(value, list | dict):
            raise ValueError(f"expected a text with names between {delimiter!r}; found {value!r:.80}")
        return [name for part in text.split(delimiter) if (name := part.strip())]

    def _set_of_columns(self, values: Sequence[Any]) -> list[str] | None:
        """Return the names of the columns with a 1; None for a row in which all columns are empty."""
        flags = [None if is_null(value) else value for value in values]
        if all(flag is None for flag in flags):
            return None
        names = []
        for name, flag in zip(self.source.one_hot, flags, strict=True):
            key = flag.strip().lower() if isinstance(flag, str) else flag
            key = float(key) if isinstance(key, str) and NUMBER.fullmatch(key) else key
            if not isinstance(key, str | int | float) or key not in _TRUTH:
                raise ValueError(f"expected 0, 1, true or false in column {name!r}; found {flag!r:.80}")
            if _TRUTH[key]:
                names.append(name)
        return names

    def _classes_of_vector(self, value: list[Any]) -> list[Any]:
        """Return the class numbers of a 0/1 vector, if the list has one number per name; other lists unchanged."""
        names, numbers = self.task.names, [self._number(entry) for entry in value]
        if names is None or self.class_names is not None or None in numbers:
            return value
        if list(names) == list(range(len(value))) and set(numbers) <= {0, 1}:
            return [number for number, flag in enumerate(numbers) if flag]
        if len(set(numbers)) < len(numbers):
            raise ValueError(
                f"expected a list of 0 and 1 with one number for each of the {len(names)} names under "
                f"`tasks.{self.task.name}.names`, or a list of different class numbers; found {value!r:.80}"
            )
        return value

    def _tags_of_spans(self, value: Any, text: str, words: Sequence[Word]) -> list[str | None]:
        """Return a tag per word from character spans; None for the words of spans whose new name is null."""
        spans = []
        for start, end, label in read_spans(value, text):
            name = self._name_of_span(label)
            if name != "O":
                spans.append(CharacterSpan(start, end, name if name is None else str(name)))
        aligned = align_spans(spans, words, self.source.alignment_mode or "strict")
        scheme = self.task.kind.span_scheme or ""
        named = [span for span in aligned.spans if span.label is not None]
        tags: list[str | None] = [*tags_from_spans(named, len(words), scheme)]
        for span in aligned.spans:
            if span.label is None:
                tags[span.start : span.end] = [None] * (span.end - span.start)
        unlabelled = tags.count(None)
        self.counts.update(
            {
                MISALIGNED: aligned.misaligned,
                MOVED: aligned.moved,
                OVERLAPPING: aligned.overlapping,
                UNLABELLED: unlabelled,
            }
        )
        return tags

    def _name_of_span(self, label: Any) -> Any:
        """Return the new name of a span's label, which has no prefix, although it may have a hyphen."""
        name = self._own_name(label)
        if isinstance(name, str) and (new := self.label_map.get(name, name)) != name:
            self.met.add(name)
            return new
        return name


def is_null(value: Any) -> bool:
    """Return whether a value is null or NaN, with which pandas marks a missing value."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def order_names(names: Iterable[str], task: Task) -> list[str]:
    """Return the label names of a column of texts: the names that the task declares in their order, then the others.

    If the task declares all names that were found, its other names are labels too, as for a column of numbers.
    """
    declared = [] if task.names is None else list(dict.fromkeys(task.names.values()))
    found = set(names)
    others = sort_names(found - set(declared))
    return [name for name in declared if (found and not others) or name in found] + others


def sort_names(names: Iterable[str]) -> list[str]:
    """Return label names in order: integers by their values if all names are integers, else texts."""
    found = sorted(names)
    return sorted(found, key=int) if all(re.fullmatch(r"-?\d+", name) for name in found) else found
