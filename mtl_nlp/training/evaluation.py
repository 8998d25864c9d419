"""Evaluation in a Trainer: every process predicts and decodes complete texts, and sends labels instead of logits."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object, send_to_device
from transformers import TrainerControl
from transformers.trainer_utils import speed_metrics

from mtl_nlp.data.collator import WithFeatures
from mtl_nlp.data.encoding import EncodedDataset
from mtl_nlp.data.from_python import Columns
from mtl_nlp.evaluation.arrays import PADDING, ComputeMetrics, arrays_of, check_names, own_metrics, with_prefix
from mtl_nlp.evaluation.dealing import deal_batches
from mtl_nlp.evaluation.evaluator import (
    Answer,
    Answers,
    Evaluation,
    decode_texts,
    in_row_order,
    join_texts,
    pieces_of_batch,
    score_answers,
)
from mtl_nlp.modeling.loss_multitask import StepCounts, count_step, unit_weights
from mtl_nlp.modeling.modeling_multitask import MultitaskModel, MultitaskOutput
from mtl_nlp.modeling.tasks_multitask import Task
from mtl_nlp.training.arguments import MultitaskTrainingArguments
from mtl_nlp.training.inputs import Preprocess, evaluation_sets
from mtl_nlp.training.pushing import HubTrainer
from mtl_nlp.training.schedule import data_loader
from mtl_nlp.training.step import StepLoss


@dataclass(frozen=True)
class EvaluatedRows:
    """The evaluation of some rows of a split.

    Attributes:
        answers: the answers of each task, by row number.
        loss_sums: the summed loss of each task in each batch. The batches are summed later by `math.fsum`, which is
            exact, so the number of processes makes no difference.
        counts: the counts of rows and labels.
        values: the logits of each task, or the values made from them by `preprocess_logits_for_metrics`, by row number;
            empty if they were not asked for.
    """

    answers: dict[str, dict[int, Answer]]
    loss_sums: list[dict[str, float]]
    counts: StepCounts
    values: dict[str, dict[int, np.ndarray]] = field(default_factory=dict)

    def __add__(self, other: EvaluatedRows) -> EvaluatedRows:
        """Return the evaluation of the rows of both operands."""
        answers = {task: rows | other.answers[task] for task, rows in self.answers.items()}
        values = {task: rows | other.values.get(task, {}) for task, rows in self.values.items()}
        return EvaluatedRows(answers, self.loss_sums + other.loss_sums, self.counts + other.counts, values)


class EvaluatingTrainer(HubTrainer):
    """A Trainer that scores every task of a multitask model on the rows that carry its label.

    Attributes:
        tasks: all tasks of the model by name.
        columns: the columns of raw datasets.
        step: the joint loss.
        own_keys: the keys of the metrics of `compute_metrics` in the last evaluation.
        is_in_loop: whether the training loop runs.
    """

    model: MultitaskModel
    args: MultitaskTrainingArguments
    control: TrainerControl
    tasks: Mapping[str, Task]
    columns: Columns
    step: StepLoss
    compute_metrics: ComputeMetrics | None
    preprocess_logits_for_metrics: Preprocess | None
    own_keys: Sequence[str] = ()
    is_in_loop: bool = False

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Score every task on the rows that carry its label.

        Args:
            eval_dataset: encoded or raw splits by dataset, a single split, or a mixture; or several named sets of
                these; or the name of one set or dataset of the trainer's `eval_dataset`, which is the default.
            ignore_keys: an argument of Trainer, without effect.
            metric_key_prefix: the prefix of every key.

        Returns:
            `<prefix>_<task>_<score>`, `<prefix>_<task>_loss`, `<prefix>_loss` (with the current loss weights, without
            penalty and pull), `<prefix>_mtl_score`, the metrics of `compute_metrics` and the speed. Named sets have the
            prefix `<prefix>_<set>`.

        Raises:
            ValueError: if there is no split to evaluate.
            DataError: if a split cannot be encoded, or was encoded for different tasks.
        """
        self._memory_tracker.start()
        chosen = self._stored(eval_dataset) if eval_dataset is None or isinstance(eval_dataset, str) else eval_dataset
        metrics: dict[str, float] = {}
        for name, datasets in evaluation_sets(chosen, self.columns, self.tasks).items():
            metrics |= self._evaluate_set(datasets, f"{metric_key_prefix}_{name}" if name else metric_key_prefix)
        self._memory_tracker.stop_and_update_metrics(metrics)
        return metrics

    def _stored(self, name: str | None) -> Any:
        """Return the `eval_dataset` of the trainer, or the set or dataset of this name in it."""
        if self.eval_dataset is None:
            raise ValueError(
                "Evaluation needs an `eval_dataset`, encoded splits by dataset. Found None. Pass it to the trainer or "
                "to `evaluate`."
            )
        if name is not None and name not in self.eval_dataset:
            raise ValueError(f"No evaluation set {name!r:.80}. The trainer has {', '.join(self.eval_dataset)}.")
        return self.eval_dataset if name is None else self.eval_dataset[name]

    def _evaluate_set(self, datasets: Mapping[str, EncodedDataset], prefix: str) -> dict[str, float]:
        """Score every task on one evaluation set, and log the metrics."""
        started = time.time()
        with_values = self.compute_metrics is not None
        rows = {name: self._evaluate_rows(encoded, with_values=with_values) for name, encoded in datasets.items()}
        metrics = self._metrics_of(rows, datasets, prefix)
        metrics |= speed_metrics(prefix, started, num_samples=sum(d.num_rows for d in datasets.values()))
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _metrics_of(
        self, rows: Mapping[str, EvaluatedRows], datasets: Mapping[str, EncodedDataset], prefix: str
    ) -> dict[str, float]:
        """Return the scores, the losses and the metrics of `compute_metrics` on evaluated rows by dataset.

        Raises:
            ValueError: if a metric of `compute_metrics` has the name of a score or loss.
        """
        answers = {name: each.answers for name, each in rows.items()}
        metrics = score_answers(answers, datasets, self.tasks).flat() | self._losses_of(list(rows.values()))
        own = {}
        if self.compute_metrics is not None:
            values = {name: each.values for name, each in rows.items()}
            own = with_prefix(own_metrics(self.compute_metrics, *arrays_of(values, datasets, self.tasks)), prefix)
        self.own_keys = list(own)
        metrics = with_prefix(metrics, prefix)
        check_names(own, metrics, prefix)
        return metrics | own

    def score(self, datasets: Mapping[str, EncodedDataset]) -> Evaluation:
        """Return the scores of every task on encoded splits by dataset, without logging them."""
        answers = {name: self._evaluate_rows(encoded).answers for name, encoded in datasets.items()}
        return score_answers(answers, datasets, self.tasks)

    def answer(self, datasets: Mapping[str, EncodedDataset]) -> Answers:
        """Return the answers of every task on encoded splits by dataset, with the probabilities of the labels.

        All processes return all answers. `score_answers` computes the scores from them, and `predictions_of` the lines
        of `predictions.jsonl`.
        """
        return {name: self._evaluate_rows(encoded, with_confidence=True).answers for name, encoded in datasets.items()}

    def predict_rows(self, encoded: EncodedDataset) -> dict[str, list[Any]]:
        """Predict every task that a split feeds.

        Returns:
            The predictions of each task in row order, with None for a row without a label.
        """
        return in_row_order(self._evaluate_rows(encoded).answers, encoded)

    def _losses_of(self, parts: list[EvaluatedRows]) -> dict[str, float]:
        counts = sum((part.counts for part in parts), StepCounts(0, {}, {}))
        batches = [sums for part in parts for sums in part.loss_sums]
        sums = {task: math.fsum(batch[task] for batch in batches) for task in self.tasks}
        losses = {f"{task}_loss": sums[task] / units for task, units in counts.units.items() if units}
        tensors = {task: torch.tensor(value, device=self.args.device) for task, value in sums.items()}
        return losses | {"loss": float(self.step.outside_step(tensors, counts))}

    @torch.no_grad()
    def _evaluate_rows(
        self,
        encoded: EncodedDataset,
        *,
        with_confidence: bool = False,
        with_values: bool = False,
        answers_all: bool = False,
    ) -> EvaluatedRows:
        """Evaluate a split; each process evaluates a share of the rows.

        Args:
            encoded: the split.
            with_confidence: whether to compute the probabilities of the labels.
            with_values: whether to keep the logits.
            answers_all: whether to answer all tasks for all rows; otherwise, the tasks for the rows with their labels.
        """
        shares = deal_batches(
            encoded,
            self.args.eval_batch_size,
            self.args.world_size,
            equal_passes=self.is_fsdp_enabled or self.is_deepspeed_enabled,
        )
        batches, repeated = shares[self.args.process_index]
        loader = data_loader(encoded.rows, batches, WithFeatures(self.data_collator), self.args)
        self.callback_handler.eval_dataloader = loader
        answered = {name: self.tasks[name] for name in (self.tasks if answers_all else encoded.references)}
        self._ready_for_evaluation()
        pieces, kept, sums, counts = [], [], [], StepCounts(0, {}, {})
        for number, (features, batch) in enumerate(loader):
            counted, own_rows = self._counts_of(batch, answers_all=answers_all), batch["rows"]
            batch = send_to_device(batch, self.args.device, non_blocking=True)
            with self._in_precision():
                output: Any = self._output_for_all(batch) if answers_all else self.model(**batch, with_loss=False)
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
            if number >= len(batches) - repeated:
                continue
            rows = dict.fromkeys(answered, torch.arange(len(features))) if answers_all else own_rows
            logits, summed = _on_host(output)
            pieces += pieces_of_batch(features, rows, logits, answered)
            if with_values:
                labels = _labels_of_all_rows(batch, encoded.references) if answers_all else batch["labels"]
                values = self._preprocessed(output.logits, labels)
                kept += pieces_of_batch(features, rows, values, answered)
            sums.append(summed)
            counts = counts + counted
        answers = decode_texts(pieces, answered, with_confidence=with_confidence)
        evaluated = EvaluatedRows(answers, sums, counts, join_texts(kept, answered) if with_values else {})
        first, *rest = gather_object([evaluated])
        return sum(rest, first)

    def _counts_of(self, batch: Mapping[str, Any], *, answers_all: bool) -> StepCounts:
        """Return the counts of a batch; rows without any label are answered, and have no part in the loss."""
        counts = count_step([batch], self.tasks)
        if not answers_all:
            return counts
        return dataclasses.replace(counts, rows=len(torch.cat([*batch["rows"].values()]).unique()))

    def _ready_for_evaluation(self) -> None:
        """Set the mode, the precision and the device of the model."""
        model = self.model.eval()
        if not self.is_in_train and (self.args.bf16_full_eval or self.args.fp16_full_eval):
            model.to(torch.bfloat16 if self.args.bf16_full_eval else torch.float16)
        model.to(self.args.device)

    @contextlib.contextmanager
    def _in_precision(self) -> Iterator[None]:
        """Compute forward passes of an evaluation in the number format of the training, or outside of it in float32.

        accelerate has wrapped the forward pass of a model since its first training. With `bf16` and `fp16`, the format
        is the same outside of the training; with `precision`, it is that of the pipeline.
        """
        parts = self.model.__dict__
        if self.args.precision is None:
            with self.accelerator.autocast():
                yield
        elif self.is_in_loop or "_original_forward" not in parts:
            yield
        else:
            wrapped, parts["forward"] = parts["forward"], parts["_original_forward"]
            try:
                yield
            finally:
                parts["forward"] = wrapped

    def _output_for_all(self, batch: Mapping[str, Any]) -> MultitaskOutput:
        """Return the logits of all tasks for all rows, and the summed loss of each task over its labelled rows."""
        inputs = {key: value for key, value in batch.items() if key not in {"rows", "labels"}}
        logits = self.model(**inputs).logits
        heads, zero = self.model.heads_by_task, torch.zeros((), device=self.args.device)
        sums = {
            name: heads[name].loss_sum(logits[name][rows], batch["labels"][name], unit_weights(batch, self.tasks[name]))
            if len(rows)
            else zero
            for name, rows in batch["rows"].items()
        }
        return MultitaskOutput(logits=logits, loss_sums=sums)

    def _preprocessed(self, logits: Mapping[str, torch.Tensor], labels: Any) -> dict[str, Any]:
        """Return the values for `compute_metrics`: the logits, or the result of `preprocess_logits_for_metrics`."""
        preprocess = self.preprocess_logits_for_metrics
        if preprocess is None:
            return dict(logits)
        if isinstance(preprocess, Mapping):
            of_tasks = {task: function for task, function in preprocess.items() if task in logits}
            made = {
                task: function(logits[task], None if labels is None else labels[task])
                for task, function in of_tasks.items()
            }
        else:
            made = preprocess(dict(logits), labels)
        if not isinstance(made, Mapping):
            raise ValueError(
                f"`preprocess_logits_for_metrics` gets a dict from task to logits, and should return such a dict. "
                f"Found {type(made).__name__}. Pass a dict from task to function for functions of one task."
            )
        return {**logits, **made}


def _on_host(output: MultitaskOutput) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """Return the logits and the summed losses of a batch in the memory of the host, which waits once for the device."""
    logits, sums = dict(output.logits or {}), output.loss_sums or {}
    total = torch.stack(list(sums.values()))
    if total.device.type != "cpu":
        logits = {name: values.to("cpu", non_blocking=True) for name, values in logits.items()}
        total = total.to("cpu", non_blocking=True)
        torch.accelerator.synchronize()
    return logits, dict(zip(sums, total.tolist(), strict=True))


def _labels_of_all_rows(batch: Mapping[str, Any], fed: Collection[str]) -> dict[str, torch.Tensor | None] | None:
    """Return the labels of a batch with an entry for every row: -100, or NaN for numbers, for a row without a label.

    Args:
        batch: the batch, whose labels are those of the labelled rows.
        fed: the tasks with labels in the dataset of the batch. The labels of other tasks are None, and without any
            such task the result is None.
    """
    if not fed:
        return None
    result: dict[str, torch.Tensor | None] = dict.fromkeys(batch["labels"])
    for name in fed:
        labels, rows = batch["labels"][name], batch["rows"][name]
        missing = math.nan if labels.is_floating_point() else PADDING
        spread = labels.new_full((len(batch["input_ids"]), *labels.shape[1:]), missing)
        spread[rows] = labels
        result[name] = spread
    return result
