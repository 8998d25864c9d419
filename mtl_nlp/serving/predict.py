"""The answers for a file of texts, one text at a time: from lines, JSONL or CoNLL to JSONL or CoNLL."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from tqdm.auto import tqdm
from transformers import Pipeline, pipeline

from mtl_nlp.data.conll import read_conllu, read_first_column, read_lines
from mtl_nlp.errors import DataError, needs_extra
from mtl_nlp.hub.loading import load_model, load_model_tokenizer
from mtl_nlp.messages import json_text, one_line
from mtl_nlp.modeling.pipeline_multitask import MultitaskPipeline, parse_input
from mtl_nlp.modeling.tasks_multitask import Task
from mtl_nlp.run_folder import ONNX_NAME

_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


def read_inputs(path: Path, input_format: str) -> Iterator[str | dict[str, Any]]:
    """Yield the inputs for the pipeline, in the order of the file.

    Args:
        path: the file.
        input_format: `text` (one text per line; an empty line is an empty text), `jsonl` (objects with `text` and
            `text_pair`, or `tokens`), `conll` (one word per line, in the first column) or `conllu`.

    Raises:
        DataError: if a line cannot be read; the message names the line number.
    """
    if input_format in {"conll", "conllu"}:
        sentences = read_first_column(path) if input_format == "conll" else (s["tokens"] for s in read_conllu(path))
        yield from ({"tokens": words} for words in sentences)
        return
    for number, line in read_lines(path):
        yield _json_input(path, number, line) if input_format == "jsonl" else line


def count_inputs(path: Path, input_format: str) -> int:
    """Return the number of inputs in a file, for the progress bar."""
    with open(path, "rb") as lines:
        if input_format in {"text", "jsonl"}:
            return sum(1 for _ in lines)
        blank, sentences = True, 0
        for line in lines:
            is_blank = not line.strip() or line.startswith(b"# ")
            sentences += blank and not is_blank
            blank = is_blank
        return sentences


def answer_file(
    pipeline: MultitaskPipeline, source: Path, input_format: str, target: TextIO, output_format: str, batch_size: int
) -> int:
    """Answer every input of a file, and write each answer as soon as it is available, in the order of the file.

    Args:
        pipeline: the multitask pipeline.
        source: the file.
        input_format: see `read_inputs`.
        target: the open file to write to.
        output_format: `jsonl`, objects with the input and `answers`; or `conll`, a comment per task on texts,
            followed by one line per word with a column per task on words.
        batch_size: texts per encoder pass.

    Returns:
        The number of inputs that were answered.
    """
    count = 0
    inputs, questions = itertools.tee(read_inputs(source, input_format))
    answers = pipeline((_question(item) for item in questions), batch_size=batch_size)
    pairs = zip(inputs, answers, strict=True)
    # disable=None shows the bar only in a terminal.
    for item, answer in tqdm(pairs, total=count_inputs(source, input_format), unit=" texts", disable=None):
        if output_format == "jsonl":
            content = {"text": item} if isinstance(item, str) else item
            target.write(json_text({**content, "answers": answer}) + "\n")
        else:
            target.write(_as_conll(_question(item), answer, pipeline.model.tasks))
        count += 1
    return count


def _as_conll(item: str | dict[str, Any], answer: dict[str, list[dict[str, Any]]], tasks: Mapping[str, Task]) -> str:
    text, words = parse_input(item)
    lines = [f"# text = {' '.join(text.split())}"]
    columns = [[word.text for word in words]]
    for name, entries in answer.items():
        kind = tasks[name].kind
        strings = kind.as_strings(entries, words)
        if kind.labels_words:
            columns.append(strings)
        else:
            lines.append(f"# {name} = {' '.join(strings)}")
    lines += ["\t".join(row) for row in zip(*columns, strict=True)]
    return "\n".join(lines) + "\n\n"


def _json_input(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {number}: not JSON: {error.msg}.") from error
    except (RecursionError, ValueError) as error:  # ValueError: an integer of thousands of digits
        raise DataError(f"{path}, line {number}: cannot be read as JSON: {one_line(error)}") from error
    if _SURROGATE_ESCAPE.search(line):
        try:
            json.dumps(content, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise DataError(f"{path}, line {number}: half of a surrogate pair is not a character.") from error
    if not isinstance(content, dict) or not ("text" in content or "tokens" in content):
        raise DataError(f'{path}, line {number}: expected an object with "text" or "tokens". Found {line.strip():.80}.')
    if "tokens" in content:
        if not isinstance(content["tokens"], list) or not all(isinstance(word, str) for word in content["tokens"]):
            raise DataError(f'{path}, line {number}: "tokens" should be a list of strings. Found {line.strip():.80}.')
        return content
    if not isinstance(content["text"], str):
        raise DataError(f'{path}, line {number}: "text" should be a string. Found {line.strip():.80}.')
    if not isinstance(content.get("text_pair", ""), str | None):
        raise DataError(f'{path}, line {number}: "text_pair" should be a string. Found {line.strip():.80}.')
    return content


def _question(item: str | dict[str, Any]) -> str | dict[str, Any]:
    """Return the part of an input that the pipeline reads. The other keys, such as an id, only go to the output."""
    if isinstance(item, str):
        return item
    keys = ("tokens",) if "tokens" in item else ("text", "text_pair")
    return {key: item[key] for key in keys if item.get(key) is not None}


def load_pipeline(folder: str) -> Pipeline:
    """Return the pipeline of a trained model, or of a model that was exported as ONNX.

    Args:
        folder: folder or Hub id of a trained model, or folder of an exported model.

    Raises:
        ModelError: if the folder or repository has no usable multitask model.
        CommandError: if the model is an ONNX file and the extra `onnx` is not installed.
    """
    if not (Path(folder) / ONNX_NAME).is_file():
        model = load_model(folder)
        return pipeline("multitask", model=model, tokenizer=load_model_tokenizer(folder, model.config))
    with needs_extra("onnx"):
        from mtl_nlp.export.onnx import OnnxMultitaskModel
    exported = OnnxMultitaskModel.from_pretrained(folder)
    return pipeline("multitask", model=exported, tokenizer=load_model_tokenizer(folder, exported.config))
