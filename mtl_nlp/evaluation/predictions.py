"""`predictions.jsonl`: every prediction of a run on its held-out split, with gold label, probability and text."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import ConfigDict, Field, GetPydanticSchema, TypeAdapter, ValidationError

from mtl_nlp.data.encoding import EncodedDataset
from mtl_nlp.errors import DataError
from mtl_nlp.evaluation.evaluator import Answers, labelled_words
from mtl_nlp.messages import json_text, one_line
from mtl_nlp.run_folder import write_file

_BLOCK = 1000
"""The number of source rows that are read from a split at once."""

_Probability = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
_Name = str | Annotated[float, Field(allow_inf_nan=False)]
_Label = Annotated[Any, GetPydanticSchema(lambda _, schema_of: schema_of(_Name | list[_Name]))]
"""A canonical label, whose type depends on the kind of its task."""

_EXPECTED = {
    "row": "an index from 0",
    "tokens": "a list of words",
    "gold": "a label, a finite number, or a list of these",
    "prediction": "a label, a finite number, or a list of these",
    "score": "a probability, a list of probabilities, an object from label to probability, or null",
    "seen": "a list of true and false",
}
"""The rule for each key that is not a plain string."""


@dataclass(frozen=True)
class Prediction:
    """The prediction of a task for one text, a line of `predictions.jsonl`.

    Attributes:
        task: the name of the task.
        dataset: the name of the dataset in the recipe.
        split: `train`, `validation` or `test`.
        row: the index of the row in the split. Task, dataset and row identify the text across runs.
        gold: the canonical label of the data.
        prediction: the predicted label.
        score: the probability of the prediction: a number per word for labels of words, a number for one class, and a
            dict from label to probability for a set of classes; None for numbers.
        tokens: the words of the text, if the dataset has words.
        text: the text, if the dataset has texts.
        text_pair: the second text of a pair.
        seen: for each word, whether the word occurs in the task's training rows; the words of a text are separated by
            white space, and those of a pair are joined. None if the training rows are unknown.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, extra="ignore")

    task: str
    dataset: str
    split: str
    row: Annotated[int, Field(ge=0)]
    gold: _Label
    prediction: _Label
    score: _Probability | list[_Probability] | dict[str, _Probability] | None = None
    tokens: list[str] | None = None
    text: str | None = None
    text_pair: str | None = None
    seen: list[bool] | None = None

    @property
    def words(self) -> list[str]:
        """The words that `seen` is about."""
        return words_of({"tokens": self.tokens, "text": self.text, "text_pair": self.text_pair})


_LINE = TypeAdapter(Prediction)


def words_of(inputs: Mapping[str, Any]) -> list[str]:
    """Return the words of a row: its `tokens`, or the parts of `text` and `text_pair` between white space."""
    if inputs.get("tokens") is not None:
        return inputs["tokens"]
    return [word for key in ("text", "text_pair") for word in (inputs.get(key) or "").split()]


def training_words(datasets: Iterable[EncodedDataset], tasks: Iterable[str]) -> dict[str, set[str]]:
    """Return the distinct words of each task's training rows, the rows with a label for the task.

    Args:
        datasets: the training splits.
        tasks: the names of the tasks.
    """
    known: dict[str, set[str]] = {task: set() for task in tasks}
    for encoded in datasets:
        for _, inputs, labels in _rows_of(encoded):
            words = words_of(inputs)
            for task, label in labels.items():
                if label is not None and task in known:
                    known[task].update(words)
    return known


def predictions_of(
    answers: Answers,
    datasets: Mapping[str, EncodedDataset],
    split: str,
    known_words: Mapping[str, AbstractSet[str]] | None = None,
) -> Iterator[Prediction]:
    """Yield a prediction per labelled text and task, in the order of datasets, rows and tasks.

    Words without a label are left out of all lists, including `tokens`.

    Args:
        answers: the answers, see `MultitaskTrainer.answer`.
        datasets: the encoded split of each dataset.
        split: the name of the split.
        known_words: the words of the training rows of each task, see `training_words`, for `seen`; a task that is not
            named has no `seen`.
    """
    for name, encoded in datasets.items():
        for row, inputs, labels in _rows_of(encoded):
            words = words_of(inputs) if known_words else []
            for task, gold in labels.items():
                if gold is None:
                    continue
                known = (known_words or {}).get(task)
                seen = None if known is None else [word in known for word in words]
                answer = answers[name][task][row]
                lists = {"prediction": _plain(answer.label), "score": _plain(answer.confidence), "seen": seen, **inputs}
                if isinstance(gold, list) and None in gold:
                    lists = {
                        key: labelled_words(value, gold)[0] if isinstance(value, list) else value
                        for key, value in lists.items()
                    }
                    gold = [label for label in gold if label is not None]
                yield Prediction(task=task, dataset=name, split=split, row=row, gold=gold, **lists)


def _plain(value: Any) -> Any:
    """Return a label or probability without numbers of NumPy, which a kind from outside of this package may return."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value


def _rows_of(encoded: EncodedDataset) -> Iterator[tuple[int, dict[str, Any], dict[str, Any]]]:
    """Yield the index, the inputs and the labels of each source row."""
    for start in range(0, encoded.num_rows, _BLOCK):
        block = slice(start, min(start + _BLOCK, encoded.num_rows))
        inputs = {key: column[block] for key, column in encoded.inputs.items()}
        labels = {task: column[block] for task, column in encoded.references.items()}
        for place in range(block.stop - start):
            yield (
                start + place,
                {key: values[place] for key, values in inputs.items()},
                {task: values[place] for task, values in labels.items()},
            )


def write_predictions(path: Path, predictions: Iterable[Prediction]) -> None:
    """Write predictions as JSON lines. Until the new file is complete, an old file stays.

    Args:
        path: the file.
        predictions: the predictions, which may be an iterator.

    Raises:
        ModelError: if the file is a symbolic link.
    """
    write_file(path, (json_text(_as_line(prediction)) + "\n" for prediction in predictions))


def _as_line(prediction: Prediction) -> dict[str, Any]:
    values = {field.name: vars(prediction)[field.name] for field in dataclasses.fields(prediction)}
    given = ("tokens", "text", "text_pair", "seen")
    line = {key: values[key] for key in ("task", "dataset", "split", "row")}
    line |= {key: values[key] for key in given[:-1] if values[key] is not None}
    line |= {key: values[key] for key in ("gold", "prediction", "score")}
    return line if prediction.seen is None else {**line, "seen": prediction.seen}


def read_predictions(path: Path) -> dict[str, list[Prediction]]:
    """Read a file of predictions.

    Keys other than those of [`Prediction`] are ignored, and so are empty lines.

    Returns:
        The predictions of each task, in the order of the file.

    Raises:
        DataError: if the file cannot be read or has no prediction; if a line is not JSON, has a wrong form or repeats
            the text of a different line; if the lines have several splits; or if the labels of a task have several
            forms. The message names the file and the line.
    """
    found: dict[str, list[Prediction]] = {}
    texts: set[tuple[str, str, int]] = set()
    split: str | None = None
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                where = f"{path}, line {number}"
                prediction = _parsed(line, where)
                split = split or prediction.split
                of_task = found.setdefault(prediction.task, [])
                problem = _problem_of(prediction) or _conflict_of(prediction, split, of_task[:1])
                text = (prediction.task, prediction.dataset, prediction.row)
                if problem is None and text in texts:
                    problem = f"a line above has task {text[0]!r}, dataset {text[1]!r} and row {text[2]} too"
                if problem is not None:
                    raise DataError(
                        f"{where}: {problem:.300}. Write the file again: mtl-nlp evaluate … --predictions FILE."
                    )
                texts.add(text)
                of_task.append(prediction)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {one_line(error)}.") from error
    if not found:
        raise DataError(f"{path}: should have a prediction per line. The file is empty.")
    return found


def _parsed(line: bytes, where: str) -> Prediction:
    try:
        return _LINE.validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    key = str(first["loc"][0]) if first["loc"] else ""
    if first["type"] == "json_invalid":
        problem = f"should be JSON. Found {line[:80].decode(errors='replace')!r}"
    elif not key:
        problem = f"should be a JSON object. Found {first['input']!r:.80}"
    elif first["type"] == "missing":
        problem = f"`{key}` is missing"
    else:
        problem = f"`{key}` should be {_EXPECTED.get(key, 'a string')}. Found {first['input']!r:.80}"
    raise DataError(f"{where}: {problem}. A prediction is written by mtl-nlp evaluate … --predictions FILE.") from None


def _problem_of(prediction: Prediction) -> str | None:
    """Return the rule that the parts of a prediction break together, or None."""
    gold, predicted, score, tokens = prediction.gold, prediction.prediction, prediction.score, prediction.tokens
    if (tokens is None) == (prediction.text is None):
        return "either `tokens` or `text` should be given"
    if prediction.text_pair is not None and prediction.text is None:
        return "`text_pair` needs `text`"
    if _form_of(gold) != _form_of(predicted):
        return f"`gold` and `prediction` should have one form. Found {_form_of(gold)} and {_form_of(predicted)}"
    if isinstance(score, list):
        sizes = [len(part) if isinstance(part, list) else 0 for part in (tokens, gold, predicted, score)]
        if len(set(sizes)) > 1 or tokens is None:
            return (
                "`tokens`, `gold`, `prediction` and `score` should have one entry per word. "
                f"Found {', '.join(map(str, sizes))}"
            )
    if prediction.seen is not None and len(prediction.seen) != len(prediction.words):
        return f"`seen` should have one entry per word. Found {len(prediction.seen)} for {len(prediction.words)} words"
    return None


def _conflict_of(prediction: Prediction, split: str, others: list[Prediction]) -> str | None:
    """Return the rule that a prediction breaks together with the first line, or with the first line of its task."""
    if prediction.split != split:
        return f"all lines should be of one split. Found {split!r} and {prediction.split!r}"
    for other in others:
        forms = {_form_of(other.gold), _form_of(prediction.gold)}
        scores = {type(each.score).__name__ for each in (other, prediction) if each.score is not None}
        if len(forms | scores) > 2 or len(forms) > 1:
            return (
                f"all labels of task {prediction.task!r} should have one form. "
                f"Found {', '.join(sorted(forms if len(forms) > 1 else scores))}"
            )
    return None


def _form_of(label: Any) -> str:
    if isinstance(label, list):
        return "a list"
    return "a label" if isinstance(label, str) else "a number"
