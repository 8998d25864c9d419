"""Options of tasks that are chosen on the validation rows after training, such as the thresholds of classes."""

from __future__ import annotations

from collections.abc import Mapping

from mtl_nlp.data.encoding import EncodedDataset
from mtl_nlp.data.scans import values_of
from mtl_nlp.evaluation.evaluator import Answers
from mtl_nlp.modeling.modeling_multitask import MultitaskModel
from mtl_nlp.modeling.tasks_multitask import Task

Datasets = Mapping[str, EncodedDataset]
"""Dataset -> its encoded split."""


def check_tuning(tasks: Mapping[str, Task], validation: Datasets) -> None:
    """Check that there are validation rows for the trained tasks that need them after training.

    Raises:
        ValueError: if a task has no validation rows.
    """
    for name, task in tasks.items():
        if task.needs_tuning is not None and not any(name in encoded.feeds for encoded in validation.values()):
            raise ValueError(
                f"Task {name!r}: `{task.needs_tuning}` needs an `eval_dataset` with labels of the task. Found none."
            )


def datasets_to_tune_on(tasks: Mapping[str, Task], validation: Datasets) -> dict[str, EncodedDataset]:
    """Return the validation splits with labels of tasks that need tuning."""
    names = {name for name, task in tasks.items() if task.needs_tuning is not None}
    return {name: encoded for name, encoded in validation.items() if names & set(encoded.feeds)}


def tune_tasks(model: MultitaskModel, answers: Answers, datasets: Datasets) -> None:
    """Set the options of a model's tasks that are chosen on validation rows.

    Args:
        model: the model, whose tasks and configuration are changed in place.
        answers: the answers with confidences, see `EvaluatingTrainer.answer`.
        datasets: the splits of the answers.
    """
    for name, task in list(model.tasks.items()):
        pairs = [
            (answers[dataset][name][row].confidence, reference)
            for dataset, encoded in datasets.items()
            if name in encoded.feeds
            for row, reference in enumerate(values_of(encoded.references[name]))
            if reference is not None
        ]
        if task.needs_tuning is not None and pairs:
            confidences, references = zip(*pairs, strict=True)
            model.replace_task(task.tune(confidences, references))
