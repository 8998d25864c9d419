"""Evaluation in a Trainer: every process predicts and decodes complete texts, and sends labels instead of logits."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import gather_object, send_to_device
from transformers import TrainerControl
from transformers.trainer_utils import speed_metrics

from mtl_nlp.data.collator import WithFeatures
from mtl_nlp.data.encoding import EncodedDataset
from mtl_nlp.evaluation.dealing import deal_batches
from mtl_nlp.evaluation.evaluator import (
    Answer,
    Answers,
    Evaluation,
    decode_texts,
    in_row_order,
    pieces_of_batch,
    score_answers,
)
from mtl_nlp.modeling.loss_multitask import StepCounts, count_step
from mtl_nlp.modeling.modeling_multitask import MultitaskModel
from mtl_nlp.modeling.tasks_multitask import Task
from mtl_nlp.training.arguments import MultitaskTrainingArguments
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
    """

    answers: dict[str, dict[int, Answer]]
    loss_sums: list[dict[str, float]]
    counts: StepCounts

    def __add__(self, other: EvaluatedRows) -> EvaluatedRows:
        """Return the evaluation of the rows of both operands."""
        answers = {task: rows | other.answers[task] for task, rows in self.answers.items()}
        return EvaluatedRows(answers, self.loss_sums + other.loss_sums, self.counts + other.counts)


class EvaluatingTrainer(HubTrainer):
    """A Trainer that scores every task of a multitask model on the rows that carry its label.

    Attributes:
        tasks: all tasks of the model by name.
        step: the joint loss.
    """

    model: MultitaskModel
    args: MultitaskTrainingArguments
    control: TrainerControl
    tasks: Mapping[str, Task]
    step: StepLoss

    def evaluate(
        self,
        eval_dataset: Mapping[str, EncodedDataset] | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Score every task on the rows that carry its label.

        Args:
            eval_dataset: encoded splits by dataset; the trainer's `eval_dataset` by default.
            ignore_keys: an argument of Trainer, without effect.
            metric_key_prefix: the prefix of every key.

        Returns:
            `<prefix>_<task>_<score>`, `<prefix>_<task>_loss`, `<prefix>_loss` (with the current loss weights, without
            penalty and pull), `<prefix>_mtl_score` and the speed.

        Raises:
            ValueError: if there is no split to evaluate.
        """
        datasets = self.eval_dataset if eval_dataset is None else eval_dataset
        if datasets is None:
            raise ValueError(
                "Evaluation needs an `eval_dataset`, encoded splits by dataset. Found None. Pass it to the trainer or "
                "to `evaluate`."
            )
        started = time.time()
        split = {name: self._evaluate_rows(encoded) for name, encoded in datasets.items()}
        answers = {name: rows.answers for name, rows in split.items()}
        metrics = score_answers(answers, datasets, self.tasks).flat()
        metrics |= self._losses_of(list(split.values()))
        metrics = {f"{metric_key_prefix}_{key}": value for key, value in metrics.items()}
        metrics |= speed_metrics(metric_key_prefix, started, num_samples=sum(d.num_rows for d in datasets.values()))
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

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
    def _evaluate_rows(self, encoded: EncodedDataset, *, with_confidence: bool = False) -> EvaluatedRows:
        """Evaluate a split; each process evaluates a share of the rows."""
        shares = deal_batches(
            encoded,
            self.args.eval_batch_size,
            self.args.world_size,
            equal_passes=self.is_fsdp_enabled or self.is_deepspeed_enabled,
        )
        batches, repeated = shares[self.args.process_index]
        loader = data_loader(encoded.windows, batches, WithFeatures(self.data_collator), self.args)
        self.callback_handler.eval_dataloader = loader
        fed = {name: self.tasks[name] for name in encoded.references}
        model = self.model.eval()
        if not self.is_in_train and (self.args.bf16_full_eval or self.args.fp16_full_eval):
            model.to(torch.bfloat16 if self.args.bf16_full_eval else torch.float16)
        model.to(self.args.device)
        pieces, sums, counts = [], [], StepCounts(0, {}, {})
        for number, (features, batch) in enumerate(loader):
            batch = send_to_device(batch, self.args.device)
            # Outside of training accelerate has not wrapped the model, and the precision should be the same.
            with self.accelerator.autocast():
                output = model(**batch)
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
            if number >= len(batches) - repeated:
                continue
            pieces += pieces_of_batch(features, batch["rows"], output.logits, fed)
            values = torch.stack(list(output.loss_sums.values())).tolist()
            sums.append(dict(zip(output.loss_sums, values, strict=True)))
            counts = counts + count_step([batch], self.tasks)
        own = EvaluatedRows(decode_texts(pieces, fed, with_confidence=with_confidence), sums, counts)
        first, *rest = gather_object([own])
        return sum(rest, first)
