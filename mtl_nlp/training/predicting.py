"""A Trainer that predicts all tasks for all rows of a dataset, with the outputs of Trainer's methods."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NoReturn

import torch
from torch.utils.data import ConcatDataset, DataLoader
from transformers.trainer_utils import PredictionOutput, speed_metrics

from mtl_nlp.data.encoding import EncodedDataset
from mtl_nlp.data.from_python import named_datasets
from mtl_nlp.errors import DataError
from mtl_nlp.evaluation.arrays import arrays_of
from mtl_nlp.evaluation.evaluator import Answer
from mtl_nlp.mixture.mixture import TaskMixture
from mtl_nlp.training.evaluation import EvaluatedRows, EvaluatingTrainer
from mtl_nlp.training.inputs import evaluation_sets


class MultitaskPredictionOutput(PredictionOutput):
    """The predictions of all tasks for the rows of a dataset, in the order of the rows.

    Like any `PredictionOutput`, it unpacks to `predictions`, `label_ids` and `metrics`.

    Attributes:
        predictions: the logits of each task: shape (rows, words, classes) for words, with -100 after the last word of a
            text, and (rows, classes) for texts; or the result of `preprocess_logits_for_metrics`.
        label_ids: the labels of each task, class indices with -100 for no label or numbers with NaN for no label; None
            for a task without any label in the rows.
        metrics: the scores, losses and metrics of `compute_metrics` on the labelled rows, and the speed.
        labels: the predicted labels of each task, in the form of the dataset's labels. Span tasks have legal tags.
        probabilities: the probabilities of the predicted labels of each task whose kind defines them: a number per
            word, a number for one class, a dict from label to probability for a set of classes.
    """

    labels: dict[str, list[Any]]
    probabilities: dict[str, list[Any]]


class PredictingTrainer(EvaluatingTrainer):
    """A Trainer that predicts all tasks for all rows, with and without labels."""

    def predict(
        self, test_dataset: Any, ignore_keys: list[str] | None = None, metric_key_prefix: str = "test"
    ) -> MultitaskPredictionOutput:
        """Predict all tasks for all rows of a dataset, also for rows without labels.

        Args:
            test_dataset: an encoded or raw dataset, a mixture, or a dict of datasets, whose rows follow each other. A
                raw dataset may lack columns of labels. A `DatasetDict` stands for its split `test`.
            ignore_keys: an argument of Trainer, without effect.
            metric_key_prefix: the prefix of every metric.

        Raises:
            DataError: if the value is not a dataset, or a row is invalid.
        """
        self._memory_tracker.start()
        started = time.time()
        datasets = self._test_datasets(test_dataset)
        rows = {
            name: self._evaluate_rows(encoded, with_confidence=True, with_values=True, answers_all=True)
            for name, encoded in datasets.items()
        }
        labelled = {name: encoded for name, encoded in datasets.items() if any(rows[name].counts.task_rows.values())}
        found = {name: rows[name] for name in labelled}
        metrics = self._metrics_of(found, labelled, metric_key_prefix) if labelled else {}
        metrics |= speed_metrics(metric_key_prefix, started, num_samples=sum(d.num_rows for d in datasets.values()))
        output = self._prediction_output(rows, datasets, metrics)
        self.control = self.callback_handler.on_predict(self.args, self.state, self.control, metrics)
        self._memory_tracker.stop_and_update_metrics(metrics)
        return output

    def _prediction_output(
        self, rows: Mapping[str, EvaluatedRows], datasets: Mapping[str, EncodedDataset], metrics: dict[str, float]
    ) -> MultitaskPredictionOutput:
        values = {name: each.values for name, each in rows.items()}
        predictions, label_ids = arrays_of(values, datasets, self.tasks, all_rows=True)
        output = MultitaskPredictionOutput(predictions, label_ids, metrics)
        nothing = Answer(None)
        answers = {
            task: [
                rows[name].answers[task].get(row, nothing)
                for name, encoded in datasets.items()
                for row in range(encoded.num_rows)
            ]
            for task in self.tasks
        }
        output.labels = {task: [answer.label for answer in found] for task, found in answers.items()}
        output.probabilities = {
            task: [answer.confidence for answer in found]
            for task, found in answers.items()
            if any(answer.confidence is not None for answer in found)
        }
        return output

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """Return a loader of the batches of one evaluation set, in the order of the rows.

        `evaluate` itself groups texts by length and deals them out to the processes.

        Args:
            eval_dataset: the set, see `evaluate`.

        Raises:
            ValueError: if there is no split, or there are several sets.
        """
        chosen = self._stored(eval_dataset) if eval_dataset is None or isinstance(eval_dataset, str) else eval_dataset
        sets = evaluation_sets(chosen, self.columns, self.tasks)
        if len(sets) > 1:
            raise ValueError(f"There are several evaluation sets. Name one of {', '.join(sets)}.")
        (datasets,) = sets.values()
        return self._loader_of(datasets)

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader:
        """Return a loader of the batches of a dataset with all rows, see `predict`.

        Raises:
            DataError: if the value is not a dataset, or a row is invalid.
        """
        return self._loader_of(self._test_datasets(test_dataset))

    def _test_datasets(self, given: Any) -> dict[str, EncodedDataset]:
        """Return the encoded rows of the value that `predict` accepts, by dataset."""
        datasets = given.datasets if isinstance(given, TaskMixture) else named_datasets(given)
        if not datasets:
            raise DataError(f"`test_dataset` should be a dataset, or a dict of datasets. Found {given!r:.80}.")
        return {name: self.columns.for_prediction(dataset, name) for name, dataset in datasets.items()}

    def _loader_of(self, datasets: Mapping[str, EncodedDataset]) -> DataLoader:
        return DataLoader(
            ConcatDataset([encoded.windows for encoded in datasets.values()]),
            batch_size=self.args.eval_batch_size,
            collate_fn=self.data_collator,
        )

    def prediction_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[torch.Tensor | None, dict[str, torch.Tensor] | None, dict[str, torch.Tensor] | None]:
        """Return the joint loss of a batch, and the logits and labels of each task for the labelled rows.

        Args:
            model: the model.
            inputs: a batch of the collator, or inputs without labels, for which the loss and the labels are None.
            prediction_loss_only: whether to return only the loss.
            ignore_keys: an argument of Trainer, without effect.
        """
        inputs = self._prepare_inputs(inputs)
        labels = inputs.get("labels")
        with torch.no_grad(), self.compute_loss_context_manager():
            if labels is None:
                loss, output = None, model(**inputs)
            else:
                loss, output = self.compute_loss(model, inputs, return_outputs=True)
        return (loss, None, None) if prediction_loss_only else (loss, output.logits, labels)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse Trainer's loop over a loader, which cannot join the windows of a text.

        Raises:
            ValueError: always; the message names the methods to use.
        """
        raise ValueError(
            "`evaluation_loop` cannot join the windows of long texts. Use `evaluate` for scores, or `predict` for the "
            "logits and labels of all rows."
        )
