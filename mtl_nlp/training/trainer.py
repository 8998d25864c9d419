"""MultitaskTrainer: a Trainer with a mixture, a joint loss, and an evaluation of every task."""

from __future__ import annotations

import contextlib
import itertools
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast
from safetensors import SafetensorError
from torch.utils.data import DataLoader
from transformers import EarlyStoppingCallback, PreTrainedTokenizerBase, TrainerCallback
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import TrainerState
from transformers.trainer_utils import TrainOutput
from transformers.utils import logging

from mtl_nlp.balancing.gradients import GradientMethod
from mtl_nlp.balancing.weighting import LossWeighting
from mtl_nlp.data.collator import MultitaskDataCollator, WithSources, WithState
from mtl_nlp.data.encoding import EncodedDataset
from mtl_nlp.messages import is_finite
from mtl_nlp.mixture.mixture import TaskMixture
from mtl_nlp.mixture.streaming import MixtureStream
from mtl_nlp.modeling.adapters_multitask import adapter_parameters
from mtl_nlp.modeling.modeling_multitask import MultitaskModel
from mtl_nlp.run_folder import RECIPE_NAME, WEIGHTING_NAME, checkpoint_folder
from mtl_nlp.training.arguments import MultitaskTrainingArguments, check_adapter_arguments
from mtl_nlp.training.callbacks import (
    CurrentArguments,
    EpochStart,
    EvaluationBeforeCheckpoint,
    StepHooks,
    is_over,
)
from mtl_nlp.training.checkpoints import check_same_model
from mtl_nlp.training.completeness import last_checkpoint, list_files
from mtl_nlp.training.defaults import head_learning_rate, heads_with_rate, loss_weighting_of
from mtl_nlp.training.describing import DescribingTrainer
from mtl_nlp.training.divergence import DivergenceWatch
from mtl_nlp.training.failures import failed_checkpoint, lost_processes_reported
from mtl_nlp.training.folder import locked
from mtl_nlp.training.freezing import FreezingCallback
from mtl_nlp.training.headroom import HeadroomCallback, check_headroom
from mtl_nlp.training.optimizer import check_weighting, include_weighting, set_learning_rate
from mtl_nlp.training.progress import Progress
from mtl_nlp.training.schedule import batch_sampler, data_loader
from mtl_nlp.training.states import (
    StreamPosition,
    load_gradient_method,
    load_weighting,
    random_state_name,
    save_gradient_method,
    save_weighting,
)
from mtl_nlp.training.window import agree_on_window

logger = logging.get_logger(__name__)


class MultitaskTrainer(DescribingTrainer):
    """A Trainer for a [`MultitaskModel`] on a [`TaskMixture`] with the joint loss.

    In addition to `loss`, the trainer logs `loss_<task>`, the mean over the labelled units of all processes;
    `weight_<task>`, if the loss weights can change; `cosine_<a>_<b>`, the mean cosine of the gradients of two tasks on
    the encoder, if `conflict_every` is set; `padding`, the share of positions without a sub-word; and `pull`,
    the term of `adapter_pull` in the loss, if `adapter_pull` is set. `evaluate` scores every task on its labelled
    rows, and adds `mtl_score`, the mean of the tasks' primary scores, for `metric_for_best_model`.

    Args:
        model: the model.
        args: the training arguments.
        processing_class: the tokenizer.
        train_dataset: the mixture.
        eval_dataset: encoded splits by dataset.
        data_collator: the collator; [`MultitaskDataCollator`] by default.
        callbacks: see `Trainer`.
        optimizers: see `Trainer`; the optimizer needs the parameters of `loss_weighting` too.
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
    """

    # `compute_loss` returns this micro-batch's share of the mean over the complete step, so Trainer must not divide.
    loss_is_scaled_for_ga = True

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
        loss_weighting: LossWeighting | None = None,
        gradient_method: GradientMethod | None = None,
    ) -> None:
        self.tasks = model.tasks
        train_datasets = {} if train_dataset is None else train_dataset.datasets
        fed = {task for encoded in train_datasets.values() for task in encoded.feeds} or self.tasks.keys()
        self.trained_tasks = {name: task for name, task in self.tasks.items() if name in fed}
        weighting = loss_weighting_of(args, self.tasks, self.trained_tasks, loss_weighting)
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
        self.loss_weighting = weighting.to(args.device)
        check_weighting(self.loss_weighting, is_sharded=self.is_fsdp_enabled or self.is_deepspeed_enabled)
        agree_on_window(model.config, [*train_datasets.values(), *(eval_dataset or {}).values()])
        self.progress = Progress()
        self.gradient_method = gradient_method
        self.build_step()
        self._streams = StreamPosition(args.process_index, args.world_size)
        self._resumed: TrainerState | None = None
        self.watch = DivergenceWatch(list(self.tasks), self.accelerator)
        self.epochs = EpochStart(self._streams)
        self.note: Callable[[str], None] = logger.warning
        self._add_callbacks()
        if self.args.world_size == 1 and not self.args.use_cpu and (devices := torch.accelerator.device_count()) > 1:
            logger.warning(
                f"Training on one of {devices} devices. To use all: accelerate launch --num_processes {devices} …"
            )

    def _add_callbacks(self) -> None:
        for callback in (
            CurrentArguments(self.callback_handler),
            EvaluationBeforeCheckpoint(),
            self.epochs,
            HeadroomCallback(self.epochs, self.tasks, self.log),
            StepHooks(self.step, self.watch),
        ):
            self.add_callback(callback)
        if self.args.early_stopping_patience is not None:
            self.add_callback(EarlyStoppingCallback(self.args.early_stopping_patience))
        if self.args.freeze_patience is not None:
            trained, patience = self.trained_tasks.keys(), self.args.freeze_patience
            self.add_callback(FreezingCallback(self.step, self.tasks, trained, patience, self._note))

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """Train the model.

        Args:
            resume_from_checkpoint: the folder of a checkpoint; True for the last complete checkpoint in `output_dir`.
            trial: see `Trainer.train`.
            ignore_keys_for_eval: see `Trainer.train`.

        Raises:
            CheckpointError: if there is no such checkpoint, or if the checkpoint is damaged or belongs to a different
                model or loss weighting.
            RunError: if a loss or gradient is not finite (with `on_nonfinite: skip`, in most steps or in ten in a row),
                if a new checkpoint cannot be written, if a worker of the
                data loader was killed, or if a different process of the run has ended.
            RecipeError: if a different run is training in `output_dir`.
        """
        if resume_from_checkpoint is True:
            resume_from_checkpoint = str(last_checkpoint(Path(self.args.output_dir)).path)
        self._streams.state = self._resumed = None
        names = () if self.train_dataset is None else self.train_dataset.datasets
        self.progress.start(names, Path(resume_from_checkpoint) if resume_from_checkpoint else None)
        if self.conflict is not None:
            self.conflict.load(Path(resume_from_checkpoint) if resume_from_checkpoint else None)
        if resume_from_checkpoint:
            checkpoint = Path(resume_from_checkpoint)
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
        with lock, lost_processes_reported(folder):
            output = super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)
        self.progress.stop()
        if self.is_stopped:
            return output
        self.check_skips()
        best = self.state.best_model_checkpoint
        # Trainer loads the best model on each node that has its files, and the weighting should be that of this model.
        if self.args.load_best_model_at_end and best is not None and (Path(best) / WEIGHTING_NAME).is_file():
            load_weighting(Path(best), self.loss_weighting)
        return output

    def _note(self, text: str) -> None:
        if self.is_world_process_zero():
            self.note(text)

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
        """Return the number of rows in an epoch."""
        return len(self.train_dataset)

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
        collator = WithSources(self.data_collator, len(self.train_dataset.datasets))
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
        own_rates = [
            (
                head_learning_rate(self.args, self.trained_tasks),
                [p for head in heads_with_rate(self.args, self.model) for p in head.new_parameters()],
            ),
            (self.args.adapter_learning_rate, adapter_parameters(self.model.encoder)),
        ]
        for rate, parameters in own_rates:
            if is_new and rate is not None and parameters:
                set_learning_rate(optimizer, parameters, rate)
        include_weighting(optimizer, self.loss_weighting, self.args.learning_rate, is_new=is_new)
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
