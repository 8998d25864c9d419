"""What the commands of the command line do, a function each."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from safetensors import SafetensorError
from transformers import Pipeline, PreTrainedTokenizerBase, pipeline
from transformers.utils import logging

from mtl_nlp.checkpoints import (
    RECIPE_NAME,
    check_same_model,
    check_same_optimizer,
    describe_changes,
    last_checkpoint,
)
from mtl_nlp.data.conll import DataError
from mtl_nlp.evaluation.evaluator import Evaluation
from mtl_nlp.evaluation.results import RESULTS_NAME, results, training_in, write_results
from mtl_nlp.export import ONNX_NAME, ExportError, compare_scores, export_peft, export_stock
from mtl_nlp.hub import make_repository, push_files, repository_files
from mtl_nlp.messages import one_line
from mtl_nlp.model_card import saved_recipe, write_model_card
from mtl_nlp.modeling.modeling_multitask import MultitaskModel
from mtl_nlp.plan import describe_notes, describe_plan, table
from mtl_nlp.predict import answer_file
from mtl_nlp.recipe import Recipe, RecipeError
from mtl_nlp.run import (
    Run,
    build_model,
    build_trainer,
    check_splits,
    prepare_evaluation,
    prepare_run,
    training_arguments,
)
from mtl_nlp.trained_model import ModelError, load_config, load_model, load_model_tokenizer

_STOCK_PIPELINES = {
    "token": 'pipeline("token-classification", "{}")',
    "sequence": 'pipeline("text-classification", "{}")',
}
INPUT_FORMATS = {".jsonl": "jsonl", ".json": "jsonl", ".conll": "conll", ".conllu": "conllu"}
"""What `predict` takes a file for by its ending; `text` otherwise."""


class CommandError(ValueError):
    """What a command needs of this machine is not to be had: a package of an extra, an address to serve on."""


def plan(options: argparse.Namespace) -> None:
    """Validate and load everything, and print what training would do."""
    recipe = _training_recipe(options)
    arguments = training_arguments(recipe)
    run = prepare_run(recipe)
    text = describe_plan(run, arguments)
    if arguments.process_index == 0:
        print(text)
    check_splits(run, arguments)


def train(options: argparse.Namespace) -> None:
    """Train, save the model with its tokenizer and recipe, and score it on the held-out split."""
    recipe = _training_recipe(options)
    arguments = training_arguments(recipe)
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
            for note in [*checkpoint.skipped, *changes, f"going on from {checkpoint.path.name}"]:
                print(f"note: --resume: {note}", flush=True)
    model = build_model(run)
    if checkpoint is not None:
        check_same_model(checkpoint.path, model)  # before the recipe of the run is overwritten
    if arguments.process_index == 0:
        # Before training, so that a folder that cannot be written to is told in time.
        with _writing_to(output):
            output.mkdir(parents=True, exist_ok=True)
            (output / RECIPE_NAME).write_text(recipe.to_yaml(), encoding="utf-8")
    trainer = build_trainer(run, model, arguments)
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint.path))
    with _writing_to(output):
        trainer.save_model(_internal_call=True)  # which does not push: the scores are still to come
    evaluation = trainer.score(run.splits[run.held_out])
    if trainer.is_world_process_zero():
        with _writing_to(output):
            _report(evaluation, run, run.held_out, output / RESULTS_NAME, training=trainer.describe_training())
            trainer.create_model_card()
        print(f"The model is in {output}. Try it: mtl-nlp predict {output} FILE")
    if arguments.push_to_hub:
        logging.disable_progress_bar()  # which Trainer has turned on again
        trainer.push_to_hub()
        if trainer.is_world_process_zero():
            print(f"Pushed to {trainer.hub_model_id}.")


def evaluate(options: argparse.Namespace) -> None:
    """Score a trained model on one split of a recipe's datasets."""
    recipe = Recipe.load(options.recipe, options.set)
    arguments = training_arguments(recipe)
    arguments.eval_strategy = "no"
    folder = Path(options.model) if Path(options.model).is_dir() else Path()
    output = _writable(options.output or str(folder / RESULTS_NAME))
    model = load_model(options.model)
    run = prepare_evaluation(recipe, model, options.model, options.split)
    if arguments.process_index == 0:
        print(describe_notes(run), end="\n" if run.notes else "")
    evaluation = build_trainer(run, model, arguments).score(run.splits[options.split])
    if arguments.process_index == 0:
        _report(evaluation, run, options.split, output, training=training_in(output))
        if output == folder / RESULTS_NAME:
            write_model_card(folder)


def predict(options: argparse.Namespace) -> None:
    """Answer a file of texts."""
    source = Path(options.file)
    if not source.is_file():
        raise DataError(f"There is no file {source}.")
    if options.output is not None and Path(options.output).exists() and source.samefile(options.output):
        raise DataError(f"--output {options.output} is the input file. Name another.")
    input_format = options.input_format or INPUT_FORMATS.get(source.suffix, "text")
    answer = load_pipeline(options.model)
    with _opened(options.output) as target:
        count = answer_file(answer, source, input_format, target, options.output_format, options.batch_size)
    print(f"{count} texts answered.", file=sys.stderr)


def push(options: argparse.Namespace) -> None:
    """Push a trained model to the Hub as one commit: model, tokenizer, card, recipe, results."""
    folder = Path(options.model)
    if not folder.is_dir():
        raise ModelError(f"There is no folder {folder}. Train one: mtl-nlp train.")
    load_model_tokenizer(options.model, load_model(options.model).config)  # whole, before anybody sees it
    repo_id = make_repository(options.repo_id, private=options.private or None)
    files = repository_files(folder, repo_id, with_code=options.with_code)
    pushed = push_files(
        files,
        repo_id,
        commit_message=options.commit_message,
        revision=options.revision,
        create_pr=options.create_pr,
    )
    print(f"Pushed {len(files)} files: {pushed.pr_url or pushed.commit_url}")


def export(options: argparse.Namespace) -> None:
    """Write a trained model for others: one task as a plain transformers model or PEFT adapter, or all as ONNX."""
    output = _new_folder(options.output)
    model = load_model(options.model)
    tokenizer = load_model_tokenizer(options.model, model.config)
    if options.format == "onnx":
        _export_onnx(options, model, tokenizer, output)
        return
    if options.task is None:
        raise ExportError(f"--format {options.format}: name the --task, one of {', '.join(model.tasks)}.")
    if options.int8 or options.recipe is not None or options.set:
        raise ExportError("--int8, --recipe and --set go with --format onnx.")
    if options.format == "transformers":
        with _writing_to(output, "OUT"):
            export_stock(model, tokenizer, options.task, output)
        print(f"The task is in {output}: {_STOCK_PIPELINES[model.tasks[options.task].level].format(output)}")
        return
    recipe = saved_recipe(Path(options.model))
    with _writing_to(output, "OUT"):
        base = export_peft(model, tokenizer, options.task, output, None if recipe is None else recipe.encoder)
    task = model.tasks[options.task]
    stock = "AutoModelForTokenClassification" if task.level == "token" else "AutoModelForSequenceClassification"
    precision = str(model.dtype).removeprefix("torch.")
    # transformers loads a model in the precision that it is stored in, an encoder perhaps in half of it.
    labels = "" if Path(base).parent == output else f', num_labels={task.num_labels}, dtype="{precision}"'
    print(
        f"The adapter is in {output}, for {base}: "
        f'PeftModel.from_pretrained({stock}.from_pretrained("{base}"{labels}), "{output}")'
    )


def _export_onnx(
    options: argparse.Namespace, model: MultitaskModel, tokenizer: PreTrainedTokenizerBase, output: Path
) -> None:
    with _extra("onnx"):
        from mtl_nlp.onnx_model import export_onnx
    if options.task is not None:
        raise ExportError("--task goes with --format transformers and peft: an ONNX file has an output for each task.")
    if options.int8 and options.recipe is None:
        raise ExportError("--int8 costs accuracy: name the --recipe on whose --split it is to be measured.")
    run = None
    if options.recipe is not None:
        run = prepare_evaluation(Recipe.load(options.recipe, options.set), model, options.model, options.split)
    with _extra("onnx"), _writing_to(output, "OUT"):
        exported = export_onnx(model, tokenizer, output, int8=options.int8)
    if run is not None:
        rows = compare_scores(model, exported, run.splits[options.split], tokenizer)
        kind = "onnx int8" if options.int8 else "onnx"
        print(table(("task", f"{options.split} score", "torch", kind, "points"), rows))
    print(f"The model is in {output}. Try it: mtl-nlp predict {output} FILE")


def drop(options: argparse.Namespace) -> None:
    """Write a trained model without some of its tasks, their heads and adapters. The others answer as before."""
    output = _new_folder(options.output)
    model = load_model(options.model)
    tokenizer = load_model_tokenizer(options.model, model.config)
    try:
        for task in options.task:
            model.drop_task(task)
    except ValueError as error:
        raise ModelError(f"--task: {error}") from error
    with _writing_to(output, "OUT"):
        model.save_pretrained(output)
        tokenizer.save_pretrained(output)
        write_model_card(output)
    print(f"The model, with {', '.join(model.tasks)}, is in {output}.")


def demo(options: argparse.Namespace) -> None:
    """Open a page in the browser to try a trained model on, or write it as a folder for a Hub Space."""
    with _extra("demo"):
        from mtl_nlp.demo import launch_page
        from mtl_nlp.space import write_space
    title = Path(options.model).resolve().name
    if options.space is not None:
        with _writing_to(Path(options.space), "--space"):
            write_space(options.model, Path(options.space), title)
        print(f"The Space is in {options.space}: hf upload YOU/NAME {options.space} --repo-type space")
        return
    answer = load_pipeline(options.model)
    try:
        launch_page(answer, title, host=options.host, port=options.port, in_browser=options.open)
    except (OSError, OverflowError) as error:
        address = options.host if options.port is None else f"{options.host}:{options.port}"
        raise CommandError(f"{address} cannot be served on: {one_line(error).rstrip('.')}.") from error


def load_pipeline(folder: str) -> Pipeline:
    """The pipeline of a trained model, or of one that was exported as ONNX.

    Raises:
        ModelError: if there is none.
    """
    if not (Path(folder) / ONNX_NAME).is_file():
        model = load_model(folder)
        return pipeline("multitask", model=model, tokenizer=load_model_tokenizer(folder, model.config))
    with _extra("onnx"):
        from mtl_nlp.onnx_model import OnnxMultitaskModel
    exported = OnnxMultitaskModel.from_pretrained(folder)
    return pipeline("multitask", model=exported, tokenizer=load_model_tokenizer(folder, exported.config))


def _training_recipe(options: argparse.Namespace) -> Recipe:
    """The recipe with what the command line overrides; `--from MODEL` is its encoder."""
    start = options.from_model
    if start is None:
        return Recipe.load(options.recipe, options.set)
    # Relative to where the command is given, not to the recipe.
    start = str(Path(start).resolve()) if Path(start).is_dir() else start
    load_config(start)
    return Recipe.load(options.recipe, [*options.set, f"encoder={json.dumps(start)}"])


def _report(evaluation: Evaluation, run: Run, split: str, path: Path, training: dict[str, Any] | None) -> None:
    """Print the scores and write them to a file."""
    rows = [
        (task, name, f"{value:.4f}") for task, values in evaluation.scores.items() for name, value in values.items()
    ]
    print()
    print(table(("task", f"{split} score", "value"), [*rows, ("all", "mtl_score", f"{evaluation.mtl_score:.4f}")]))
    write_results(path, results(split, evaluation, run.splits[split], run.recipe.sha256(), training))


@contextlib.contextmanager
def _extra(name: str) -> Iterator[None]:
    """Inside, packages are imported that come with one of mtl_nlp's extras."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise CommandError(f"{error.name} is not installed: pip install 'mtl_nlp[{name}]'.") from error


@contextlib.contextmanager
def _writing_to(path: Path, name: str = "output_dir") -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise RecipeError(f"{name}: {path} cannot be written to: {one_line(error)}.") from error


@contextlib.contextmanager
def _opened(path: str | None) -> Iterator[TextIO]:
    if path is None:
        yield sys.stdout
        return
    with open(_writable(path), "w", encoding="utf-8") as file:
        yield file


def _new_folder(path: str) -> Path:
    """The path of a folder to write, refused before any work is done if it holds anything."""
    folder = Path(path)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise ExportError(f"{folder} should be a new or empty folder.")
    return folder


def _writable(path: str) -> Path:
    """The path of a file to write, refused before any work is done."""
    if Path(path).is_dir() or not Path(path).parent.is_dir():
        raise DataError(f"--output {path}: it should be a file in a folder that is there.")
    return Path(path)
