"""The commands that train and score models: `plan`, `train` and `evaluate`."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl_nlp.cli.options import add_command, add_overrides, quiet_libraries, report_progress, writable_file
from mtl_nlp.cli.signals import advice_to_resume, sigterm_stops
from mtl_nlp.errors import CommandError, RunError, writing_to
from mtl_nlp.messages import conceal
from mtl_nlp.recipe.sections import SPLITS
from mtl_nlp.run_folder import REPORT_NAME

if TYPE_CHECKING:
    from mtl_nlp.recipe.schema import Recipe
    from mtl_nlp.training.trainer import MultitaskTrainer

logger = logging.getLogger(__name__)


def add_commands(commands: Any) -> None:
    """Add the commands of this module to the command line."""
    parser = add_command(
        commands, plan, "show the training that a recipe describes", "mtl-nlp plan recipes/quickstart.yaml"
    )
    _add_training_recipe(parser)
    parser.add_argument(
        "--no-model",
        action="store_true",
        help="build no model: leave out its trial run, and the loss with which each task starts",
    )
    parser.add_argument(
        "--fit",
        action="store_true",
        help="also find the largest `max_tokens_per_batch` that fits on this accelerator, by trying training steps",
    )

    parser = add_command(
        commands,
        train,
        "train a recipe",
        "mtl-nlp train recipes/quickstart.yaml --set training.num_train_epochs=3\n"
        "  accelerate launch -m mtl_nlp train recipes/quickstart.yaml\n"
        "  mtl-nlp train one_more_task.yaml --from runs/quickstart",
    )
    _add_training_recipe(parser)
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument(
        "--resume", action="store_true", help="resume from the last complete checkpoint in output_dir"
    )
    existing.add_argument(
        "--overwrite",
        action="store_true",
        help="replace the run in output_dir: its checkpoints when training starts, its model when training ends",
    )

    parser = add_command(
        commands,
        evaluate,
        "score a trained model",
        "mtl-nlp evaluate runs/quickstart --recipe recipes/quickstart.yaml --split validation",
    )
    parser.add_argument("model", help="folder or Hub id of a trained model")
    parser.add_argument("--recipe", required=True, help="the recipe that names the data")
    parser.add_argument(
        "--split",
        choices=SPLITS,
        help="default: test, or validation if test lacks labels for a task, as after training",
    )
    parser.add_argument(
        "--output", help="the file to write (default: results.json in the model's folder; none for a Hub id)"
    )
    parser.add_argument(
        "--predictions", metavar="FILE", help="write every prediction with gold label, probability and text, as JSONL"
    )
    parser.add_argument(
        "--details",
        action="store_true",
        help="also precision, recall and F1 of each label, and the confusion of classes",
    )
    add_overrides(parser)


def plan(options: argparse.Namespace) -> None:
    """Check a recipe, load its data and encoder, and print a description of the training."""
    print_plan(_training_recipe(options), tries_model=not options.no_model, fits=options.fit)


def print_plan(recipe: Recipe, *, tries_model: bool, fits: bool = False) -> None:
    """Load the data and the encoder of a recipe, and print a description of the training.

    Args:
        recipe: the recipe.
        tries_model: whether to try a small model, and to print the losses with which the tasks start.
        fits: whether to find the largest batch that fits on the device.
    """
    quiet_libraries()
    from mtl_nlp.run.arguments import training_arguments
    from mtl_nlp.run.build import check_splits
    from mtl_nlp.run.first_losses import describe_first_losses, first_losses
    from mtl_nlp.run.fit import check_fit, describe_fit, fit_batches
    from mtl_nlp.run.plan import describe_plan
    from mtl_nlp.run.prepare import prepare

    arguments = training_arguments(recipe)
    if fits:
        check_fit(arguments)
    run = prepare(recipe)
    if tries_model:
        run.try_model()
    text = describe_plan(run, arguments)
    if arguments.process_index == 0:
        print(text, flush=True)
    check_splits(run, arguments)
    if arguments.process_index == 0 and tries_model:
        print("\n" + describe_first_losses(run, first_losses(run)), flush=fits)
    if fits:
        print("\n" + describe_fit(fit_batches(run, arguments), arguments.device))


def train(options: argparse.Namespace) -> None:
    """Train a model, save it with its tokenizer and recipe, and score it on the test split, or else on validation."""
    report_progress(when_piped=True)
    recipe = _training_recipe(options)
    with advice_to_resume(Path(recipe.output_dir)):
        quiet_libraries()
        from mtl_nlp.run.train import train as train_run

        say = partial(print, flush=True)
        trained = train_run(recipe, resume=options.resume, overwrite=options.overwrite, say=say, watch=_until_sigterm)
    _write_report(trained.folder)


def _write_report(folder: Path) -> None:
    from accelerate import PartialState

    from mtl_nlp.report.page import write_report

    if PartialState().is_main_process:
        with writing_to(folder, error_type=RunError):
            write_report(folder)
        print(conceal(f"The report is in {folder / REPORT_NAME}."))


@contextlib.contextmanager
def _until_sigterm(trainer: MultitaskTrainer) -> Iterator[None]:
    from transformers.utils import logging as transformers_logging

    # Trainer enables these bars when it is built and when it trains. They show each checkpoint's weights.
    transformers_logging.disable_progress_bar()
    with sigterm_stops(trainer):
        yield
    transformers_logging.disable_progress_bar()


def evaluate(options: argparse.Namespace) -> None:
    """Score a trained model on one split of a recipe's datasets."""
    from mtl_nlp.recipe.schema import Recipe
    from mtl_nlp.run_folder import RESULTS_NAME, training_in, write_results

    recipe = Recipe.load(options.recipe, options.set, allow_code=options.allow_code)
    logger.info("%s: loading the libraries", conceal(options.recipe))
    beside = Path(options.model) / RESULTS_NAME if Path(options.model).is_dir() else None
    is_beside = options.output is None or (beside is not None and Path(options.output).resolve() == beside.resolve())
    output = beside if is_beside else writable_file(options.output, options.recipe, options.model)
    predictions = None if options.predictions is None else _predictions_file(options, output)
    quiet_libraries()
    from mtl_nlp.evaluation.details import describe_details, details_of
    from mtl_nlp.evaluation.evaluator import score_answers
    from mtl_nlp.evaluation.predictions import predictions_of, write_predictions
    from mtl_nlp.evaluation.results import describe_scores, results
    from mtl_nlp.hub.loading import load_model
    from mtl_nlp.hub.model_card import write_model_card
    from mtl_nlp.run.arguments import evaluation_arguments
    from mtl_nlp.run.build import build_trainer
    from mtl_nlp.run.plan import describe_notes
    from mtl_nlp.run.prepare import prepare_evaluation
    from mtl_nlp.training.failures import lost_processes_reported

    arguments = evaluation_arguments(recipe, Path() if output is None else output.resolve().parent)
    logger.info("loading the model from %s", options.model)
    model = load_model(options.model)
    run = prepare_evaluation(recipe, model, options.model, options.split)
    if arguments.process_index == 0:
        print(describe_notes(run), end="\n" if run.notes else "")
    trainer = build_trainer(run, model, arguments)
    name = options.split or run.held_out
    split = run.splits[name]
    with lost_processes_reported(None):
        answers = trainer.answer(split)
    if arguments.process_index != 0:
        return
    evaluation = score_answers(answers, split, run.tasks)
    print("\n" + describe_scores(evaluation, name))
    details = details_of(answers, split, run.tasks) if options.details else {}
    if details:
        print("\n" + describe_details(details))
    if predictions is not None:
        with writing_to(predictions, "--predictions"):
            write_predictions(predictions, predictions_of(answers, split, name))
        print(conceal(f"The predictions are in {predictions}."))
    if output is None:
        return
    content = results(name, evaluation, split, recipe.sha256(), training_in(output), recipe.own_code)
    if details:
        content["details"] = details
    with writing_to(output, "--output"):
        write_results(output, content)
        if output == beside:
            write_model_card(output.parent)
    print(conceal(f"The scores are in {output}."))


def _predictions_file(options: argparse.Namespace, output: Path | None) -> Path:
    """Check the file of `--predictions`, which may replace the predictions of the run in the model's folder."""
    from mtl_nlp.run_folder import PREDICTIONS_NAME

    path = Path(options.predictions)
    if output is not None and path.resolve() == output.resolve():
        raise CommandError(f"--predictions {path}: the scores are written to this file. Name a different file.")
    if path.resolve() == (Path(options.model) / PREDICTIONS_NAME).resolve():
        return path
    return writable_file(options.predictions, options.recipe, options.model, option="--predictions")


def _add_training_recipe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", help="the recipe, a YAML file")
    parser.add_argument(
        "--from",
        dest="from_model",
        metavar="MODEL",
        help="folder or Hub id of a trained multitask model to start from; it replaces the recipe's encoder, and its "
        "tasks, heads and adapters are kept",
    )
    add_overrides(parser)


def _training_recipe(options: argparse.Namespace) -> Recipe:
    """Read the recipe with the overrides of the command line. The model of `--from` is its encoder."""
    from mtl_nlp.recipe.schema import Recipe

    start = options.from_model
    if start is None:
        recipe = Recipe.load(options.recipe, options.set, allow_code=options.allow_code)
        logger.info("%s: loading the libraries", conceal(options.recipe))
        return recipe
    quiet_libraries()
    from mtl_nlp.hub.loading import load_config

    # The path is relative to the working directory, not to the recipe.
    start = str(Path(start).resolve()) if Path(start).is_dir() else start
    overrides = [*options.set, f"encoder={json.dumps(start)}"]
    recipe = Recipe.load(options.recipe, overrides, allow_code=options.allow_code)
    load_config(start)  # after the recipe, whose code may register the heads of the model
    return recipe
