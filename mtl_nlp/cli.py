"""The command line: `mtl-nlp plan|train|evaluate|predict`."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

import datasets
from safetensors import SafetensorError
from transformers import pipeline
from transformers.utils import logging

from mtl_nlp._version import __version__
from mtl_nlp.checkpoints import (
    RECIPE_NAME,
    CheckpointError,
    check_same_optimizer,
    describe_changes,
    last_checkpoint,
)
from mtl_nlp.data.conll import DataError
from mtl_nlp.evaluation.evaluator import Evaluation
from mtl_nlp.evaluation.results import results, write_results
from mtl_nlp.messages import one_line
from mtl_nlp.plan import describe_notes, describe_plan, table
from mtl_nlp.predict import answer_file
from mtl_nlp.recipe import SPLITS, Recipe, RecipeError
from mtl_nlp.run import (
    ModelError,
    Run,
    build_model,
    build_trainer,
    check_splits,
    load_model,
    load_model_tokenizer,
    plan_batches,
    prepare_evaluation,
    prepare_run,
    training_arguments,
)

INPUT_FORMATS = {".jsonl": "jsonl", ".json": "jsonl", ".conll": "conll", ".conllu": "conllu"}
"""What `predict` takes a file for by its ending; `text` otherwise."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        0; 2 if the user's input cannot be used, after one line on stderr that says why.
    """
    options = _parser().parse_args(arguments)
    # Loading reports speak of layers that the stock classes would have: nothing a user should act on.
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    # What datasets logs before it raises is in the error's one line.
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        options.command(options)
    except (RecipeError, DataError, ModelError, CheckpointError) as error:
        if options.debug:
            raise
        print(f"mtl-nlp: error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader, such as `head`, has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def plan(options: argparse.Namespace) -> None:
    """Validate and load everything, and print what training would do."""
    recipe = Recipe.load(options.recipe, options.set)
    arguments = training_arguments(recipe)
    run = prepare_run(recipe)
    text = describe_plan(run, arguments)
    if arguments.process_index == 0:
        print(text)
    check_splits(run, arguments)


def train(options: argparse.Namespace) -> None:
    """Train, save the model with its tokenizer and recipe, and score it on the held-out split."""
    recipe = Recipe.load(options.recipe, options.set)
    arguments = training_arguments(recipe)
    output = Path(recipe.output_dir)
    checkpoint = last_checkpoint(output) if options.resume else None
    if checkpoint is not None:
        check_same_optimizer(checkpoint.path, recipe)
    run = prepare_run(recipe)
    check_splits(run, arguments)
    plan_batches(run, arguments)
    if arguments.process_index == 0:
        print(describe_plan(run, arguments), flush=True)
        if checkpoint is not None:
            changes = describe_changes(checkpoint.path, recipe, arguments.world_size)
            for note in [*checkpoint.skipped, *changes, f"going on from {checkpoint.path.name}"]:
                print(f"note: --resume: {note}", flush=True)
        # Before training, so that a folder that cannot be written to is told in time.
        with _writing_to(output):
            output.mkdir(parents=True, exist_ok=True)
            (output / RECIPE_NAME).write_text(recipe.to_yaml(), encoding="utf-8")
    trainer = build_trainer(run, build_model(run), arguments)
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint.path))
    with _writing_to(output):
        trainer.save_model()
    evaluation = trainer.score(run.splits[run.held_out])
    if trainer.is_world_process_zero():
        with _writing_to(output):
            _report(evaluation, run, run.held_out, output / "results.json")
        print(f"The model is in {output}. Try it: mtl-nlp predict {output} FILE")


def evaluate(options: argparse.Namespace) -> None:
    """Score a trained model on one split of a recipe's datasets."""
    recipe = Recipe.load(options.recipe, options.set)
    arguments = training_arguments(recipe)
    arguments.eval_strategy = "no"
    folder = Path(options.model) if Path(options.model).is_dir() else Path()
    output = _writable(options.output or str(folder / "results.json"))
    model = load_model(options.model)
    run = prepare_evaluation(recipe, model, options.model, options.split)
    if arguments.process_index == 0:
        print(describe_notes(run), end="\n" if run.notes else "")
    evaluation = build_trainer(run, model, arguments).score(run.splits[options.split])
    if arguments.process_index == 0:
        _report(evaluation, run, options.split, output)


def predict(options: argparse.Namespace) -> None:
    """Answer a file of texts."""
    source = Path(options.file)
    if not source.is_file():
        raise DataError(f"There is no file {source}.")
    if options.output is not None and Path(options.output).exists() and source.samefile(options.output):
        raise DataError(f"--output {options.output} is the input file. Name another.")
    input_format = options.input_format or INPUT_FORMATS.get(source.suffix, "text")
    model = load_model(options.model)
    answer = pipeline("multitask", model=model, tokenizer=load_model_tokenizer(options.model, model))
    with _opened(options.output) as target:
        count = answer_file(answer, source, input_format, target, options.output_format, options.batch_size)
    print(f"{count} texts answered.", file=sys.stderr)


def _report(evaluation: Evaluation, run: Run, split: str, path: Path) -> None:
    """Print the scores and write them to a file."""
    rows = [
        (task, name, f"{value:.4f}") for task, values in evaluation.scores.items() for name, value in values.items()
    ]
    print()
    print(table(("task", f"{split} score", "value"), [*rows, ("all", "mtl_score", f"{evaluation.mtl_score:.4f}")]))
    write_results(path, results(split, evaluation, run.splits[split], run.recipe.sha256()))


@contextlib.contextmanager
def _writing_to(output: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise RecipeError(f"output_dir: {output} cannot be written to: {one_line(error)}.") from error


@contextlib.contextmanager
def _opened(path: str | None) -> Iterator[TextIO]:
    if path is None:
        yield sys.stdout
        return
    with open(_writable(path), "w", encoding="utf-8") as file:
        yield file


def _writable(path: str) -> Path:
    """The path of a file to write, refused before any work is done."""
    if Path(path).is_dir() or not Path(path).parent.is_dir():
        raise DataError(f"--output {path}: it should be a file in a folder that is there.")
    return Path(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mtl-nlp", description="Multitask fine-tuning of transformer encoders.")
    parser.add_argument("--version", action="version", version=f"mtl-nlp {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(function: object, help_text: str, example: str) -> argparse.ArgumentParser:
        name = function.__name__  # type: ignore[attr-defined]
        sub = commands.add_parser(
            name,
            help=help_text,
            description=function.__doc__,
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(command=function)
        sub.add_argument("--debug", action="store_true", help="show the traceback of an error")
        return sub

    def takes_overrides(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--set", action="append", default=[], metavar="KEY.PATH=VALUE", help="override a recipe key")

    sub = command(plan, "show what a recipe would train on", "mtl-nlp plan recipes/quickstart.yaml")
    sub.add_argument("recipe")
    takes_overrides(sub)

    sub = command(
        train,
        "train a recipe",
        "mtl-nlp train recipes/quickstart.yaml --set training.num_train_epochs=3\n"
        "  accelerate launch -m mtl_nlp train recipes/quickstart.yaml",
    )
    sub.add_argument("recipe")
    sub.add_argument("--resume", action="store_true", help="go on from the last whole checkpoint in output_dir")
    takes_overrides(sub)

    sub = command(
        evaluate,
        "score a trained model",
        "mtl-nlp evaluate runs/quickstart --recipe recipes/quickstart.yaml --split validation",
    )
    sub.add_argument("model", help="folder or Hub id of a trained model")
    sub.add_argument("--recipe", required=True, help="the recipe that names the data")
    sub.add_argument("--split", choices=SPLITS, default="test")
    sub.add_argument("--output", help="where to write results.json (default: the model's folder, or here for a Hub id)")
    takes_overrides(sub)

    sub = command(predict, "answer a file of texts", "mtl-nlp predict runs/quickstart texts.txt --output answers.jsonl")
    sub.add_argument("model", help="folder or Hub id of a trained model")
    sub.add_argument("file", help="a text a line, JSON lines with text[, text_pair] or tokens, or CoNLL columns")
    sub.add_argument(
        "--input-format", choices=("text", "jsonl", "conll", "conllu"), help="default: by the file's ending"
    )
    sub.add_argument("--output", help="file to write (default: standard output)")
    sub.add_argument("--output-format", choices=("jsonl", "conll"), default="jsonl")
    sub.add_argument("--batch-size", type=_positive, default=32)
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"should be a whole number of at least 1. Found {text!r}")
    return int(text)
