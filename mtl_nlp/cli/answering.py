"""The commands that answer texts: `predict` and `demo`."""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from mtl_nlp.cli.options import add_command, new_folder, positive_integer, quiet_libraries, writable_file
from mtl_nlp.errors import CommandError, DataError, needs_extra, writing_to
from mtl_nlp.messages import one_line

INPUT_FORMATS = {".jsonl": "jsonl", ".json": "jsonl", ".conll": "conll", ".conllu": "conllu"}
"""The input format of `predict` for each file suffix; `text` for any other suffix."""


def add_commands(commands: Any) -> None:
    """Add the commands of this module to the command line."""
    parser = add_command(
        commands, predict, "answer a file of texts", "mtl-nlp predict runs/quickstart texts.txt --output answers.jsonl"
    )
    parser.add_argument("model", help="folder or Hub id of a trained model")
    parser.add_argument("file", help="one text per line, JSON lines with text[, text_pair] or tokens, or CoNLL columns")
    parser.add_argument(
        "--input-format", choices=("text", "jsonl", "conll", "conllu"), help="default: as the file's suffix says"
    )
    parser.add_argument("--output", help="the file to write (default: standard output)")
    parser.add_argument("--output-format", choices=("jsonl", "conll"), default="jsonl", help="default: jsonl")
    parser.add_argument("--batch-size", type=positive_integer, default=32, help="texts per encoder pass (default: 32)")

    parser = add_command(commands, demo, "try a trained model on a web page", "mtl-nlp demo runs/quickstart")
    parser.add_argument("model", help="folder or Hub id of a trained model, or folder of a model exported as ONNX")
    parser.add_argument("--host", default="127.0.0.1", help="the page's address; 0.0.0.0 for all networks")
    parser.add_argument(
        "--port", type=positive_integer, help="the page's port (default: the first free port from 7860)"
    )
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    parser.add_argument("--space", metavar="DIR", help="write a new folder for a Hub Space instead of serving")


def predict(options: argparse.Namespace) -> None:
    """Answer a file of texts."""
    source = Path(options.file)
    if not source.is_file():
        raise DataError(f"There is no file {source}.")
    if options.output is not None:
        writable_file(options.output, options.file, options.model)
    input_format = options.input_format or INPUT_FORMATS.get(source.suffix, "text")
    quiet_libraries()
    from mtl_nlp.serving.predict import answer_file, load_pipeline

    answer = load_pipeline(options.model)
    with _opened(options.output) as target:
        count = answer_file(answer, source, input_format, target, options.output_format, options.batch_size)
    print(f"{count} texts answered.", file=sys.stderr)


def demo(options: argparse.Namespace) -> None:
    """Serve a web page to try a trained model on, or write the folder of a Hub Space with this page."""
    space = None if options.space is None else new_folder(options.space, "--space")
    quiet_libraries()
    with needs_extra("demo"):
        from mtl_nlp.serving.page import launch_page
        from mtl_nlp.serving.space import write_space
    from mtl_nlp.serving.predict import load_pipeline

    title = Path(options.model).resolve().name
    if space is not None:
        with writing_to(space, "--space"):
            write_space(options.model, space, title)
        print(f"The Space is in {options.space}: hf upload YOU/NAME {options.space} --repo-type space")
        return
    answer = load_pipeline(options.model)
    try:
        launch_page(answer, title, host=options.host, port=options.port, in_browser=options.open)
    except (OSError, OverflowError) as error:
        address = options.host if options.port is None else f"{options.host}:{options.port}"
        raise CommandError(f"the page cannot be served on {address}: {one_line(error).rstrip('.')}.") from error


@contextlib.contextmanager
def _opened(path: str | None) -> Iterator[TextIO]:
    if path is None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            # The answers are the same data as in a file. The locale may lack characters of the texts.
            sys.stdout.reconfigure(encoding="utf-8")
        yield sys.stdout
        return
    with writing_to(Path(path), "--output"):
        file = open(writable_file(path), "w", encoding="utf-8")  # noqa: SIM115
    with file:
        yield file
