"""The columns with a task's labels: the values of a dataset's `labels`, and `label_map`. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from mtl_nlp.messages import did_you_mean
from mtl_nlp.modeling.tasks_multitask import Task

LabelColumns = str | list[str] | dict[str, Any]
"""A column; a list of 0/1 columns, one per class; or an object with the fields of [`LabelSource`]."""

LabelMaps = Mapping[str, Mapping[str, str | None]]
"""Task -> name in the data -> new name. The new name null means no label."""

ALIGNMENT_MODES = ("strict", "contract", "expand")


@dataclass(frozen=True)
class LabelSource:
    """The columns with a task's labels.

    Args:
        column: the column.
        delimiter: the text between the names in a cell, for a task with a set of classes.
        alignment_mode: the treatment of a character span that cuts a word, as in spaCy's `Doc.char_span`: `strict`
            drops the span, `contract` keeps the words inside it, and `expand` takes all words that it touches.
        one_hot: the columns with 0 or 1 for one class each, instead of `column`.
    """

    column: str = ""
    delimiter: str | None = None
    alignment_mode: str | None = None
    one_hot: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that the labels are read from."""
        return self.one_hot or (self.column,)

    @property
    def place(self) -> str:
        """The columns in words, for messages."""
        noun = "columns" if self.one_hot else "column"
        return f"{noun} {', '.join(repr(column) for column in self.columns)}"

    @classmethod
    def of(cls, given: LabelColumns) -> LabelSource:
        """Return the source that a value of `labels` describes.

        Raises:
            ValueError: if the value is not a column, a list of columns, or an object with a column and valid options.
        """
        if isinstance(given, str):
            return cls(given)
        if isinstance(given, list | tuple) and given and all(isinstance(column, str) for column in given):
            if len(set(given)) < len(given):
                raise ValueError(f"each column should be named once. Found {list(given)!r:.80}")
            return cls(one_hot=tuple(given))
        keys = ("column", "delimiter", "alignment_mode")
        if not isinstance(given, Mapping) or not isinstance(given.get("column"), str):
            raise ValueError(
                f"should be a column, a list of columns with 0 and 1, or an object with a `column` and, if needed, "
                f"`delimiter` or `alignment_mode`. Found {given!r:.80}"
            )
        for key, value in given.items():
            if key not in keys:
                raise ValueError(f"unknown key {key!r}. {did_you_mean(str(key), keys)}")
            if not isinstance(value, str) or not value:
                raise ValueError(f"`{key}` should be a text. Found {value!r:.80}")
        source = cls(**given)
        if source.alignment_mode not in {None, *ALIGNMENT_MODES}:
            raise ValueError(
                f"`alignment_mode` should be one of {', '.join(ALIGNMENT_MODES)}. Found {source.alignment_mode!r:.80}"
            )
        return source


def columns_of(labels: Mapping[str, LabelColumns]) -> list[str]:
    """Return the distinct columns of a dataset's `labels`, in order."""
    return list(dict.fromkeys(column for given in labels.values() for column in LabelSource.of(given).columns))


def check_label_columns(
    inputs: Collection[str], labels: Mapping[str, LabelColumns], label_map: LabelMaps, tasks: Mapping[str, Task]
) -> None:
    """Check that a dataset's labels fit its inputs and tasks.

    Args:
        inputs: the canonical inputs: `tokens`, or `text` and `text_pair`.
        labels: task -> columns.
        label_map: task -> name -> new name.
        tasks: the tasks of `labels` by name.

    Raises:
        ValueError: if they do not fit; the message starts with the key inside of the dataset.
    """
    for name, given in labels.items():
        kind, key = tasks[name].kind, f"labels.{name}"
        try:
            source = LabelSource.of(given)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from error
        spans = kind.span_scheme is not None and "text" in inputs and "text_pair" not in inputs
        if kind.labels_words and "tokens" not in inputs and not spans:
            remedy = ", or a `scheme` and character spans in one `text`" if kind.span_scheme is None else ""
            raise ValueError(
                f"{key}: a {tasks[name].type} task needs the input `tokens`{remedy}. This dataset has only "
                f"{', '.join(inputs)}"
            )
        if not kind.is_set and (source.one_hot or source.delimiter is not None):
            found = "a list of columns" if source.one_hot else "a `delimiter`"
            raise ValueError(
                f"{key}: {found} is for tasks with a set of classes (multi-label-classification). Task {name!r} is a "
                f"{tasks[name].type} task. Name one column"
            )
        if source.alignment_mode is not None and not spans:
            raise ValueError(f"{key}: `alignment_mode` needs the input `text` and a task with a `scheme`. Leave it out")
    for name in label_map:
        if name not in labels:
            raise ValueError(f"label_map.{name}: no such task under `labels`. {did_you_mean(name, labels)}")
        if not tasks[name].kind.has_label_space:
            raise ValueError(f"label_map.{name}: a {tasks[name].type} task has no label names. Leave it out")
