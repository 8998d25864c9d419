"""The command line: `mtl-nlp plan|train|evaluate|predict|demo|push|export|drop`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

import datasets
from huggingface_hub.utils import logging as hub_logging
from transformers.utils import logging

from mtl_nlp._version import __version__
from mtl_nlp.checkpoints import CheckpointError
from mtl_nlp.commands import CommandError, demo, drop, evaluate, export, plan, predict, push, train
from mtl_nlp.data.conll import DataError
from mtl_nlp.export import ExportError
from mtl_nlp.hub import HubError
from mtl_nlp.recipe import RecipeError
from mtl_nlp.recipe_sections import SPLITS
from mtl_nlp.trained_model import ModelError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        0; 2 if the user's input cannot be used, after one line on stderr that says why.
    """
    options = _parser().parse_args(arguments)
    # Loading reports speak of layers that the stock classes would have: nothing a user should act on.
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    # What these log before they raise is in the error's one line.
    hub_logging.set_verbosity_error()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        options.command(options)
    except (RecipeError, DataError, ModelError, CheckpointError, HubError, ExportError, CommandError) as error:
        if options.debug:
            raise
        print(f"mtl-nlp: error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader, such as `head`, has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


_Command = Callable[[argparse.Namespace], None]
_NewCommand = Callable[[_Command, str, str], argparse.ArgumentParser]
"""(function, what it does, example) -> its parser."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mtl-nlp", description="Multitask fine-tuning of transformer encoders.")
    parser.add_argument("--version", action="version", version=f"mtl-nlp {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(
        function: Callable[[argparse.Namespace], None], help_text: str, example: str
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            function.__name__,
            help=help_text,
            description=function.__doc__,
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(command=function)
        sub.add_argument("--debug", action="store_true", help="show the traceback of an error")
        return sub

    _add_training(command)
    _add_answering(command)
    _add_sharing(command)
    return parser


def _add_training(command: _NewCommand) -> None:
    sub = command(plan, "show what a recipe would train on", "mtl-nlp plan recipes/quickstart.yaml")
    _takes_training_recipe(sub)

    sub = command(
        train,
        "train a recipe",
        "mtl-nlp train recipes/quickstart.yaml --set training.num_train_epochs=3\n"
        "  accelerate launch -m mtl_nlp train recipes/quickstart.yaml\n"
        "  mtl-nlp train one_more_task.yaml --from runs/quickstart",
    )
    _takes_training_recipe(sub)
    sub.add_argument("--resume", action="store_true", help="go on from the last whole checkpoint in output_dir")

    sub = command(
        evaluate,
        "score a trained model",
        "mtl-nlp evaluate runs/quickstart --recipe recipes/quickstart.yaml --split validation",
    )
    sub.add_argument("model", help="folder or Hub id of a trained model")
    sub.add_argument("--recipe", required=True, help="the recipe that names the data")
    sub.add_argument("--split", choices=SPLITS, default="test")
    sub.add_argument("--output", help="where to write results.json (default: the model's folder, or here for a Hub id)")
    _takes_overrides(sub)


def _add_answering(command: _NewCommand) -> None:
    sub = command(predict, "answer a file of texts", "mtl-nlp predict runs/quickstart texts.txt --output answers.jsonl")
    sub.add_argument("model", help="folder or Hub id of a trained model")
    sub.add_argument("file", help="a text a line, JSON lines with text[, text_pair] or tokens, or CoNLL columns")
    sub.add_argument(
        "--input-format", choices=("text", "jsonl", "conll", "conllu"), help="default: by the file's ending"
    )
    sub.add_argument("--output", help="file to write (default: standard output)")
    sub.add_argument("--output-format", choices=("jsonl", "conll"), default="jsonl")
    sub.add_argument("--batch-size", type=_positive, default=32)

    sub = command(demo, "try a trained model on a page", "mtl-nlp demo runs/quickstart")
    sub.add_argument("model", help="folder or Hub id of a trained model, or folder of an exported one")
    sub.add_argument("--host", default="127.0.0.1", help="address to serve on; 0.0.0.0 for all networks")
    sub.add_argument("--port", type=_positive, help="default: the first free one from 7860")
    sub.add_argument("--open", action="store_true", help="open a browser")
    sub.add_argument("--space", metavar="DIR", help="write a folder for a Hub Space in place of serving")


def _add_sharing(command: _NewCommand) -> None:
    sub = command(push, "push a trained model to the Hub", "mtl-nlp push runs/quickstart YOU/NAME --private")
    sub.add_argument("model", help="folder of a trained model")
    sub.add_argument("repo_id", help="OWNER/NAME, or NAME in your own namespace; made if it is not there")
    sub.add_argument("--private", action="store_true", help="if the repository is made: only for its owner to see")
    sub.add_argument("--revision", help="a branch to push to, made if it is not there (default: main)")
    sub.add_argument("--create-pr", action="store_true", help="open a pull request in place of pushing")
    sub.add_argument("--with-code", action="store_true", help="push the model's code too, for those without mtl_nlp")
    sub.add_argument("--commit-message", default="Upload model trained with mtl_nlp", metavar="TEXT")

    sub = command(
        export,
        "write a trained model for others",
        "mtl-nlp export runs/quickstart --task ner --format transformers ner-model\n"
        "  mtl-nlp export runs/adapters --task ner --format peft ner-adapter\n"
        "  mtl-nlp export runs/quickstart --format onnx --int8 --recipe recipes/quickstart.yaml onnx-model",
    )
    sub.add_argument("model", help="folder or Hub id of a trained model")
    sub.add_argument("output", help="folder to write")
    sub.add_argument("--format", choices=("transformers", "peft", "onnx"), required=True)
    sub.add_argument("--task", help="for transformers and peft: the task to export")
    sub.add_argument("--int8", action="store_true", help="for onnx: 8-bit weights; needs --recipe")
    sub.add_argument("--recipe", help="for onnx: score the file beside the model on this recipe's --split")
    sub.add_argument("--split", choices=SPLITS, default="validation")
    _takes_overrides(sub)

    sub = command(drop, "leave tasks out of a trained model", "mtl-nlp drop runs/quickstart without-ner --task ner")
    sub.add_argument("model", help="folder or Hub id of a trained model")
    sub.add_argument("output", help="folder to write")
    sub.add_argument("--task", action="append", required=True, help="the task to leave out; may be repeated")


def _takes_training_recipe(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("recipe")
    sub.add_argument(
        "--from",
        dest="from_model",
        metavar="MODEL",
        help="folder or Hub id of a trained multitask model to go on from: it is the recipe's encoder, and its tasks, "
        "heads and adapters are kept",
    )
    _takes_overrides(sub)


def _takes_overrides(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--set", action="append", default=[], metavar="KEY.PATH=VALUE", help="override a recipe key")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"should be a whole number of at least 1. Found {text!r}")
    return int(text)
