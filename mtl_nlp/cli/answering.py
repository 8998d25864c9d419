"""The commands that answer texts: `predict` and `demo`."""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from mtl_nlp.cli.options import add_command, new_folder, positive_integer, quiet_libraries, writable_file
from mtl_nlp.data.conll import STANDARD_INPUT
from mtl_nlp.errors import CommandError, DataError, needs_extra, writing_to
from mtl_nlp.messages import conceal, counted, one_line
from mtl_nlp.recipe.files import ENDINGS, ending_of

logger = logging.getLogger(__name__)

INPUT_FORMATS = {
    ".jsonl": "jsonl",
    ".json": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".conll": "conll",
    ".conllu": "conllu",
}
"""The input format of `predict` for each ending of a file, also before `.gz`; `text` for any other ending."""


_SHOWN_FLAWS = 20
"""The number of inputs without an answer whose reasons `predict` prints."""


def add_commands(commands: Any) -> None:
    """Add the commands of this module to the command line."""
    _add_predict(commands)
    parser = add_command(commands, demo, "try a trained model on a web page", "mtl-nlp demo runs/quickstart")
    parser.add_argument("model", help="folder or Hub id of a trained model, or folder of a model exported as ONNX")
    parser.add_argument("--host", default="127.0.0.1", help="the page's address; 0.0.0.0 for all networks")
    parser.add_argument(
        "--port", type=positive_integer, help="the page's port (default: the first free port from 7860)"
    )
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    parser.add_argument("--space", metavar="DIR", help="write a new folder for a Hub Space instead of serving")


def _add_predict(commands: Any) -> None:
    parser = add_command(
        commands,
        predict,
        "answer a file of texts",
        "mtl-nlp predict runs/quickstart texts.txt --output answers.jsonl\n"
        "  mtl-nlp predict runs/quickstart tickets.csv --text-column body --tasks topic --top-k 3\n"
        "  mtl-nlp predict runs/quickstart - < texts.txt\n"
        "  mtl-nlp predict runs/quickstart - --input-format csv --text-column body < tickets.csv",
    )
    parser.add_argument("model", help="folder or Hub id of a trained model")
    parser.add_argument(
        "file",
        help="one text per line, a table (.csv, .tsv), JSON lines with text[, text_pair] or tokens, or CoNLL columns; "
        "- for standard input, which is answered line by line",
    )
    parser.add_argument(
        "--input-format",
        choices=tuple(dict.fromkeys(["text", *INPUT_FORMATS.values()])),
        help="default: as the file's ending says; text for standard input, so give csv for a table there",
    )
    parser.add_argument("--sep", metavar="CHARACTER", help="between two cells of a table, such as ';' (default: ,)")
    parser.add_argument("--text-column", metavar="NAME", help="column of the texts (default: text)")
    parser.add_argument(
        "--text-pair-column", metavar="NAME", help="column of the second texts of pairs (default: text_pair, if any)"
    )
    parser.add_argument(
        "--tasks",
        action="append",
        metavar="TASK[,TASK]",
        help="tasks to answer, separated by commas (default: all that fit the input)",
    )
    parser.add_argument(
        "--top-k",
        type=_number_or_all,
        default=argparse.SUPPRESS,
        metavar="K",
        help="labels to show per text, best first, or all (default: the predicted); words keep the predicted one",
    )
    parser.add_argument("--device", help="such as cpu, cuda:1 or mps (default: the first accelerator, if any)")
    parser.add_argument("--output", help="the file to write (default: standard output)")
    parser.add_argument("--output-format", choices=("jsonl", "conll"), default="jsonl", help="default: jsonl")
    parser.add_argument(
        "--batch-size", type=positive_integer, help="texts per encoder pass (default: 32; 1 for standard input)"
    )


def _number_or_all(text: str) -> int | None:
    return None if text == "all" else positive_integer(text)


def predict(options: argparse.Namespace) -> None:
    """Answer a file of texts."""
    is_stream = options.file == STANDARD_INPUT
    if not is_stream and not Path(options.file).is_file():
        raise DataError(f"There is no file {options.file}.")
    if options.output is not None:
        writable_file(options.output, options.file, options.model)
    ending = ending_of(options.file)
    if options.input_format is None and ENDINGS.get(ending) in {"parquet", "arrow"}:
        raise CommandError(
            f"{options.file}: predict reads text, CSV, TSV, JSON and columns. Convert the {ending} file."
        )
    input_format = options.input_format or INPUT_FORMATS.get(ending, "text")
    if input_format not in {"csv", "tsv", "jsonl"} and (options.text_column or options.text_pair_column):
        remedy = "Leave it out" if options.input_format else "Add --input-format csv, tsv or jsonl"
        name = "standard input" if is_stream else options.file
        raise CommandError(f"--text-column: {name} is read as {input_format}, which has no named columns. {remedy}.")
    if "top_k" in options and options.output_format == "conll":
        raise CommandError("--top-k: columns hold one label per word. Leave it out, or choose --output-format jsonl.")
    separator = "\t" if options.sep == "\\t" else options.sep
    is_character = separator is None or (len(separator) == 1 and separator not in '"\r\n')
    if separator is not None and not (is_character and input_format in {"csv", "tsv"}):
        raise CommandError(
            f"--sep {separator!r}: should be one character between the cells of a table. The input is read as "
            f"{input_format}; choose --input-format csv for a table."
        )
    quiet_libraries()
    from mtl_nlp.serving.inputs import Source
    from mtl_nlp.serving.predict import answer_file, load_pipeline, task_names

    logger.info("loading the model from %s", options.model)
    answer = load_pipeline(options.model, options.device)
    is_guess = options.input_format is None
    columns = options.text_column, options.text_pair_column
    source = Source(Path(options.file), input_format, *columns, is_guess, separator)
    chosen = {} if options.tasks is None else {"tasks": task_names(options.tasks, list(answer.model.tasks))}
    chosen |= {"top_k": options.top_k} if "top_k" in options else {}
    batch_size = options.batch_size or (1 if is_stream else 32)
    unanswered = _Unanswered()
    with _opened(options.output) as target:
        count = answer_file(answer, source, target, options.output_format, batch_size, unanswered, **chosen)
    for note in source.notes:
        print(f"note: {conceal(note)}", file=sys.stderr)
    print(f"{counted(count, 'text')} answered.", file=sys.stderr)
    if unanswered.count:
        total = counted(unanswered.count + count, "text has", "texts have")
        raise DataError(f"{source.name}: {unanswered.count} of {total} no answer.")


class _Unanswered:
    """Counts the inputs without an answer, and prints the reasons of the first ones at once."""

    count = 0

    def __call__(self, flaw: DataError) -> None:
        from tqdm import tqdm

        self.count += 1
        if self.count <= _SHOWN_FLAWS:
            tqdm.write(f"no answer: {flaw}", file=sys.stderr)
        elif self.count == _SHOWN_FLAWS + 1:
            tqdm.write("no answer: …", file=sys.stderr)


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
