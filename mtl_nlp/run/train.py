"""The training of a recipe from its data to the files in its folder."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtl_nlp.balancing.verdicts import describe_conflict
from mtl_nlp.errors import RunError, writing_to
from mtl_nlp.evaluation.evaluator import score_answers
from mtl_nlp.evaluation.predictions import predictions_of, training_words, write_predictions
from mtl_nlp.evaluation.results import describe_scores, results
from mtl_nlp.hub.repository import WEIGHTS
from mtl_nlp.messages import Shown, conceal, json_text, table
from mtl_nlp.modeling.modeling_multitask import MultitaskModel
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.run.arguments import training_arguments
from mtl_nlp.run.build import build_model, build_trainer, check_splits
from mtl_nlp.run.plan import describe_plan
from mtl_nlp.run.prepare import Run, prepare
from mtl_nlp.run.rehearsal import failures_reported
from mtl_nlp.run_folder import (
    CONFLICT_NAME,
    PREDICTIONS_NAME,
    RESULTS_NAME,
    TRAINING_LOG_NAME,
    write_file,
    write_results,
)
from mtl_nlp.training.arguments import MultitaskTrainingArguments
from mtl_nlp.training.best import describe_falls, describe_kept
from mtl_nlp.training.checkpoints import check_same_model, check_same_optimizer, describe_changes
from mtl_nlp.training.completeness import LastCheckpoint, describe_last_checkpoint, last_checkpoint
from mtl_nlp.training.folder import check_output_folder, locked, remove_checkpoints
from mtl_nlp.training.progress import number_format_of
from mtl_nlp.training.skipping import describe_skips
from mtl_nlp.training.trainer import MultitaskTrainer

Say = Callable[[str], None]
Watch = Callable[[MultitaskTrainer], AbstractContextManager[Any]]


@dataclass(frozen=True, repr=False)
class TrainedRun(Shown):
    """A run after its training.

    Attributes:
        folder: the folder with the model and all other files of the run.
        results: the content of `results.json`: the scores, the description of the training, and the provenance.
        model: the trained model.
    """

    folder: Path
    results: dict[str, Any]
    model: MultitaskModel

    def __repr__(self) -> str:
        rows = [
            (task, name, "not defined" if value is None else f"{value:.4f}")
            for task, scores in self.results["tasks"].items()
            for name, value in scores.items()
        ]
        shown = table(("task", f"{self.results['split']} score", "value"), rows)
        return f"TrainedRun({conceal(str(self.folder))})\n{shown}"


def train(
    recipe: Recipe | str | Path | Mapping[str, Any],
    *,
    resume: bool = False,
    overwrite: bool = False,
    allow_code: bool = False,
    say: Say | None = None,
    watch: Watch = contextlib.nullcontext,
) -> TrainedRun:
    """Train a model, save it with its tokenizer and recipe, and score it on the test split, or else on validation.

    The folder also gets every prediction on that split, a model card and, if `training.push_to_hub` is set, is pushed.

    Args:
        recipe: the recipe, its file, or its keys and values. Its `output_dir` is the folder of the run.
        resume: whether to resume from the last complete checkpoint in the folder.
        overwrite: whether to replace the run in the folder: its checkpoints when training starts, its model when
            training ends.
        allow_code: whether to run the Python code that the recipe names, see `Recipe.load`.
        say: a function that shows a text to the user, such as `print`: the plan, notes and scores. Only the first
            process calls the function.
        watch: a function from the trainer to a context in which the training loop runs.

    Raises:
        RecipeError: if the recipe, its data and its encoder do not fit each other, or the folder is in use.
        DataError: if the data cannot be loaded.
        CheckpointError: if there is no checkpoint to resume from, or it does not fit the recipe.
        RunError: if the run fails, such as by a full disk, a loss that is not finite, or a lost process.
    """
    recipe = Recipe.read(recipe, allow_code=allow_code)
    folder = Path(recipe.output_dir)
    arguments = training_arguments(recipe)
    check_output_folder(folder, recipe.encoder, resume=resume, overwrite=overwrite)
    is_first = arguments.process_index == 0
    with locked(folder) if is_first else contextlib.nullcontext():
        checkpoint = last_checkpoint(folder) if resume else None
        trainer, run = _prepare(recipe, arguments, checkpoint, say if is_first else None)
        if say is not None:
            trainer.note = lambda text: say(f"note: {text}")
        if checkpoint is None and is_first:
            with writing_to(folder):
                remove_checkpoints(folder)
        with watch(trainer), failures_reported(trainer, run, folder, is_resumed=checkpoint is not None):
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint.path))
        if trainer.is_stopped:
            raise RunError(f"{folder}: training was stopped before its end. {describe_last_checkpoint(folder)}")
        with writing_to(folder, error_type=RunError):
            trainer.save_model(_internal_call=True)  # without a push, since the scores are not there yet
        content = _score(run, trainer, folder, say if is_first else None)
        if is_first and say is not None:
            shown = recipe.as_written()["output_dir"]
            say(f"The model is in {shown}. Try it: mtl-nlp predict {shown} FILE")
        _push(trainer, say)
    # The model answers as the saved model does, in float32, whatever the number format of the training.
    return TrainedRun(folder, content, trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False))


def _prepare(
    recipe: Recipe, arguments: MultitaskTrainingArguments, checkpoint: LastCheckpoint | None, say: Say | None
) -> tuple[MultitaskTrainer, Run]:
    """Load the data and the encoder, show the plan, and build the trainer, with all checks before training."""
    kept = []
    if checkpoint is not None:
        check_same_optimizer(checkpoint.path, recipe)
        # Earlier releases trained in fp32, unless the recipe has `bf16` or `fp16`.
        number_format = number_format_of(checkpoint.path) or "fp32"
        if arguments.continue_with(number_format):
            kept = [f"training.precision: {number_format}, as in the checkpoint"]
    run = prepare(recipe, None if checkpoint is None else checkpoint.path)
    check_splits(run, arguments)
    run.try_model()
    text = describe_plan(run, arguments)
    if say is not None:
        say(text)
    if checkpoint is not None and say is not None:
        changes = describe_changes(checkpoint.path, recipe, arguments.world_size)
        for note in [*checkpoint.skipped, *changes, *kept, f"resuming from {checkpoint.path.name}"]:
            say(f"note: --resume: {note}")
    model = build_model(run)
    if checkpoint is not None:
        check_same_model(checkpoint.path, model)
    return build_trainer(run, model, arguments), run


def _score(run: Run, trainer: MultitaskTrainer, folder: Path, say: Say | None) -> dict[str, Any]:
    """Score the trained model on the held-out split, and write the log, the predictions, the results and the card.

    Returns:
        The content of `results.json`.
    """
    split = run.splits[run.held_out]
    answers = trainer.answer(split)
    evaluation = score_answers(answers, split, run.tasks)
    if say is not None:
        say("\n" + describe_scores(evaluation, run.held_out))
    training = trainer.describe_training() | _size_of(trainer.model, folder)
    content = results(run.held_out, evaluation, split, run.recipe.sha256(), training, run.recipe.own_code)
    if say is not None:
        falls = describe_falls(training["best"], training.get("frozen", {}))
        kept = describe_kept(trainer.state, trainer.args)
        for note in [*kept, *falls, *describe_skips(training.get("skipped", {}), list(run.tasks))]:
            say(f"note: {note}")
        for sentence in [] if trainer.conflict is None else describe_conflict(trainer.conflict.conflict.content()):
            say(f"conflict: {sentence}")
    if trainer.is_world_process_zero():
        # The rows of a stream were read during training, and are not at hand.
        streamed = {task for stream in run.streams.values() for task in stream.feeds}
        known = training_words(run.splits.get("train", {}).values(), run.tasks.keys() - streamed)
        with writing_to(folder, error_type=RunError):
            log = (json_text(entry) + "\n" for entry in trainer.state.log_history)
            write_file(folder / TRAINING_LOG_NAME, log)
            if trainer.conflict is not None:
                write_file(folder / CONFLICT_NAME, json_text(trainer.conflict.conflict.content()) + "\n")
            write_predictions(folder / PREDICTIONS_NAME, predictions_of(answers, split, run.held_out, known))
            write_results(folder / RESULTS_NAME, content)
            trainer.create_model_card()
    return content


def _size_of(model: MultitaskModel, folder: Path) -> dict[str, int]:
    """Return the number of a saved model's parameters, and the bytes of its weights on disk."""
    files = {path for pattern in WEIGHTS for path in folder.glob(pattern)}
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "bytes": sum(path.stat().st_size for path in files),
    }


def _push(trainer: MultitaskTrainer, say: Say | None) -> None:
    if not trainer.args.push_to_hub:
        return
    trainer.push_to_hub()
    if trainer.is_world_process_zero() and say is not None:
        say(conceal(f"Pushed to {trainer.hub_model_id}."))
