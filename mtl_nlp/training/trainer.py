"""MultitaskTrainer: transformers' Trainer with a mixture, a joint loss, and an evaluation of every task."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.utils import gather_object
from safetensors import SafetensorError
from torch.utils.data import DataLoader
from transformers import EarlyStoppingCallback, PreTrainedTokenizerBase, TrainerCallback, TrainerControl
from transformers.trainer_utils import TrainOutput, speed_metrics
from transformers.utils import logging

from mtl_nlp.balancing.pull import adapter_deviation
from mtl_nlp.data.collator import MultitaskDataCollator, WithFeatures, WithState
from mtl_nlp.data.encoding import EncodedDataset
from mtl_nlp.errors import CheckpointError
from mtl_nlp.evaluation.evaluator import Evaluation, decode_pieces, evaluation_batches, pieces_of_batch, score
from mtl_nlp.messages import one_line
from mtl_nlp.mixture.mixture import TaskMixture
from mtl_nlp.mixture.sampler import MixtureBatchSampler
from mtl_nlp.mixture.streaming import MixtureStream
from mtl_nlp.modeling.adapters_multitask import adapter_parameters
from mtl_nlp.modeling.loss_multitask import StepCounts, count_step, joint_loss
from mtl_nlp.modeling.modeling_multitask import MultitaskModel, MultitaskOutput
from mtl_nlp.run_folder import RECIPE_NAME, checkpoint_folder
from mtl_nlp.training.arguments import MultitaskTrainingArguments, check_adapter_arguments
from mtl_nlp.training.callbacks import StepHooks
from mtl_nlp.training.checkpoints import check_same_model, last_checkpoint
from mtl_nlp.training.log import TrainingLog
from mtl_nlp.training.optimizer import set_learning_rate
from mtl_nlp.training.pushing import HubTrainer
from mtl_nlp.training.schedule import batch_sampler
from mtl_nlp.training.window import agree_on_window

logger = logging.get_logger(__name__)


class MultitaskTrainer(HubTrainer):
    """Trains a [`MultitaskModel`] on a [`TaskMixture`] with the joint loss.

    It logs `loss_<task>`, the mean over all processes' labelled units, `padding`, the share of sub-words that are
    none, and with `adapter_pull` its share of the loss, `pull`, beside `loss`. `evaluate` scores every task on its own
    rows and adds `mtl_score`, the mean of the tasks' primary scores, for `metric_for_best_model`.

    Args:
        model: the model.
        args: the training arguments.
        processing_class: the tokenizer.
        train_dataset: the mixture.
        eval_dataset: encoded splits by dataset.
        data_collator: [`MultitaskDataCollator`] by default.
        callbacks: as Trainer's.
        optimizers: as Trainer's.

    Attributes:
        recipe: the recipe's text, written to every checkpoint; empty for none.
    """

    # compute_loss returns this micro-batch's share of the whole step's mean: nothing is left to divide.
    loss_is_scaled_for_ga = True

    model: MultitaskModel
    args: MultitaskTrainingArguments
    control: TrainerControl

    def __init__(
        self,
        model: MultitaskModel,
        args: MultitaskTrainingArguments,
        processing_class: PreTrainedTokenizerBase,
        train_dataset: TaskMixture | None = None,
        eval_dataset: Mapping[str, EncodedDataset] | None = None,
        data_collator: MultitaskDataCollator | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[torch.optim.Optimizer | None, torch.optim.lr_scheduler.LambdaLR | None] = (None, None),
    ) -> None:
        self.tasks = model.tasks
        self.loss_weights = cast("dict[str, float]", args.loss_weights or {})
        if unknown := set(self.loss_weights) - set(self.tasks):
            raise ValueError(
                f"`loss_weights` should name tasks of the model ({', '.join(self.tasks)}). Found {unknown}."
            )
        train_datasets = {} if train_dataset is None else train_dataset.datasets
        agree_on_window(model.config, processing_class, [*train_datasets.values(), *(eval_dataset or {}).values()])
        super().__init__(
            model=model,
            args=args,
            processing_class=processing_class,
            train_dataset=train_dataset,
            eval_dataset=None if eval_dataset is None else dict(eval_dataset),
            data_collator=data_collator or MultitaskDataCollator(processing_class, self.tasks),
            callbacks=callbacks,
            optimizers=optimizers,
        )
        for head in model.heads:
            head.label_smoothing = args.label_smoothing_factor
        check_adapter_arguments(model, args, is_sharded=self.is_fsdp_enabled)
        self.recipe = ""
        self._sampler: MixtureBatchSampler | None = None
        self._stream: MixtureStream | None = None
        self._stream_state: dict[str, Any] | None = None
        self._step_counts: StepCounts | None = None
        self._log = TrainingLog(list(self.tasks), self.args.device)
        self._pull_is_due = False
        self.add_callback(StepHooks(self))
        if self.args.world_size == 1 and not self.args.use_cpu and (devices := torch.accelerator.device_count()) > 1:
            logger.warning(
                f"Training on one of {devices} devices. To use all: accelerate launch --num_processes {devices} …"
            )
        if args.early_stopping_patience is not None:
            self.add_callback(EarlyStoppingCallback(args.early_stopping_patience))

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> TrainOutput:
        """Train.

        Args:
            resume_from_checkpoint: a checkpoint's folder; True for the newest whole one of `output_dir`.
            **kwargs: as Trainer's.

        Raises:
            CheckpointError: if there is no such checkpoint, it is of another model, or one cannot be written.
        """
        if resume_from_checkpoint is True:
            resume_from_checkpoint = str(last_checkpoint(Path(self.args.output_dir)).path)
        self._stream_state = None
        if resume_from_checkpoint:
            check_same_model(Path(resume_from_checkpoint), self.model)
            state = Path(resume_from_checkpoint) / self._stream_state_name
            if state.is_file() and not self.args.ignore_data_skip:
                self._stream_state = json.loads(state.read_text(encoding="utf-8"))
        return super().train(resume_from_checkpoint, **kwargs)

    def describe_training(self) -> dict[str, Any]:
        """What was trained on, for `results.json`: steps, epochs, processes; rows and p_d of each dataset."""
        mixture = self.train_dataset
        return {
            "steps": self.state.global_step,
            "epochs": self.state.epoch,
            "processes": self.args.world_size,
            "mixture": {
                name: {"rows": encoded.num_rows, "probability": float(probability)}
                for (name, encoded), probability in zip(
                    mixture.datasets.items(), mixture.mean_probabilities, strict=True
                )
            },
        }

    @property
    def _stream_state_name(self) -> str:
        return f"streams_{self.args.process_index}_of_{self.args.world_size}.json"

    @property
    def _early_stopping(self) -> list[EarlyStoppingCallback]:
        return [each for each in self.callback_handler.callbacks if isinstance(each, EarlyStoppingCallback)]

    def _run_epoch(self, **kwargs: Any) -> None:
        stopped = any(
            each.early_stopping_patience_counter >= each.early_stopping_patience for each in self._early_stopping
        )
        # Trainer would train a run that was over when it was interrupted for one more step.
        is_over = self.state.global_step >= self.state.max_steps or stopped
        if kwargs["resume_from_checkpoint"] is None or not is_over:
            super()._run_epoch(**kwargs)

    def num_examples(self, dataloader: DataLoader) -> int:
        """Rows in an epoch."""
        return len(self.train_dataset)

    def get_train_dataloader(self) -> DataLoader:
        """This process's batches of the mixture.

        Not prepared by accelerate, whose sharding would top up or drop batches: the sampler knows its process.
        """
        if self.train_dataset is None:
            raise ValueError("Training needs a `train_dataset`, a TaskMixture.")
        self._sampler = batch_sampler(self.train_dataset, self.args)
        if not self.train_dataset.is_streamed:
            return self._data_loader(self.train_dataset, self._sampler)
        self._stream = MixtureStream(self._sampler)
        return self._data_loader(self._stream, None, WithState(self.data_collator))

    def get_decay_parameter_names(self, model: torch.nn.Module) -> list[str]:
        """Trainer's, which go by words such as `bias` in a name, and adapters, whatever their task is called."""
        adapters = set(adapter_parameters(self.model.encoder))
        of_adapters = (name for name, parameter in model.named_parameters() if parameter in adapters)
        return list(dict.fromkeys([*super().get_decay_parameter_names(model), *of_adapters]))

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """Trainer's optimizer, with groups of their own for what has its own learning rate."""
        is_new = self.optimizer is None
        optimizer = super().create_optimizer(model)
        own_rates = [
            (self.args.head_learning_rate, [p for head in self.model.heads for p in head.new_parameters()]),
            (self.args.adapter_learning_rate, adapter_parameters(self.model.encoder)),
        ]
        for rate, parameters in own_rates:
            if is_new and rate is not None:
                set_learning_rate(optimizer, parameters, rate)
        return optimizer

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list, StepCounts]:
        """This process's micro-batches of an optimizer step, and the counts over those of all processes."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self._stream is not None:
            self._stream_state = batches[-1][1]
            batches = [batch for batch, _ in batches]
        own = count_step(batches, list(self.tasks))
        sub_words = sum(int(batch["attention_mask"].sum()) for batch in batches)
        positions = sum(batch["attention_mask"].numel() for batch in batches)
        numbers = [sub_words, positions, own.rows, *own.task_rows.values(), *own.units.values()]
        total = self.accelerator.reduce(torch.tensor(numbers, device=device), "sum").tolist()
        task_rows, units = total[3 : 3 + len(self.tasks)], total[3 + len(self.tasks) :]
        self._step_counts = StepCounts(
            total[2], dict(zip(self.tasks, task_rows, strict=True)), dict(zip(self.tasks, units, strict=True))
        )
        self._log.add_step(self._step_counts, sub_words=total[0], positions=total[1])
        self._pull_is_due = self.args.adapter_pull > 0
        return batches, self._step_counts

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: StepCounts | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, MultitaskOutput]:
        """This micro-batch's share of the step's joint loss, see `joint_loss`.

        Args:
            model: the model, wrapped or not.
            inputs: a batch.
            return_outputs: whether to return the model's output too.
            num_items_in_batch: the whole step's counts; the batch's own if None.
        """
        counts = num_items_in_batch or count_step([inputs], list(self.tasks))
        output = model(**inputs)
        loss = joint_loss(output.loss_sums, counts, self.loss_weights, self.args.loss_scale)
        if num_items_in_batch is not None:
            loss = loss * self.args.world_size  # data parallelism takes the mean over processes: now it is their sum
        if model.training:
            self._log.add_losses(list(output.loss_sums.values()))
        if model.training and self._pull_is_due:  # once a step, in the first micro-batch, and on every process the same
            pull = self.args.adapter_pull * adapter_deviation(self.model)
            self._log.add_pull(pull)
            loss, self._pull_is_due = loss + pull, False
        return (loss, output) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Trainer's log, with the mean loss of each task and the share of padding since the last."""
        if "loss" in logs:
            logs |= self._log.take(lambda tensor: self.accelerator.reduce(tensor, "sum"))
        super().log(logs, start_time)

    def evaluate(
        self,
        eval_dataset: Mapping[str, EncodedDataset] | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Score every task on the rows that carry its label.

        Args:
            eval_dataset: encoded splits by dataset; those given at the start by default.
            ignore_keys: unused, Trainer's.
            metric_key_prefix: put before every key.

        Returns:
            `<prefix>_<task>_<score>`, `<prefix>_<task>_loss` and `<prefix>_loss` (without a pull), `<prefix>_mtl_score`
            and speed.
        """
        datasets = self.eval_dataset if eval_dataset is None else eval_dataset
        if datasets is None:
            raise ValueError("Evaluation needs an `eval_dataset`, encoded splits by dataset.")
        started = time.time()
        split = {name: self._predict(encoded) for name, encoded in datasets.items()}
        metrics = score({name: part[0] for name, part in split.items()}, datasets, self.tasks).flat()
        counts = sum((part[2] for part in split.values()), StepCounts(0, {}, {}))
        # Summed exactly, so that how many processes there are makes no difference.
        sums = {task: math.fsum(value for part in split.values() for value in part[1][task]) for task in self.tasks}
        metrics |= {f"{task}_loss": sums[task] / units for task, units in counts.units.items() if units}
        tensors = {task: torch.tensor(value) for task, value in sums.items()}
        metrics["loss"] = float(joint_loss(tensors, counts, self.loss_weights, self.args.loss_scale))
        metrics = {f"{metric_key_prefix}_{key}": value for key, value in metrics.items()}
        metrics |= speed_metrics(metric_key_prefix, started, num_samples=sum(d.num_rows for d in datasets.values()))
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def score(self, datasets: Mapping[str, EncodedDataset]) -> Evaluation:
        """The scores of every task on encoded splits by dataset, without logging them."""
        return score({name: self.predict_rows(encoded) for name, encoded in datasets.items()}, datasets, self.tasks)

    def predict_rows(self, encoded: EncodedDataset) -> dict[str, list[Any]]:
        """Predictions for each task that the dataset feeds, in the dataset's order; None where a row has no label."""
        return self._predict(encoded)[0]

    @torch.no_grad()
    def _predict(self, encoded: EncodedDataset) -> tuple[dict[str, list[Any]], dict[str, list[float]], StepCounts]:
        """Predictions, each batch's summed losses, and counts of a split, of which every process takes a share."""
        batches = evaluation_batches(encoded, self.args.eval_batch_size)
        own = batches[self.args.process_index :: self.args.world_size]
        loader = self._data_loader(encoded.windows, own, WithFeatures(self.data_collator))
        self.callback_handler.eval_dataloader = loader
        fed = {name: self.tasks[name] for name in encoded.references}
        model = self.model.eval()
        if not self.is_in_train and (self.args.bf16_full_eval or self.args.fp16_full_eval):
            model.to(torch.bfloat16 if self.args.bf16_full_eval else torch.float16)
        model.to(self.args.device)
        pieces, sums, counts = [], [], StepCounts(0, {}, {})
        for features, batch in loader:
            batch = self._prepare_inputs(batch)
            # The same precision whether evaluate() runs in training, when accelerate has wrapped the model, or alone.
            with self.accelerator.autocast():
                output = model(**batch)
            pieces += pieces_of_batch(features, batch["rows"], output.logits, fed)
            sums.append(torch.stack(list(output.loss_sums.values())).tolist())
            counts = counts + count_step([batch], list(self.tasks))
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        shares = gather_object([(pieces, sums, counts)])
        pieces = [piece for share, _, _ in shares for piece in share]
        by_task = {task: [batch[t] for _, share, _ in shares for batch in share] for t, task in enumerate(self.tasks)}
        return decode_pieces(pieces, encoded, fed), by_task, sum((c for _, _, c in shares), StepCounts(0, {}, {}))

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        folder = checkpoint_folder(Path(self._get_output_dir(trial)), self.state.global_step)
        try:
            if self.args.should_save:
                if folder.exists():  # an earlier run's: half of it overwritten would look whole
                    shutil.rmtree(folder)
                folder.mkdir(parents=True)
                (folder / RECIPE_NAME).write_text(self.recipe, encoding="utf-8")
            self.accelerator.wait_for_everyone()
            super()._save_checkpoint(model, trial)
        except (OSError, RuntimeError, SafetensorError) as error:  # torch.save raises RuntimeError on a full disk
            shutil.rmtree(folder, ignore_errors=True)
            raise CheckpointError(
                f"{folder} cannot be written ({one_line(error)}). Make room, then go on from the "
                f"checkpoint before with --resume."
            ) from error

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        if self._stream_state is not None:
            text = json.dumps(self._stream_state)
            (Path(output_dir) / self._stream_state_name).write_text(text, encoding="utf-8")
        # What comes next, trainer_state.json, tells that the files of all processes are there.
        self.accelerator.wait_for_everyone()

    def _data_loader(self, dataset: Any, batch_sampler: Any, collate: Any = None) -> DataLoader:
        return DataLoader(
            dataset,
            **({"batch_size": None} if batch_sampler is None else {"batch_sampler": batch_sampler}),
            collate_fn=collate or self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory and self.args.device.type != "cpu",
            # Those of a stream would not be told where its next epoch begins.
            persistent_workers=self.args.dataloader_persistent_workers and dataset is not self._stream,
            prefetch_factor=self.args.dataloader_prefetch_factor,
        )
