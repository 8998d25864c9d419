"""The answers for a file of texts, one text at a time, as JSONL or as columns."""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import torch
from tqdm.auto import tqdm
from transformers import Pipeline, pipeline

from mtl_nlp.errors import CommandError, DataError, needs_extra
from mtl_nlp.hub.loading import load_model, load_model_tokenizer
from mtl_nlp.messages import did_you_mean, is_finite, json_text, one_line
from mtl_nlp.modeling.pipeline_multitask import MultitaskPipeline, parse_input
from mtl_nlp.modeling.tasks_multitask import Task
from mtl_nlp.modeling.windows_multitask import added_tokens
from mtl_nlp.run_folder import ONNX_NAME
from mtl_nlp.serving.inputs import Input, Source

_READ_AHEAD = 32
"""The number of batches that are read and sorted by length together."""

_DECIMALS = 4
_DIGITS = 6
"""Significant digits of a number that is not a probability, since a task may predict numbers of any size."""


def answer_file(
    pipeline: MultitaskPipeline,
    source: Source,
    target: TextIO,
    output_format: str = "jsonl",
    batch_size: int = 32,
    report: Callable[[DataError], None] | None = None,
    **options: Any,
) -> int:
    """Answer every input of a file, and write each answer as soon as it is available, in the order of the file.

    An input has no answer if its line cannot be read, or the pipeline refuses the input, or a score is not finite.

    Args:
        pipeline: the multitask pipeline.
        source: the file.
        target: the open file to write to.
        output_format: `jsonl`, objects with the input and `answers`, with probabilities rounded to 4 decimals; or
            `conll`, a comment that names the columns, and for each input a comment per task on texts, followed by one
            line per word with a column per task on words. See `as_cell` for words that a column cannot hold.
        batch_size: texts per encoder pass. Up to 32 batches are read ahead, except for a batch size of 1.
        report: a function that gets the reason why an input has no answer, which is then not raised.
        **options: `tasks` and `top_k` of the pipeline.

    Returns:
        The number of inputs that were answered.

    Raises:
        DataError: if the file cannot be read, or if an input has no answer and `report` is not given. The answers of
            all inputs before it are written.
    """
    count = 0
    total = source.count() if sys.stderr.isatty() else None
    with tqdm(total=total, unit=" texts", disable=source.is_stream or None) as bar:
        for found in _answers(pipeline, source, batch_size, options):
            bar.update()
            if isinstance(found, DataError):
                if report is None:
                    raise found
                report(found)
                continue
            target.write(_shown(pipeline, *found, output_format, is_first=count == 0))
            if source.is_stream:
                target.flush()
            count += 1
    return count


_Answer = dict[str, list[dict[str, Any]]]


def _answers(
    pipeline: MultitaskPipeline, source: Source, batch_size: int, options: Mapping[str, Any]
) -> Iterator[tuple[Input, _Answer] | DataError]:
    """Yield each input with its answer, or the reason why there is no answer, in the order of the file.

    Raises:
        DataError: if the file cannot be read to its end, after the answers of the inputs before this place.
    """
    items, failure = source.items(), None
    ahead = 1 if batch_size == 1 else _READ_AHEAD * batch_size
    while failure is None:
        block: list[Input | DataError] = []
        try:
            for item in itertools.islice(items, ahead):
                block.append(item)
        except DataError as error:
            failure = error
        if not block and failure is None:
            return
        inputs = [item for item in block if isinstance(item, Input)]
        answers = iter(_answer_block(pipeline, inputs, batch_size=batch_size, **options))
        for item in block:
            if isinstance(item, DataError):
                yield item
                continue
            answer = next(answers)
            yield answer if isinstance(answer, DataError) else (item, answer)
    raise failure


def _answer_block(pipeline: MultitaskPipeline, inputs: Sequence[Input], **options: Any) -> list[_Answer | DataError]:
    """Return the answer of each input, or the reason why it has no answer."""
    if not inputs:
        return []
    try:
        answers = pipeline([item.question for item in inputs], **options)
    except ValueError as error:
        if len(inputs) == 1:
            return [DataError(f"{inputs[0].where}: {one_line(error)}")]
        return [answer for item in inputs for answer in _answer_block(pipeline, [item], **options)]
    return [_checked(item, answer) for item, answer in zip(inputs, answers, strict=True)]


def _checked(item: Input, answer: _Answer) -> _Answer | DataError:
    """Return an answer, or an error if one of its scores is not finite."""
    for name, entries in answer.items():
        flat = [each for entry in entries for each in (entry if isinstance(entry, list) else [entry])]
        if not all(is_finite(entry["score"]) for entry in flat):
            return DataError(f"{item.where}: the answer of {name} is not a finite number.")
    return answer


def _shown(pipeline: MultitaskPipeline, item: Input, answer: _Answer, output_format: str, *, is_first: bool) -> str:
    """Return an input and its answer as a line of JSONL, or as columns below the names of the columns."""
    tasks = pipeline.model.tasks
    if output_format == "jsonl":
        content = {"text": item.content} if isinstance(item.content, str) else item.content
        answers = {name: _rounded(entries, tasks[name]) for name, entries in answer.items()}
        return json_text({**content, "answers": answers}) + "\n"
    columns = [_as_name(name) for name in answer if tasks[name].kind.labels_words]
    header = f"# global.columns = {' '.join(['tokens', *columns])}\n" if is_first else ""
    return header + _as_conll(item.question, answer, tasks, added_tokens(pipeline.tokenizer))


def _rounded(entries: Any, task: Task) -> Any:
    """Return the entries of an answer with rounded scores. A word may have a list of entries."""
    if isinstance(entries, list):
        return [_rounded(entry, task) for entry in entries]
    score = entries["score"]
    is_number = task.kind.display == "number"
    return {**entries, "score": float(f"{score:.{_DIGITS}g}") if is_number else round(score, _DECIMALS)}


def _as_conll(
    item: str | dict[str, Any], answer: Mapping[str, Any], tasks: Mapping[str, Task], whole: Sequence[str]
) -> str:
    text, words = parse_input(item, whole)
    lines = [f"# text = {' '.join(text.split())}"]
    columns = [[word.text for word in words]]
    for name, entries in answer.items():
        kind = tasks[name].kind
        strings = kind.as_strings(entries, words)
        if kind.labels_words:
            columns.append(strings)
        else:
            lines.append(f"# {_as_name(name)} = {' '.join(' '.join(strings).split())}")
    alone = len(columns) == 1
    if not words:  # a text without a line would be lost when the columns are read back
        columns = [["_"] for _ in columns]
    lines += ["\t".join(as_cell(cell, alone=alone) for cell in row) for row in zip(*columns, strict=True)]
    return "\n".join(lines) + "\n\n"


def as_cell(text: str, *, alone: bool = False) -> str:
    """Return a word or label in a form that a reader of columns reads as one cell of its line.

    White space becomes a no-break space, except single spaces in a line with tabs. An empty cell becomes `_`, as in
    CoNLL-U, and a word that starts like a line `-DOCSTART-` gets a different hyphen.

    Args:
        text: the word or label.
        alone: whether the line has no other cell.
    """
    cell = re.sub(r"\s" if alone or text.startswith("#") else r"[^\S ]", "\u00a0", text)
    if not cell.strip():
        return "_"
    return f"\u2010{cell[1:]}" if cell.startswith("-DOCSTART-") else cell


def _as_name(task: str) -> str:
    """Return the name of a task as the key of a comment, which has no white space."""
    return re.sub(r"[^\w:.-]", "_", task)


def task_names(texts: Iterable[str], valid: Sequence[str]) -> list[str]:
    """Return the tasks that an option names, separated by commas or spaces.

    Args:
        texts: the values of the option. A name with a comma is a value of its own.
        valid: the tasks of the model.

    Raises:
        CommandError: if the model has no such task.
    """
    names = [name for text in texts for name in ([text] if text in valid else filter(None, text.split(",")))]
    for name in names:
        if name not in valid:
            raise CommandError(f"--tasks {name}: no such task. {did_you_mean(name, valid)}")
    return names


def load_pipeline(folder: str, device: str | None = None) -> Pipeline:
    """Return the pipeline of a trained model, or of a model that was exported as ONNX.

    Args:
        folder: folder or Hub id of a trained model, or folder of an exported model.
        device: the device of the model, such as `cpu` or `cuda:1`; by default the first accelerator, if there is one.

    Raises:
        ModelError: if the folder or repository has no usable multitask model.
        CommandError: if the model is an ONNX file and the extra `onnx` is not installed, or the device does not exist.
    """
    if not (Path(folder) / ONNX_NAME).is_file():
        chosen = {} if device is None else {"device": _existing(device)}
        model = load_model(folder)
        return pipeline("multitask", model=model, tokenizer=load_model_tokenizer(folder, model.config), **chosen)
    if device not in {None, "cpu"}:
        raise CommandError(f"--device {device}: an ONNX model runs on the CPU here. Leave out the option.")
    with needs_extra("onnx"):
        from mtl_nlp.export.onnx import OnnxMultitaskModel
    exported = OnnxMultitaskModel.from_pretrained(folder)
    return pipeline("multitask", model=exported, tokenizer=load_model_tokenizer(folder, exported.config))


def _existing(device: str) -> torch.device:
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # NotImplementedError: the device `meta`
        raise CommandError(f"--device {device}: cannot be used: {one_line(error)}") from error
    return torch.device(device)
