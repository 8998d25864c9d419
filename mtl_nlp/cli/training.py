"""The commands that train and score models: `plan`, `train` and `evaluate`."""

from __future__ import annotations

import argparse
import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl_nlp.cli.options import add_command, add_overrides, quiet_libraries, writable_file, writing_to
from mtl_nlp.cli.signals import advice_to_resume, sigterm_stops
from mtl_nlp.errors import RunError
from mtl_nlp.messages import conceal, table
from mtl_nlp.recipe.sections import SPLITS

if TYPE_CHECKING:
    from mtl_nlp.evaluation.evaluator import Evaluation
    from mtl_nlp.recipe.schema import Recipe
    from mtl_nlp.run.prepare import Run
    from mtl_nlp.training.arguments import MultitaskTrainingArguments


def add_commands(commands: Any) -> None:
    """Add the commands of this module to the command line."""
    parser = add_command(
        commands, plan, "show the training that a recipe describes", "mtl-nlp plan recipes/quickstart.yaml"
    )
    _add_training_recipe(parser)

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
    parser.add_argument("--split", choices=SPLITS, default="test", help="default: test")
    parser.add_argument(
        "--output", help="the file to write (default: results.json in the model's folder; none for a Hub id)"
    )
    add_overrides(parser)


def plan(options: argparse.Namespace) -> None:
    """Check a recipe, load its data and encoder, and print a description of the training."""
    recipe = _training_recipe(options)
    quiet_libraries()
    from mtl_nlp.run.arguments import training_arguments
    from mtl_nlp.run.build import check_splits
    from mtl_nlp.run.plan import describe_plan
    from mtl_nlp.run.prepare import prepare_run

    arguments = training_arguments(recipe)
    run = prepare_run(recipe)
    text = describe_plan(run, arguments)
    if arguments.process_index == 0:
        print(text)
    check_splits(run, arguments)


def train(options: argparse.Namespace) -> None:
    """Train a model, save it with its tokenizer and recipe, and score it on the test split, or else on validation."""
    recipe = _training_recipe(options)
    output = Path(recipe.output_dir)
    with advice_to_resume(output):
        quiet_libraries()
        from mtl_nlp.run.arguments import training_arguments
        from mtl_nlp.training.folder import check_output_folder, locked

        arguments = training_arguments(recipe)
        check_output_folder(output, recipe.encoder, resume=options.resume, overwrite=options.overwrite)
        with locked(output) if arguments.process_index == 0 else contextlib.nullcontext():
            _train(options, recipe, arguments)


def _train(options: argparse.Namespace, recipe: Recipe, arguments: MultitaskTrainingArguments) -> None:
    from transformers.utils import logging

    from mtl_nlp.run.build import build_model, build_trainer, check_splits
    from mtl_nlp.run.plan import describe_plan
    from mtl_nlp.run.prepare import prepare_run
    from mtl_nlp.run_folder import RESULTS_NAME
    from mtl_nlp.training.checkpoints import check_same_model, check_same_optimizer, describe_changes
    from mtl_nlp.training.completeness import last_checkpoint
    from mtl_nlp.training.folder import remove_checkpoints

    output = Path(recipe.output_dir)
    checkpoint = last_checkpoint(output) if options.resume else None
    if checkpoint is not None:
        check_same_optimizer(checkpoint.path, recipe)
    run = prepare_run(recipe)
    check_splits(run, arguments)
    text = describe_plan(run, arguments)
    if arguments.process_index == 0:
        print(text, flush=True)
        if checkpoint is not None:
            changes = describe_changes(checkpoint.path, recipe, arguments.world_size)
            for note in [*checkpoint.skipped, *changes, f"resuming from {checkpoint.path.name}"]:
                print(f"note: --resume: {note}", flush=True)
    model = build_model(run)
    if checkpoint is not None:
        check_same_model(checkpoint.path, model)
    trainer = build_trainer(run, model, arguments)
    if not options.resume and arguments.process_index == 0:
        with writing_to(output):
            remove_checkpoints(output)
    with sigterm_stops(trainer):
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint.path))
    with writing_to(output, error_type=RunError):
        trainer.save_model(_internal_call=True)  # without a push, since the scores are not there yet
    evaluation = trainer.score(run.splits[run.held_out])
    if trainer.is_world_process_zero():
        with writing_to(output, error_type=RunError):
            _report(evaluation, run, run.held_out, output / RESULTS_NAME, training=trainer.describe_training())
            trainer.create_model_card()
        shown = recipe.as_written()["output_dir"]
        print(f"The model is in {shown}. Try it: mtl-nlp predict {shown} FILE")
    if arguments.push_to_hub:
        logging.disable_progress_bar()  # Trainer has enabled it again
        trainer.push_to_hub()
        if trainer.is_world_process_zero():
            print(conceal(f"Pushed to {trainer.hub_model_id}."))


def evaluate(options: argparse.Namespace) -> None:
    """Score a trained model on one split of a recipe's datasets."""
    from mtl_nlp.recipe.schema import Recipe
    from mtl_nlp.run_folder import RESULTS_NAME, training_in

    recipe = Recipe.load(options.recipe, options.set)
    beside = Path(options.model) / RESULTS_NAME if Path(options.model).is_dir() else None
    is_beside = options.output is None or (beside is not None and Path(options.output).resolve() == beside.resolve())
    output = beside if is_beside else writable_file(options.output, options.recipe, options.model)
    quiet_libraries()
    from mtl_nlp.hub.loading import load_model
    from mtl_nlp.hub.model_card import write_model_card
    from mtl_nlp.run.arguments import evaluation_arguments
    from mtl_nlp.run.build import build_trainer
    from mtl_nlp.run.plan import describe_notes
    from mtl_nlp.run.prepare import prepare_evaluation
    from mtl_nlp.training.failures import lost_processes_reported

    arguments = evaluation_arguments(recipe, Path() if output is None else output.resolve().parent)
    model = load_model(options.model)
    run = prepare_evaluation(recipe, model, options.model, options.split)
    if arguments.process_index == 0:
        print(describe_notes(run), end="\n" if run.notes else "")
    trainer = build_trainer(run, model, arguments)
    with lost_processes_reported(None):
        evaluation = trainer.score(run.splits[options.split])
    if arguments.process_index != 0:
        return
    if output is None:
        _report(evaluation, run, options.split)
        return
    with writing_to(output, "--output"):
        _report(evaluation, run, options.split, output, training=training_in(output))
        if output == beside:
            write_model_card(output.parent)
    print(conceal(f"The scores are in {output}."))


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
        return Recipe.load(options.recipe, options.set)
    quiet_libraries()
    from mtl_nlp.hub.loading import load_config

    # The path is relative to the working directory, not to the recipe.
    start = str(Path(start).resolve()) if Path(start).is_dir() else start
    load_config(start)
    return Recipe.load(options.recipe, [*options.set, f"encoder={json.dumps(start)}"])


def _report(
    evaluation: Evaluation, run: Run, split: str, path: Path | None = None, training: dict[str, Any] | None = None
) -> None:
    """Print the scores, and write them to a file with their provenance if a path is given."""
    from mtl_nlp.evaluation.results import results
    from mtl_nlp.run_folder import write_results

    rows = [
        (task, name, f"{value:.4f}") for task, values in evaluation.scores.items() for name, value in values.items()
    ]
    print()
    print(table(("task", f"{split} score", "value"), [*rows, ("all", "mtl_score", f"{evaluation.mtl_score:.4f}")]))
    if path is not None:
        write_results(path, results(split, evaluation, run.splits[split], run.recipe.sha256(), training))
