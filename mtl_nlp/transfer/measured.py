"""The measured sides of a comparison: the scores, predictions and costs that their runs have left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtl_nlp.errors import CommandError, DataError
from mtl_nlp.evaluation.predictions import Prediction, read_predictions
from mtl_nlp.messages import one_line
from mtl_nlp.modeling.configuration_multitask import MultitaskConfig
from mtl_nlp.modeling.tasks_multitask import Task
from mtl_nlp.run_folder import PREDICTIONS_NAME, RESULTS_NAME, read_results
from mtl_nlp.transfer.jobs import Job, folder_of
from mtl_nlp.transfer.planning import PlannedSide
from mtl_nlp.transfer.sides import FinishedSide, PredictionsSide
from mtl_nlp.transfer.speed import answering_passes

Scores = dict[str, dict[str, float | None]]
"""Task -> score -> value."""


@dataclass(frozen=True)
class Model:
    """A model of a side.

    Attributes:
        folder: its folder.
        tasks: the tasks that the side uses the model for.
        key: its content key; empty for a run outside of a comparison.
        results: the content of its `results.json`.
    """

    folder: Path
    tasks: Sequence[str]
    key: str
    results: Mapping[str, Any]


@dataclass(frozen=True)
class Measured:
    """The runs of a side.

    Attributes:
        name: the name of the side.
        title: a description for the reader.
        models: run -> its models, which together have all tasks; none for a file of predictions.
        predictions: run -> task -> predictions in the order of the rows.
        scores: run -> the scores of its tasks.
        split: the split of the predictions.
        file: the file of predictions, for a side without models.
        notes: sentences for the reader.
    """

    name: str
    title: str
    models: dict[str, list[Model]]
    predictions: dict[str, dict[str, list[Prediction]]]
    scores: dict[str, Scores]
    split: str
    file: Path | None = None
    notes: Sequence[str] = ()

    @property
    def tasks(self) -> list[str]:
        """The tasks that every run of the side has predictions for."""
        return list(next(iter(self.predictions.values())))

    def cost(self, milliseconds: float | None) -> dict[str, float | int | None]:
        """Return what the side costs, as means over its runs; null where the runs do not say.

        Args:
            milliseconds: the measured time of answering 1,000 texts.
        """
        runs = list(self.models.values())
        training = [[model.results.get("training", {}) for model in models] for models in runs]
        passes = [
            answering_passes(MultitaskConfig.from_pretrained(model.folder), model.tasks)
            for models in runs[:1]
            for model in models
        ]
        return {
            "models": len(passes) or None,
            "parameters": _mean_total(training[:1], "parameters"),
            "bytes": _mean_total(training[:1], "bytes"),
            "training_passes": _mean_total(training, "encoder_passes"),
            "training_seconds": _mean_total(training, "seconds"),
            "answering_passes": sum(passes) or None,
            "ms_per_1000_texts": milliseconds,
        }


def _mean_total(runs: Sequence[Sequence[Mapping[str, Any]]], key: str) -> float | None:
    """Return the sum over the models of a run, as a mean over runs; None if a model does not have the number."""
    if not runs or any(key not in training for models in runs for training in models):
        return None
    return sum(training[key] for models in runs for training in models) / len(runs)


def measure_jobs(side: PlannedSide, output: Path) -> Measured:
    """Read the runs of a side that a comparison has trained.

    Raises:
        DataError: if a file of a run is damaged.
    """
    runs = {str(seed): [_model_of(folder_of(output, job), job) for job in jobs] for seed, jobs in side.jobs.items()}
    return _measured(side.name, side.title, runs)


def measure_finished(side: FinishedSide) -> Measured:
    """Read the runs of a side that were trained outside of a comparison.

    Raises:
        DataError: if a file of a run is damaged.
    """
    seeds = [models[0].seed for models in side.runs]
    names = [str(seed) for seed in seeds] if len(set(seeds)) == len(seeds) else list(map(str, range(1, len(seeds) + 1)))
    runs = {
        name: [Model(run.folder, run.tasks, "", read_results(run.folder / RESULTS_NAME)) for run in models]
        for name, models in zip(names, side.runs, strict=True)
    }
    return _measured(side.name, side.title, runs)


def measure_predictions(side: PredictionsSide, tasks: Mapping[str, Task]) -> Measured:
    """Read a file of predictions, and score it.

    Args:
        side: the side.
        tasks: the tasks of the other sides.

    Raises:
        DataError: if the file is damaged, or its predictions do not fit the task.
        CommandError: if the file has a task that no other side has.
    """
    from mtl_nlp.evaluation.metrics import compute

    found = read_predictions(side.file)
    if unknown := [task for task in found if task not in tasks]:
        raise CommandError(f"compare: {side.file} has predictions for {unknown[0]!r}, and no other side has this task.")
    scores: Scores = {}
    for name, rows in found.items():
        _check_lengths(side.file, rows)
        try:
            scores[name] = dict(
                compute(tasks[name].kind.metric, [each.prediction for each in rows], [each.gold for each in rows])
            )
        except (ValueError, TypeError) as error:  # such as a tag of a different scheme
            raise DataError(f"{side.file}: the predictions of {name!r} cannot be scored: {one_line(error)}") from error
    split = next(iter(found.values()))[0].split
    notes = [note for name, rows in found.items() for note in _unknown_labels(side, tasks[name], rows)]
    return Measured(side.name, side.title, {}, {"1": found}, {"1": scores}, split, side.file, notes)


def _check_lengths(file: Path, rows: Sequence[Prediction]) -> None:
    """Check that a prediction of words has as many labels as the gold labels."""
    for each in rows:
        has_words = each.tokens is not None and isinstance(each.gold, list) and len(each.gold) == len(each.tokens)
        if has_words and len(each.prediction) != len(each.gold):
            raise DataError(
                f"{file}: task {each.task!r}, dataset {each.dataset!r}, row {each.row}: `prediction` should have a "
                f"label for each of the {len(each.gold)} words. Found {len(each.prediction)}."
            )


def _unknown_labels(side: PredictionsSide, task: Task, rows: Sequence[Prediction]) -> Iterator[str]:
    """Yield a note if predictions have labels that the task does not have, such as the names of a different tool."""
    predicted = {label for each in rows for label in task.kind.names_in(each.prediction)}
    if unknown := sorted(predicted - set(task.labels)):
        shown = ", ".join(unknown[:5]) + (", …" if len(unknown) > 5 else "")
        yield f"{side.name} predicts labels that {task.name} does not have ({shown}); each of them counts as wrong"


def tasks_of(sides: Sequence[Measured]) -> dict[str, Task]:
    """Return the tasks of all models, with the label space of the first model of each task."""
    found: dict[str, Task] = {}
    for side in sides:
        for model in next(iter(side.models.values()), []):
            for task in MultitaskConfig.from_pretrained(model.folder).get_tasks():
                if task.name in model.tasks:
                    found.setdefault(task.name, task)
    return found


def _model_of(folder: Path, job: Job) -> Model:
    return Model(folder, job.served, job.key, read_results(folder / RESULTS_NAME))


def _measured(name: str, title: str, runs: dict[str, list[Model]]) -> Measured:
    predictions: dict[str, dict[str, list[Prediction]]] = {}
    scores: dict[str, Scores] = {}
    splits = {model.results["split"] for models in runs.values() for model in models}
    if len(splits) > 1:
        raise CommandError(f"compare: the runs of {name} were scored on different splits: {', '.join(sorted(splits))}.")
    for run, models in runs.items():
        predictions[run], scores[run] = {}, {}
        for model in models:
            found = read_predictions(model.folder / PREDICTIONS_NAME)
            _check_split(model, next(iter(found.values()))[0].split)
            predictions[run] |= {task: found[task] for task in model.tasks if task in found}
            scores[run] |= {
                task: model.results["tasks"][task] for task in model.tasks if task in model.results["tasks"]
            }
    return Measured(name, title, runs, predictions, scores, splits.pop())


def _check_split(model: Model, split: str) -> None:
    """Check that the predictions and the scores of a run are of one split; `evaluate` may have written one of them."""
    if split != model.results["split"]:
        file = model.folder / PREDICTIONS_NAME
        raise CommandError(
            f"compare: {file} is of {split}, and {RESULTS_NAME} of {model.results['split']}. Write both again: mtl-nlp "
            f"evaluate {model.folder} --recipe RECIPE --split SPLIT --predictions {file}."
        )
