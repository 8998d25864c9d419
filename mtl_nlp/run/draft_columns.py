"""Guesses about the columns of a dataset: the texts or words to read, and the tasks. Imports no torch."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mtl_nlp.data.character_spans import read_spans
from mtl_nlp.errors import DataError
from mtl_nlp.modeling.spans_multitask import SCHEMES

_TOKENS = ("tokens", "words", "token", "word", "form", "forms")
_TEXTS = ("text", "sentence", "body", "content", "message", "review", "description", "utterance", "premise")
_PAIRS = (
    *(("premise", "hypothesis"), ("sentence1", "sentence2"), ("text", "text_pair"), ("text1", "text2")),
    *(("text_a", "text_b"), ("question1", "question2"), ("question", "sentence"), ("question", "context")),
    *(("query", "document"), ("query", "passage"), ("sentence_1", "sentence_2"), ("s1", "s2")),
)
_CLASSES = ("label", "labels", "class", "target", "category", "gold", "gold_label", "intent")
_MOST_CLASSES = 150
_DELIMITERS = (";", "|")
_LEAST_FLAGS = 3
"""The number of columns of 0 and 1 from which they are the classes of one task."""
_UPOS = frozenset(
    (
        *("ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM", "PART", "PRON", "PROPN", "PUNCT"),
        *("SCONJ", "SYM", "VERB", "X", "_"),
    )
)
_CHUNKS = frozenset(("NP", "VP", "PP", "ADVP", "SBAR", "ADJP", "PRT", "CONJP", "INTJ", "LST", "UCP"))
_TAG = re.compile(r"([A-Z])-(.+)")


@dataclass(frozen=True)
class TaskGuess:
    """A task.

    Attributes:
        column: the column of the labels.
        options: the type and the options of the task.
        why: the reason, and how to change the guess.
        labels: the labels that were found; empty for numbers.
        source: the value of the dataset's `labels`, if it is not the column.
    """

    column: str
    options: dict[str, Any]
    why: str
    labels: frozenset[str] = frozenset()
    source: dict[str, str] | list[str] | None = None

    @property
    def columns(self) -> Any:
        """The value of the dataset's `labels`."""
        return self.column if self.source is None else self.source


@dataclass
class ColumnGuesses:
    """The columns of a dataset.

    Attributes:
        inputs: input -> column.
        inputs_why: the reason for the inputs.
        tasks: the tasks by name.
        left_out: column -> the reason why the column has no task.
        names: the names for the columns of files without a header.
    """

    inputs: dict[str, str] = field(default_factory=dict)
    inputs_why: str = ""
    tasks: dict[str, TaskGuess] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    names: list[str] | None = None


def guess_columns(name: str, rows: Sequence[Mapping[str, Any]], file_format: str) -> ColumnGuesses:
    """Return the guesses about the columns of a dataset.

    Args:
        name: the name of the dataset, for messages.
        rows: its first training rows.
        file_format: see `DataFiles`.

    Raises:
        DataError: if no column has texts or words, or no column has labels.
    """
    columns = {column: [row.get(column) for row in rows] for column in _columns(rows)}
    present = {column: [v for v in values if v is not None] for column, values in columns.items()}
    guesses = ColumnGuesses()
    if file_format == "conll":
        columns, present, guesses.names = _named(columns, present)
    guesses.left_out = {column: "empty" for column, values in present.items() if not values}
    open_columns = [column for column in columns if column not in guesses.left_out]
    words = _words_column(open_columns, columns)
    if words is not None:
        guesses.inputs = {"tokens": words}
        guesses.inputs_why = "a list of words per row"
        open_columns.remove(words)
    else:
        open_columns = _choose_texts(guesses, open_columns, present)
    for column in _without_flags(guesses, open_columns, present):
        _guess_task(guesses, column, present[column], columns, words)
    if not guesses.inputs:
        is_table = file_format in {"csv", "tsv"}
        remedy = " If the first line is a row, put a line with the names of the columns first." if is_table else ""
        raise DataError(f"{name}: no column has texts or words. The columns are {', '.join(columns):.200}.{remedy}")
    if not guesses.tasks:
        found = "; ".join(f"{column}: {why}" for column, why in guesses.left_out.items())
        raise DataError(f"{name}: no column looks like labels. {found:.300}.")
    return guesses


def _columns(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(column for row in rows for column in row))


def _named(
    columns: dict[str, list[Any]], present: dict[str, list[Any]]
) -> tuple[dict[str, list[Any]], dict[str, list[Any]], list[str]]:
    """Return the columns of a file without a header under names that follow from their values."""
    numbered = [column for column in columns if isinstance(columns[column][0], list)]
    names: dict[str, str] = {}
    for column in numbered:
        name = _name_of(_items(present[column]), is_first="tokens" not in names.values())
        taken = [each for each in names.values() if re.fullmatch(rf"{name}(_\d+)?", each)]
        names[column] = f"{name}_{len(taken) + 1}" if taken else name
    return (
        {names.get(column, column): values for column, values in columns.items()},
        {names.get(column, column): values for column, values in present.items()},
        list(names.values()),
    )


def _name_of(items: Sequence[str], *, is_first: bool) -> str:
    """Return a name for a column of a file without a header."""
    distinct = set(items)
    tags = [match for item in distinct if (match := _TAG.fullmatch(item))]
    if tags and len(tags) + ("O" in distinct) == len(distinct):
        return "chunk" if {tag[2] for tag in tags} <= _CHUNKS else "ner"
    if distinct <= _UPOS and len(distinct) > 1:
        return "upos"
    if {"NN", "DT"} <= distinct or {"NN", "VB"} <= distinct:
        return "pos"
    if is_first and not all(item.isdigit() for item in list(distinct)[:100]):
        return "tokens"
    return "tags"


def _items(values: Iterable[Any]) -> list[Any]:
    return [item for value in values if isinstance(value, list) for item in value if item is not None]


def _has_words(values: Sequence[Any]) -> bool:
    return any(values) and all(isinstance(v, list) and all(isinstance(item, str) for item in v) for v in values)


def _words_column(names: Sequence[str], columns: Mapping[str, Sequence[Any]]) -> str | None:
    """Return the column of the words: by its name, or the most varied list of strings beside a list as long."""
    lists = [column for column in names if _has_words([v for v in columns[column] if v is not None])]
    for name in _TOKENS:
        if name in lists:
            return name
    beside = [
        column
        for column in lists
        if any(other != column and _same_lengths(columns[column], columns[other]) for other in names)
    ]
    return max(beside, key=lambda column: len(set(_items(columns[column]))), default=None)


def _same_lengths(words: Sequence[Any], tags: Sequence[Any]) -> bool:
    pairs = [(one, other) for one, other in zip(words, tags, strict=True) if one is not None and other is not None]
    return bool(pairs) and all(isinstance(other, list) and len(one) == len(other) for one, other in pairs)


def _choose_texts(guesses: ColumnGuesses, names: Sequence[str], present: Mapping[str, Sequence[Any]]) -> list[str]:
    """Choose the input of a dataset of texts, and return the columns that may have labels."""
    texts = {
        column: statistics.fmean(len(value.split()) for value in present[column])
        for column in names
        if all(isinstance(value, str) for value in present[column])
        and (column.lower() in _TEXTS or not (_is_class_column(present[column]) or _delimiter_of(present[column])))
    }
    lower = {column.lower(): column for column in texts}
    pair = next(((lower[a], lower[b]) for a, b in _PAIRS if a in lower and b in lower), None)
    if pair is not None:
        guesses.inputs = {"text": pair[0], "text_pair": pair[1]}
        guesses.inputs_why = f"the names {pair[0]} and {pair[1]} mean pairs; for single texts, leave out text_pair"
    elif texts:
        named = next((lower[name] for name in _TEXTS if name in lower and texts[lower[name]] > 2), None)
        text = named or max(texts, key=lambda column: (texts[column], sum(map(len, present[column]))))
        guesses.inputs = {"text": text}
        others = [column for column in texts if column != text and texts[column] > 2]
        more = f"; {', '.join(others)} may be the text_pair or the text" if others else ""
        guesses.inputs_why = f"texts of {texts[text]:.0f} words on average{more}"
    for column in texts.keys() - set(guesses.inputs.values()):
        what = "a text" if texts[column] > 2 else "an id or a name"
        guesses.left_out[column] = f"{what}, with {len(set(present[column]))} different values"
    return [column for column in names if column not in texts]


def _is_class_column(values: Sequence[str]) -> bool:
    distinct = set(values)
    few = len(distinct) <= min(_MOST_CLASSES, max(2, len(values) // 2))
    return few and statistics.fmean(len(value.split()) for value in distinct) <= 5


def _parts(value: str, delimiter: str) -> list[str]:
    return [name for part in value.split(delimiter) if (name := part.strip())]


def _delimiter_of(values: Sequence[str]) -> str | None:
    """Return the delimiter of short names that occur in several different cells, or None."""
    cells = set(values)
    for delimiter in _DELIMITERS:
        of_cells = [_parts(cell, delimiter) for cell in cells]
        names = [name for names in of_cells for name in names]
        few = 1 < len(set(names)) <= min(_MOST_CLASSES, len(cells)) and len(names) > len(cells)
        if few and len(set(names)) < len(names) and max(len(name.split()) for name in names) <= 5:
            return delimiter
    return None


def _without_flags(guesses: ColumnGuesses, names: Sequence[str], present: Mapping[str, Sequence[Any]]) -> list[str]:
    """Add a task for several columns of 0 and 1, and return the other columns."""
    flags = [
        column
        for column in names
        if all(isinstance(value, int) for value in present[column])
        and {*present[column]} == {0, 1}
        and column.lower() not in _CLASSES
    ]
    if len(flags) < _LEAST_FLAGS or "tokens" in guesses.inputs:
        return list(names)
    task = "labels" if "labels" not in present else "labels_of_columns"
    why = f"{len(flags)} columns of 0 and 1; for a task per column, name each column"
    guesses.tasks[task] = TaskGuess(task, {"type": "multi-label-classification"}, why, frozenset(flags), flags)
    return [column for column in names if column not in flags]


def _of_spans(column: str, columns: Mapping[str, Sequence[Any]], inputs: Mapping[str, str]) -> TaskGuess | None:
    """Return a task for a column of character spans of the text; None for another column."""
    if "text" not in inputs or "text_pair" in inputs:
        return None
    rows = zip(columns[column], columns[inputs["text"]], strict=True)
    try:
        spans = [span for value, text in rows if value and text is not None for span in read_spans(value, text)]
    except ValueError:
        return None
    labels = frozenset(str(span.label) for span in spans)
    why = f"character spans of {len(labels)} different labels in {inputs['text']}"
    options = {"type": "token-classification", "scheme": "iob2"}
    return TaskGuess(column, options, why, labels) if labels else None


def _guess_task(
    guesses: ColumnGuesses, column: str, values: Sequence[Any], columns: Mapping[str, Sequence[Any]], words: str | None
) -> None:
    """Add the task of a column, or the reason why it has none."""
    if all(isinstance(value, list) for value in values):
        is_beside_words = words is not None and _same_lengths(columns[words], columns[column])
        spans = _of_spans(column, columns, guesses.inputs)
        found = _of_words(column, values) if is_beside_words else spans or _of_sets(column, values)
    elif all(isinstance(value, bool) for value in values):
        found = TaskGuess(column, {"type": "text-classification"}, "true or false", frozenset(map(str, values)))
    elif all(isinstance(value, int | float) for value in values):
        found = _of_numbers(column, values)
    elif all(isinstance(value, str | int) for value in values):
        found = _of_strings(column, [str(value) for value in values])
    else:
        found = "values of several types"
    if isinstance(found, str):
        guesses.left_out[column] = found
    else:
        guesses.tasks[column] = found


def _of_strings(column: str, values: Sequence[str]) -> TaskGuess | str:
    distinct = set(values)
    if len(distinct) == 1:
        return f"always {values[0]!r:.40}"
    if (delimiter := _delimiter_of(values)) is not None:
        names = frozenset(name for value in values for name in _parts(value, delimiter))
        why = f"{len(names)} different names between {delimiter}; for one class per text, name only the column"
        source = {"column": column, "delimiter": delimiter}
        return TaskGuess(column, {"type": "multi-label-classification"}, why, names, source)
    if not _is_class_column(values):
        return f"{len(distinct)} different values: ids, names or texts"
    return TaskGuess(column, {"type": "text-classification"}, f"{len(distinct)} different names", frozenset(distinct))


def _of_numbers(column: str, values: Sequence[float]) -> TaskGuess | str:
    distinct = set(values)
    are_whole = all(float(value).is_integer() for value in distinct)
    if len(distinct) == 1:
        return f"always {values[0]}"
    if are_whole and len(distinct) == len(values) and (len(values) > 20 or re.search(r"id|index|^$", column.lower())):
        return "a different whole number in each row: an id"
    low, high = min(distinct), max(distinct)
    if are_whole and len(distinct) <= _MOST_CLASSES and (len(distinct) == 2 or column.lower() in _CLASSES):
        why = f"{len(distinct)} different whole numbers; for a number to predict, write regression"
        return TaskGuess(column, {"type": "text-classification"}, why, frozenset(str(int(v)) for v in distinct))
    why = f"numbers from {low:g} to {high:g}; for classes, write text-classification"
    return TaskGuess(column, {"type": "regression"}, why)


def _of_sets(column: str, values: Sequence[list]) -> TaskGuess | str:
    items = _items(values)
    distinct = set(map(str, items))
    if not items or not all(isinstance(item, str) for item in items):
        return "lists that hold other values than names"
    if len(distinct) < 2 or len(distinct) > min(_MOST_CLASSES, max(2, len(items) // 2)):
        return f"lists with {len(distinct)} different values"
    why = f"lists of {len(distinct)} different names"
    return TaskGuess(column, {"type": "multi-label-classification"}, why, frozenset(distinct))


def _of_words(column: str, values: Sequence[list]) -> TaskGuess | str:
    items = _items(values)
    distinct = set(items)
    if not all(isinstance(item, str) for item in items):
        return "a number per word: name the tags"
    if len(distinct) < 2:
        return f"always {next(iter(distinct), '')!r:.40}"
    if len(distinct) > min(_MOST_CLASSES, max(2, len(items) // 2)):
        return f"{len(distinct)} different values per word: lemmas, forms or ids"
    scheme, why = _scheme_of([[tag or "O" for tag in value] for value in values])
    if scheme is not None and scheme not in SCHEMES:
        return f"tags in the scheme {scheme.upper()}, which this version does not read"
    options = {"type": "token-classification", **({} if scheme is None else {"scheme": scheme})}
    return TaskGuess(column, options, f"{len(distinct)} different tags beside the words{why}", frozenset(distinct))


def _scheme_of(sentences: Sequence[Sequence[str]]) -> tuple[str | None, str]:
    """Return the scheme of spans that tags are written in, or None for plain labels, and the reason."""
    distinct = {tag for tags in sentences for tag in tags} - {"O"}
    matches = [_TAG.fullmatch(tag) for tag in distinct]
    if not distinct or not all(matches):
        return None, ""
    prefixes = {match[1] for match in matches if match is not None}
    for scheme, own, marks in (
        ("bioes", set("BIES"), set("ES")),
        ("bilou", set("BILU"), set("LU")),
        ("bmes", set("BMES"), set("M")),
    ):
        if prefixes <= own and prefixes & marks:
            return scheme, f", with the prefixes {', '.join(sorted(prefixes))}"
    if not prefixes <= set("BI"):
        return None, ""
    if any(_opens_with_i(tags) for tags in sentences) and not any(_opens_with_b(tags) for tags in sentences):
        return "iob1", ", where I- opens a span; change scheme to iob2 if this is a mistake of the data"
    return "iob2", ", where B- opens each span; remove scheme for plain labels"


def _opens_with_i(tags: Sequence[str]) -> bool:
    """Return whether an I- tag opens a span."""
    return any(tag.startswith("I-") and before[2:] != tag[2:] for before, tag in zip(["O", *tags], tags, strict=False))


def _opens_with_b(tags: Sequence[str]) -> bool:
    """Return whether a B- tag opens a span that does not follow a span of the same class, which IOB1 never does."""
    return any(tag.startswith("B-") and before[2:] != tag[2:] for before, tag in zip(["O", *tags], tags, strict=False))
