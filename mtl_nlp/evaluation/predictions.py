"""The predictions of a model on a split, as a JSONL file with one line per task and labelled text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from mtl_nlp.errors import DataError
from mtl_nlp.messages import json_text, one_line


@dataclass(frozen=True, slots=True)
class Prediction:
    """The prediction of one task for one labelled text.

    Attributes:
        task: the name of the task.
        dataset: the name of the dataset in the recipe.
        split: the name of the split.
        row: the index in the split's source rows. (task, dataset, row) identifies a text across runs.
        gold: the canonical gold label.
        prediction: the predicted canonical label.
        tokens: the words of the text, or None for a text without words.
        text: the text, or None for a text as words.
        text_pair: the second text of a pair.
        score: the probability of the predicted label: a list with one number per word for word tasks, one number for
            tasks with one class per text, {label: probability} over all labels for sets of classes, None for others.
        seen: for each word, whether the word occurs in the training rows of the task; None if unknown.
    """

    task: str
    dataset: str
    split: str
    row: int
    gold: Any
    prediction: Any
    tokens: list[str] | None = None
    text: str | None = None
    text_pair: str | None = None
    score: Any = None
    seen: list[bool] | None = None


def read_predictions(path: str | Path) -> dict[str, list[Prediction]]:
    """Read a file of predictions, by task in the order of the file.

    Raises:
        DataError: if the file cannot be read, or a line is not a prediction.
    """
    found: dict[str, list[Prediction]] = {}
    names = {field.name for field in fields(Prediction)}
    try:
        with open(path, encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                place = f"{path}, line {number}"
                try:
                    entry = json.loads(line)
                except json.JSONDecodeError as error:
                    raise DataError(f"{place}: each line should be a JSON object. {one_line(error)}.") from error
                if not isinstance(entry, dict):
                    raise DataError(f"{place}: each line should be a JSON object. Found {line.strip()!r:.80}.")
                needed = ["task", "dataset", "split", "row", "gold", "prediction"]
                if missing := [key for key in needed if key not in entry]:
                    raise DataError(
                        f"{place}: a prediction should have the keys {', '.join(needed)}. Missing: {missing}."
                    )
                prediction = Prediction(**{key: value for key, value in entry.items() if key in names})
                found.setdefault(prediction.task, []).append(prediction)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: the file of predictions cannot be read. {one_line(error)}.") from error
    return found


def write_predictions(path: str | Path, predictions: Mapping[str, Iterable[Prediction]]) -> None:
    """Write predictions by task as a JSONL file, without the attributes that are None except `score`."""
    with open(path, "w", encoding="utf-8") as file:
        for entries in predictions.values():
            for entry in entries:
                content = {key: value for key, value in asdict(entry).items() if value is not None or key == "score"}
                file.write(json_text(content) + "\n")
