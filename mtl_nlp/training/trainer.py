"""MultitaskTrainer: a Trainer with a mixture, a joint loss, and an evaluation of every task."""

from __future__ import annotations

import contextlib
import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast
from safetensors import SafetensorError
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase, TrainerCallback, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import TrainerState
from transformers.trainer_utils import TrainOutput
from transformers.utils import logging

from mtl_nlp.balancing.gradients import GradientMethod
from mtl_nlp.balancing.weighting import LossWeighting
from mtl_nlp.data.collator import WithState
from mtl_nlp.data.encoding import EncodedDataset
from mtl_nlp.data.from_python import ColumnNames
from mtl_nlp.evaluation.arrays import ComputeMetrics
from mtl_nlp.messages import is_finite
from mtl_nlp.mixture.streaming import MixtureStream
from mtl_nlp.modeling.adapters_multitask import adapter_parameters
from mtl_nlp.modeling.modeling_multitask import MultitaskModel
from mtl_nlp.recipe.label_columns import LabelMaps
from mtl_nlp.run_folder import RECIPE_NAME, WEIGHTING_NAME, checkpoint_folder
from mtl_nlp.training.arguments import MultitaskTrainingArguments
from mtl_nlp.training.best_metric import check_best_metric
from mtl_nlp.training.callbacks import EpochStart, is_over
from mtl_nlp.training.checkpoints import check_same_format, check_same_model
from mtl_nlp.training.completeness import last_checkpoint, list_files
from mtl_nlp.training.counting import training_collator
from mtl_nlp.training.defaults import head_learning_rate, heads_with_rate, loss_weighting_of
from mtl_nlp.training.failures import failed_checkpoint, lost_processes_reported
from mtl_nlp.training.folder import locked
from mtl_nlp.training.headroom import check_headroom
from mtl_nlp.training.inputs import (
    Preprocess,
    check_callables,
    check_named_sets,
    columns_of,
    evaluation_sets,
    mixture_of,
    trained_tasks_of,
    training_arguments_of,
    warn_of_missing_scale,
)
from mtl_nlp.training.optimizer import decay_by_layer, include_weighting, set_learning_rate
from mtl_nlp.training.progress import Progress
from mtl_nlp.training.renewing import RenewingTrainer, first_model
from mtl_nlp.training.schedule import batch_sampler, data_loader, default_collator
from mtl_nlp.training.states import (
    StreamPosition,
    load_gradient_method,
    load_weighting,
    random_state_name,
    save_gradient_method,
    save_weighting,
)
from mtl_nlp.training.tuning import check_tuning, datasets_to_tune_on, tune_tasks

logger = logging.get_logger(__name__)


class MultitaskTrainer(RenewingTrainer):
    """A Trainer for a [`MultitaskModel`] on a [`TaskMixture`] with the joint loss.

    In addition to `loss`, the trainer logs `loss_<task>`, the mean over the labelled units of all processes;
    `weight_<task>`, if the loss weights can change; `cosine_<a>_<b>`, the mean cosine of the gradients of two tasks on
    the encoder, if `conflict_every` is set; `padding`, the share of positions without a sub-word; and `pull`,
    the term of `adapter_pull` in the loss, if `adapter_pull` is set. `evaluate` scores every task on its labelled
    rows, and adds `mtl_score`, the mean of the tasks' primary scores, for `metric_for_best_model`.

    All arguments of Trainer are accepted, in its order and with its meaning.

    Args:
        model: the model.
        args: the training arguments; plain `TrainingArguments` are completed by the defaults of multitask training.
        data_collator: the collator; [`MultitaskDataCollator`] by default.
        train_dataset: the mixture; or encoded or raw datasets by name, or a single dataset, for a mixture with the
            default settings.
        eval_dataset: encoded or raw splits by dataset, a single split, or a mixture. A dict whose values are dicts or
            mixtures holds several sets, whose metrics have the prefix `eval_<set>`.
        processing_class: the tokenizer.
        model_init: a function that returns a new model, with which each call of `train` begins, instead of `model`.
        compute_loss_func: refused, see `loss_weighting`.
        compute_metrics: a function of an `EvalPrediction` whose predictions (logits) and labels are dicts by task, see
            `arrays_of`; or a dict from task to a function of an `EvalPrediction` of this task.
        callbacks: see `Trainer`.
        optimizers: see `Trainer`; the optimizer needs the parameters of `loss_weighting` too.
        optimizer_cls_and_kwargs: see `Trainer`. The heads have their own learning rate, see `head_learning_rate`.
        preprocess_logits_for_metrics: a function of two dicts by task, the logits and the labels of a batch, which
            returns the values that `compute_metrics` sees; or a dict from task to a function of two tensors. The labels
            are None for a dataset without labels.
        inputs: the columns of the inputs of raw datasets, see [`TaskMixture`]; those of the mixture by default.
        labels: the columns of the labels of raw datasets, see [`TaskMixture`]; those of the mixture by default.
        label_map: the new names of labels of raw datasets, see [`TaskMixture`]; those of the mixture by default.
        weight: the column with the weights of raw rows, see [`TaskMixture`]; that of the mixture by default. Datasets
            for evaluation may lack the column.
        loss_weighting: the method that chooses the weights of the tasks in the joint loss, instead of
            `args.loss_weights`. The optimizer has the parameters of the method in a group without weight decay, and
            every checkpoint has the state of the method.
        gradient_method: the method that combines the tasks' gradients of the shared parameters; the plain sum by
            default. Every checkpoint has the state of the method.

    Attributes:
        recipe: the text of the recipe, written to every checkpoint; empty without a recipe.
        progress: the work that the training has done.
        note: a function that shows a sentence on the training to the user; a warning in the log by default. Only the
            first process calls the function.

    Raises:
        ValueError: if the arguments do not fit the model or each other.
        DataError: if a dataset does not fit the model's tasks.
    """

    # `compute_loss` returns this micro-batch's share of the mean over the complete step, so Trainer must not divide.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: MultitaskModel | None = None,
        args: TrainingArguments | None = None,
        data_collator: Callable[[Any], dict[str, Any]] | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        model_init: Callable[..., MultitaskModel] | None = None,
        compute_loss_func: Callable[..., Any] | None = None,
        compute_metrics: ComputeMetrics | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[torch.optim.Optimizer | None, torch.optim.lr_scheduler.LambdaLR | None] = (None, None),
        optimizer_cls_and_kwargs: tuple[type[torch.optim.Optimizer], dict[str, Any]] | None = None,
        preprocess_logits_for_metrics: Preprocess | None = None,
        *,
        inputs: ColumnNames | None = None,
        labels: ColumnNames | None = None,
        label_map: LabelMaps | None = None,
        weight: str | None = None,
        loss_weighting: LossWeighting | None = None,
        gradient_method: GradientMethod | None = None,
    ) -> None:
        args = training_arguments_of(args)
        model = first_model(model, model_init, args, optimizers)
        by_task = {"compute_metrics": compute_metrics, "preprocess_logits_for_metrics": preprocess_logits_for_metrics}
        check_callables(model.tasks, data_collator, compute_loss_func, **by_task)
        self.tasks = model.tasks
        given = {"inputs": inputs, "labels": labels, "label_map": label_map, "weight": weight}
        self.columns = columns_of(model, train_dataset, processing_class, **given)
        train_dataset = mixture_of(train_dataset, self.columns)
        sets = {} if eval_dataset is None else evaluation_sets(eval_dataset, self.columns, self.tasks)
        check_named_sets(sets, args, has_headroom=train_dataset is not None and bool(train_dataset.headroom))
        self.trained_tasks = trained_tasks_of(train_dataset, self.tasks)
        loss_weighting_of(args, self.tasks, self.trained_tasks, loss_weighting)  # an error before anything is created
        super().__init__(
            model=model,
            args=args,
            processing_class=self.columns.tokenizer,
            train_dataset=train_dataset,
            eval_dataset=sets.get("", sets or None),
            data_collator=data_collator or default_collator(self.columns.tokenizer, self.tasks, train_dataset, args),
            compute_metrics=compute_metrics,
            callbacks=callbacks,
            optimizers=optimizers,
            optimizer_cls_and_kwargs=optimizer_cls_and_kwargs,
            preprocess_logits_for_metrics=preprocess_logits_for_metrics,
        )
        self.model_init, self.recipe = model_init, ""
        self.given_methods = (loss_weighting, gradient_method)
        parts = [{} if train_dataset is None else train_dataset.datasets, *sets.values()]
        self.known_datasets = [encoded for datasets in parts for encoded in datasets.values()]
        self.progress = Progress()
        self._streams = StreamPosition(self.args.process_index, self.args.world_size)
        self._resumed: TrainerState | None = None
        self.epochs = EpochStart(self._streams)
        self.note: Callable[[str], None] = logger.warning
        self.show_progress()
        self.bind()
        self._warn_of_idle_devices()
        if train_dataset is not None and self.is_world_process_zero():
            warn_of_missing_scale(self.trained_tasks)

    def _warn_of_idle_devices(self) -> None:
        if self.args.world_size == 1 and not self.args.use_cpu and (devices := torch.accelerator.device_count()) > 1:
            logger.warning(
                f"Training on one of {devices} devices. To use all: accelerate launch --num_processes {devices} …"
            )

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """Train the model, or a new model of `model_init`.

        Args:
            resume_from_checkpoint: the folder of a checkpoint; True for the last complete checkpoint in `output_dir`.
            trial: see `Trainer.train`.
            ignore_keys_for_eval: see `Trainer.train`.

        Raises:
            CheckpointError: if there is no such checkpoint, or if the checkpoint is damaged or belongs to a different
                model or loss weighting.
            RunError: if a loss or gradient is not finite (with `on_nonfinite: skip`, in most steps or in ten in a row),
                if a new checkpoint cannot be written, if a worker of the data loader was killed, or if a different
                process of the run has ended.
            RecipeError: if a different run is training in `output_dir`.
            ValueError: if a task needs validation rows after training, such as for `threshold: tuned`, and has none, or
                the evaluations do not have the metric `metric_for_best_model`.
        """
        check_tuning(self.trained_tasks, self._validation)
        if self.compute_metrics is None and self.eval_dataset is not None:
            check_best_metric(self.args, evaluation_sets(self.eval_dataset, self.columns, self.tasks), self.tasks)
        if resume_from_checkpoint is True:
            resume_from_checkpoint = str(last_checkpoint(Path(self.args.output_dir)).path)
        if self.model_init is not None:
            self.renew(trial)
        self._streams.state = self._resumed = None
        checkpoint = Path(resume_from_checkpoint) if resume_from_checkpoint else None
        self.progress.start(() if self.train_dataset is None else self.train_dataset.datasets, checkpoint)
        if self.conflict is not None:
            self.conflict.load(checkpoint)
        if checkpoint is not None:
            check_same_format(checkpoint, self.args)
            check_same_model(checkpoint, self.model)
            load_weighting(checkpoint, self.loss_weighting)
            load_gradient_method(checkpoint, self.gradient_method)
            if not self.args.ignore_data_skip:
                self._streams.load(checkpoint)
            if (checkpoint / TRAINER_STATE_NAME).is_file():
                self._resumed = self.read_state(checkpoint)
            self.check_states(checkpoint, checkpoint / random_state_name(self.args))
        if self.args.world_size > 1:
            # DDP does the same with the model: a weighting may start from random values.
            for value in itertools.chain(self.loss_weighting.parameters(), self.loss_weighting.buffers()):
                broadcast(value.data)
        folder = Path(self.args.output_dir)
        lock = locked(folder) if self.is_world_process_zero() else contextlib.nullcontext()
        with lock, lost_processes_reported(folder), contextlib.closing(self.display):
            output = super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)
        self.progress.stop()
        if self.is_stopped:
            return output
        self.check_skips()
        best = self.state.best_model_checkpoint
        # Trainer loads the best model on each node that has its files, and the weighting should be that of this model.
        if self.args.load_best_model_at_end and best is not None and (Path(best) / WEIGHTING_NAME).is_file():
            load_weighting(Path(best), self.loss_weighting)
        self._tune()
        return output

    def _evaluate(
        self, trial: Any, ignore_keys_for_eval: list[str] | None, skip_scheduler: bool = False
    ) -> dict[str, float]:
        """Evaluate in training; a resumed run does not repeat the evaluation of `eval_on_start`.

        Such an evaluation would count for early stopping, unlike in an uninterrupted run.
        """
        history = [] if self._resumed is None else self._resumed.log_history
        at_start = {key for entry in history if entry.get("step") == 0 for key in entry}
        if skip_scheduler and any(key.startswith("eval_") for key in at_start):
            return {}
        return super()._evaluate(trial, ignore_keys_for_eval, skip_scheduler)

    @property
    def _validation(self) -> dict[str, EncodedDataset]:
        """The evaluation splits of all sets by name."""
        found: dict[str, EncodedDataset] = {}
        for name, value in (self.eval_dataset or {}).items():
            found |= (
                {name: value} if isinstance(value, EncodedDataset) else {f"{name}/{key}": value[key] for key in value}
            )
        return found

    def _tune(self) -> None:
        """Set the options of tasks that are chosen on the validation rows, such as thresholds."""
        datasets = datasets_to_tune_on(self.tasks, self._validation)
        if not datasets:
            return
        self.is_in_train = True  # the evaluation should not change the type of the weights, which are not saved yet
        try:
            tune_tasks(self.model, self.answer(datasets), datasets)
        finally:
            self.is_in_train = False

    def set_initial_training_values(
        self, args: MultitaskTrainingArguments, dataloader: DataLoader
    ) -> tuple[int, int, int, int, int, int | None, int]:
        """Return Trainer's numbers of epochs, steps and rows, without further epochs for a run that had ended.

        Trainer would train such a run for a further step.
        """
        epochs, steps_per_epoch, *middle, max_steps = super().set_initial_training_values(args, dataloader)
        if self._resumed is not None and is_over(self._resumed, args, max_steps, self.callback_handler.callbacks):
            epochs = self._resumed.global_step // steps_per_epoch
        return (epochs, steps_per_epoch, *middle, max_steps)

    def num_examples(self, dataloader: DataLoader) -> int:
        """Return the number of rows of a loader; for the loader of the training, the rows in an epoch."""
        return len(self.train_dataset if isinstance(dataloader.dataset, MixtureStream) else dataloader.dataset)

    def get_train_dataloader(self) -> DataLoader:
        """Return the loader of this process's batches of the mixture.

        accelerate does not prepare the loader, since the sampler already yields the batches of this process, and
        accelerate would add or drop batches.

        Raises:
            ValueError: if there is no `train_dataset`, or its batches cannot be made, see `batch_sampler`.
        """
        if self.train_dataset is None:
            raise ValueError("Training needs a TaskMixture as `train_dataset`. Found None.")
        sampler = batch_sampler(self.train_dataset, self.args)
        check_headroom(sampler, self.eval_dataset or {}, self.args)
        collator = training_collator(self.data_collator, self.model, self.train_dataset, self.args.world_size)
        if not self.train_dataset.is_streamed:
            return data_loader(self.train_dataset, sampler, collator, self.args)
        return data_loader(MixtureStream(sampler), None, WithState(collator), self.args)

    def get_decay_parameter_names(self, model: torch.nn.Module) -> list[str]:
        """Return the names of parameters with weight decay: the names from Trainer, and all adapter parameters.

        Trainer excludes names with words such as `bias`, and the name of an adapter contains the name of its task.
        """
        adapters = set(adapter_parameters(self.model.encoder))
        of_adapters = (name for name, parameter in model.named_parameters() if parameter in adapters)
        return list(dict.fromkeys([*super().get_decay_parameter_names(model), *of_adapters]))

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """Create Trainer's optimizer, with groups for separate learning rates and for the loss weighting."""
        is_new = self.optimizer is None
        optimizer = super().create_optimizer(model)
        given = {} if self.optimizer_cls_and_kwargs is None else self.optimizer_cls_and_kwargs[1]
        learning_rate = given.get("lr") or self.args.learning_rate
        own_rates = [
            (
                head_learning_rate(self.args, self.trained_tasks, learning_rate),
                [p for head in heads_with_rate(self.args, self.model) for p in head.new_parameters()],
            ),
            (self.args.adapter_learning_rate, adapter_parameters(self.model.encoder)),
        ]
        for rate, parameters in own_rates:
            if is_new and rate is not None and parameters:
                set_learning_rate(optimizer, parameters, rate)
        if is_new and self.args.layer_lr_decay is not None:
            decay_by_layer(optimizer, self.model.encoder, self.args.layer_lr_decay)
        include_weighting(optimizer, self.loss_weighting, learning_rate, is_new=is_new)
        return optimizer

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the entries of Trainer, with the entries of the optimizer steps since the last log.

        Raises:
            RunError: if a loss or gradient of training was not finite.
        """
        if "loss" in logs:
            logs |= self._log.take(self.sum_and_check)
            logs |= {} if self.conflict is None else self.conflict.conflict.take()
        super().log(logs, start_time)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        self.stop_if_diverged()
        if not is_finite(self.state.best_metric):  # Trainer's first value, which JSON does not have
            self.state.best_metric = None
        folder = checkpoint_folder(Path(self._get_output_dir(trial)), self.state.global_step)
        try:
            if self.args.should_save:
                if folder.exists():  # from an earlier run; if partly overwritten, the folder would look complete
                    shutil.rmtree(folder)
                folder.mkdir(parents=True)
                (folder / RECIPE_NAME).write_text(self.recipe, encoding="utf-8")
                save_weighting(folder, self.loss_weighting)
                save_gradient_method(folder, self.gradient_method)
            self.accelerator.wait_for_everyone()
            if not self.args.save_only_model:
                folder.mkdir(parents=True, exist_ok=True)  # on other nodes
                self._streams.save(folder)
                # The empty file makes the checkpoint incomplete until this process has written its random state.
                (folder / random_state_name(self.args)).touch()
            self.accelerator.wait_for_everyone()
            if self.args.should_save and not self.args.save_only_model:
                self.progress.save(folder)
                if self.conflict is not None:
                    self.conflict.save(folder)
                has_scaler = self.accelerator.scaler is not None
                list_files(folder, has_scheduler=not self.is_deepspeed_enabled, has_scaler=has_scaler)
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
        except (OSError, RuntimeError, SafetensorError) as error:  # torch.save raises RuntimeError on a full disk
            raise failed_checkpoint(folder, error) from error
        self.saved_step = self.state.global_step
