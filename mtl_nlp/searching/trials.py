"""The training of one trial: the recipe with the values of the trial, trained and scored on the validation splits."""

from __future__ import annotations

import copy
import dataclasses
import gc
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from mtl_nlp.errors import RecipeError, RunError, writing_to
from mtl_nlp.evaluation.evaluator import Evaluation
from mtl_nlp.evaluation.results import results
from mtl_nlp.hub.repository import WEIGHTS
from mtl_nlp.messages import json_text
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.run.arguments import training_arguments
from mtl_nlp.run.build import build_model, build_trainer
from mtl_nlp.run.prepare import Run, prepare
from mtl_nlp.run.reduction import fit_steps
from mtl_nlp.run.rehearsal import failures_reported
from mtl_nlp.run_folder import (
    CONFIG_NAME,
    RECIPE_NAME,
    RESULTS_NAME,
    TRAINING_LOG_NAME,
    checkpoint_folders,
    write_file,
    write_results,
)
from mtl_nlp.searching.space import with_values
from mtl_nlp.searching.watching import QUARTERS
from mtl_nlp.training.folder import locked, remove_checkpoints
from mtl_nlp.training.trainer import MultitaskTrainer

FIDELITIES = (1 / 9, 1 / 3, 1.0)
"""The shares of the training rows of a trial's parts under `fidelity: rows`, a factor of 3 apart (Li et al. 2018)."""

_WITHOUT_DATA = ("training", "loss", "adapters", "freeze", "mixture", "analysis", "card", "output_dir")
"""The sections of a recipe that have no effect on the encoded data. `mixture.headroom` reads a file."""

_NOT_FOR_TRIALS = ("push_to_hub", "resume_from_checkpoint", "eval_delay", "eval_on_start")
_MOST_PREPARED = 8


@dataclass(frozen=True)
class Trained:
    """A trial after its training.

    Attributes:
        recipe: the recipe of the trial.
        trainer: the trainer with the trained model.
        evaluation: the scores on the validation splits.
        training: the description of the training.
    """

    recipe: Recipe
    trainer: MultitaskTrainer
    evaluation: Evaluation
    training: dict[str, Any]


class Trials:
    """The trials of a recipe. The data are encoded again only if a trial changes what they depend on.

    Args:
        run: the recipe as shipped, with its data.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self._prepared: dict[str, Run] = {self._data_key(run.recipe): run}

    def recipe_of(
        self,
        values: Mapping[str, Any],
        folder: Path,
        *,
        seed: int | None = None,
        is_scored: bool = True,
        rows: float = 1.0,
    ) -> Recipe:
        """Return the recipe of a trial.

        Args:
            values: key -> value.
            folder: the folder of the trial.
            seed: the seed; that of the recipe by default.
            is_scored: whether the trial is scored after each quarter of its training.
            rows: the share of the training rows.

        Raises:
            RecipeError: if the recipe is not valid with these values.
        """
        written = with_values(self.run.recipe.as_written(), values)
        for section in ("search", "baselines", "analysis"):
            written.pop(section, None)
        training = {
            key: value
            for key, value in written.get("training", {}).items()
            if key not in _NOT_FOR_TRIALS and not key.startswith("hub_")
        }
        training |= {"disable_tqdm": True, "report_to": "none"}
        if seed is not None:
            training["seed"] = seed
        if _needs_evaluations(written, training):
            training |= {"save_total_limit": 1, "save_only_model": True}
        else:
            training |= {"save_strategy": "no", "eval_strategy": "steps" if is_scored else "no"}
            training["eval_steps"] = 1 / QUARTERS
        written |= {"training": training, "output_dir": str(folder)}
        if rows < 1.0:
            self._limit_rows(written, rows)
        return Recipe.from_written(written, allow_code=bool(self.run.recipe.own_code))

    def prepared(self, recipe: Recipe) -> Run:
        """Return the recipe of a trial with its data, without the test split.

        Raises:
            RecipeError: if the recipe does not fit its data or its encoder.
            DataError: if the data cannot be loaded.
        """
        key = self._data_key(recipe)
        run = self._prepared.pop(key, None) or prepare(recipe)
        self._prepared[key] = run  # the last one is the newest
        for oldest in [*self._prepared][1:-_MOST_PREPARED]:
            del self._prepared[oldest]
        splits = {split: rows for split, rows in run.splits.items() if split != "test"}
        return dataclasses.replace(run, recipe=recipe, config=copy.deepcopy(run.config), splits=splits)

    def train(self, recipe: Recipe, watch: TrainerCallback) -> Trained:
        """Train the recipe of a trial, and score it on the validation splits.

        Raises:
            RecipeError: if the recipe cannot be trained.
            RunError: if the training fails, such as by a loss that is not finite or for lack of memory.
        """
        folder = Path(recipe.output_dir)
        arguments = training_arguments(recipe)
        run = self.prepared(recipe)
        trainer = build_trainer(run, build_model(run), arguments, callbacks=[watch])
        trainer.remove_callback(type(trainer.display))  # one line per trial is enough
        trainer.note = _say_nothing
        with locked(folder):
            with writing_to(folder):
                remove_checkpoints(folder)  # those of a trial that was killed
            with failures_reported(trainer, run, folder):
                trainer.train()
                evaluation = trainer.score(run.splits["validation"])
            for checkpoint in checkpoint_folders(folder):
                shutil.rmtree(checkpoint)
            training = trainer.describe_training()
            content = results(
                "validation", evaluation, run.splits["validation"], recipe.sha256(), training, recipe.own_code
            )
            with writing_to(folder, error_type=RunError):
                write_file(folder / RECIPE_NAME, recipe.to_yaml())
                write_file(folder / TRAINING_LOG_NAME, (json_text(each) + "\n" for each in trainer.state.log_history))
                write_results(folder / RESULTS_NAME, content)
        return Trained(recipe, trainer, evaluation, training)

    def _data_key(self, recipe: Recipe) -> str:
        """Return a text that is equal for recipes with the same encoded data and the same model without adapters."""
        data = {key: value for key, value in recipe.as_written().items() if key not in _WITHOUT_DATA}
        for section in ("search", "baselines"):
            data.pop(section, None)
        return json_text([data, recipe.mixture.headroom], sort_keys=True, default=str)

    def _limit_rows(self, written: dict[str, Any], share: float) -> None:
        """Limit the training rows of every dataset to a share of them, with as many passes over these rows."""
        fit_steps(written["training"], share)
        if int(written["training"].get("max_steps", -1)) > 0:
            written["training"]["max_steps"] = max(1, round(int(written["training"]["max_steps"]) * share))
        for name, dataset in written["datasets"].items():
            rows = math.ceil(self.run.train[name].num_rows * share)
            dataset["max_rows"] = {**dataset.get("max_rows", {}), "train": rows}


def save_weights(trained: Trained) -> None:
    """Save the model of a trial, its tokenizer and its configuration beside the scores of the trial.

    Raises:
        RunError: if the model cannot be saved.
    """
    folder = Path(trained.recipe.output_dir)
    kept = {name: (folder / name).read_text(encoding="utf-8") for name in (RESULTS_NAME, TRAINING_LOG_NAME)}
    with locked(folder), writing_to(folder, error_type=RunError):
        trained.trainer.save_model(_internal_call=True)
        for name, text in kept.items():  # a saved model replaces the files of the model before
            write_file(folder / name, text)


def drop_weights(folder: Path) -> None:
    """Remove the weights of a trial, and keep its recipe, scores and log."""
    (folder / CONFIG_NAME).unlink(missing_ok=True)
    for path in {path for pattern in WEIGHTS for path in folder.glob(pattern)}:
        path.unlink(missing_ok=True)


def free_memory() -> None:
    """Free the memory of a trial that has ended, on the device too."""
    gc.collect()
    if torch.accelerator.is_available():
        torch.accelerator.memory.empty_cache()


def check_fidelity(run: Run) -> None:
    """Check that the rows of a recipe can be limited.

    Raises:
        RecipeError: if a dataset is streamed.
    """
    for name in run.streams:
        raise RecipeError(
            f"search.fidelity: the dataset {name!r} is streamed, and rows cannot be drawn from a stream. Leave out "
            f"`fidelity` or `streaming`."
        )


def needs_last_evaluation(recipe: Recipe) -> bool:
    """Return whether a part of the training depends on its evaluations."""
    return _needs_evaluations(recipe.as_written(), recipe.training)


def _needs_evaluations(written: Mapping[str, Any], training: Mapping[str, Any]) -> bool:
    return bool(
        training.get("load_best_model_at_end")
        or written.get("loss", {}).get("freeze_when_overfit")
        or written.get("mixture", {}).get("headroom")
    )


def _say_nothing(text: str) -> None:
    """Show nothing."""
