"""A Trainer that begins each training with a new model from `model_init`, and searches hyperparameters."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from tqdm.auto import tqdm
from transformers import EarlyStoppingCallback, TrainerCallback, enable_full_determinism, set_seed
from transformers.trainer_utils import BestRun, number_of_arguments

from mtl_nlp.balancing.gradients import GradientMethod
from mtl_nlp.balancing.weighting import LossWeighting
from mtl_nlp.data.collator import MultitaskDataCollator
from mtl_nlp.data.encoding import EncodedDataset, EncodedStream
from mtl_nlp.errors import CommandError, needs_extra
from mtl_nlp.modeling.modeling_multitask import MultitaskModel
from mtl_nlp.modeling.tasks_multitask import Task
from mtl_nlp.training.arguments import MultitaskTrainingArguments, check_adapter_arguments, check_layer_decay
from mtl_nlp.training.callbacks import CurrentArguments, EvaluationBeforeCheckpoint, OwnTokenIds, StepHooks
from mtl_nlp.training.defaults import loss_weighting_of
from mtl_nlp.training.describing import DescribingTrainer
from mtl_nlp.training.divergence import DivergenceWatch
from mtl_nlp.training.freezing import FreezingCallback
from mtl_nlp.training.headroom import HeadroomCallback
from mtl_nlp.training.inputs import check_model
from mtl_nlp.training.optimizer import check_weighting
from mtl_nlp.training.window import agree_on_window


def seed_all(args: MultitaskTrainingArguments) -> None:
    """Seed all random numbers of this process, like Trainer before a call of `model_init`."""
    if args.full_determinism:
        enable_full_determinism(args.seed)
    else:
        set_seed(args.seed)


def first_model(
    model: Any, model_init: Callable[..., Any] | None, args: MultitaskTrainingArguments, optimizers: tuple[Any, Any]
) -> MultitaskModel:
    """Return the model of a new trainer: the given model, or the first model of `model_init`.

    Args:
        model: the model; None for `model_init`.
        model_init: a function of a trial, which is None here, or of no argument; None for `model`.
        args: the training arguments.
        optimizers: the optimizer and the schedule of the trainer, which belong to one model.

    Raises:
        ValueError: if not exactly one of both is given, or there are optimizers for the models of `model_init`.
    """
    if (model is None) == (model_init is None):
        raise ValueError("Either `model` or `model_init` should be given. Found both or none.")
    if model_init is not None:
        if optimizers != (None, None):
            raise ValueError(
                "`optimizers` belong to one model, and `model_init` returns a new model for each training. Pass "
                "`optimizer_cls_and_kwargs` instead."
            )
        seed_all(args)
        model = model_init() if number_of_arguments(model_init) == 0 else model_init(None)
    check_model(model)
    return model


class RenewingTrainer(DescribingTrainer):
    """A Trainer that begins each training with a new model from `model_init`, if it has one.

    Attributes:
        own_callbacks: the callbacks that `bind` has added.
        given_methods: the loss weighting and the gradient method as the trainer was given them.
        known_datasets: the encoded datasets for training and evaluation.
        epochs: the callback that knows the epochs of this training.
        note: a function that shows a sentence on the training to the user.
        data_collator: the collator.
    """

    model_init: Callable[..., MultitaskModel] | None
    tasks: dict[str, Task]
    own_callbacks: list[TrainerCallback]
    given_methods: tuple[LossWeighting | None, GradientMethod | None]
    known_datasets: list[EncodedDataset | EncodedStream]
    note: Callable[[str], None]
    data_collator: Any
    _is_renewed = False

    def bind(self) -> None:
        """Build all parts that depend on the model, the training arguments or the accelerator."""
        args, model = self.args, self.model
        for head in model.heads:
            head.label_smoothing = args.label_smoothing_factor
        check_adapter_arguments(model, args, is_sharded=self.is_fsdp_enabled)
        check_layer_decay(model, args)
        # Each training of `model_init` starts from the given methods, whose state a training changes.
        given, self.gradient_method = (
            self.given_methods if self.model_init is None else copy.deepcopy(self.given_methods)
        )
        self.loss_weighting = loss_weighting_of(args, self.tasks, self.trained_tasks, given).to(args.device)
        check_weighting(self.loss_weighting, is_sharded=self.is_fsdp_enabled or self.is_deepspeed_enabled)
        agree_on_window(model.config, self.known_datasets)
        self.build_step()
        self.watch = DivergenceWatch(list(self.tasks), self.accelerator)
        self.own_callbacks = [
            CurrentArguments(self.callback_handler),
            OwnTokenIds(model.config.text_config),
            EvaluationBeforeCheckpoint(),
            self.epochs,
            HeadroomCallback(self.epochs, self.tasks, self.log),
            StepHooks(self.step, self.watch),
        ]
        if args.early_stopping_patience is not None:
            self.own_callbacks.append(EarlyStoppingCallback(args.early_stopping_patience))
        if args.freeze_patience is not None:
            trained, patience = self.trained_tasks.keys(), args.freeze_patience
            self.own_callbacks.append(FreezingCallback(self.step, self.tasks, trained, patience, self._note))
        for callback in self.own_callbacks:
            self.add_callback(callback)

    def _note(self, text: str) -> None:
        if self.is_world_process_zero():
            with tqdm.external_write_mode():
                self.note(text)

    def renew(self, trial: Any = None) -> None:
        """Build a new model for a training, and everything that depends on it.

        A search sets the training arguments of its trial first. The loss weighting and the gradient method start again.

        Args:
            trial: the trial of a search for hyperparameters; None outside of a search.

        Raises:
            ValueError: if `model_init` returns a model with other tasks than before, or an argument is not valid.
        """
        super()._hp_search_setup(trial)
        seed_all(self.args)
        model = super().call_model_init(trial)
        check_model(model)
        if _untuned(model.tasks) != _untuned(self.tasks):
            raise ValueError(
                f"`model_init` should return models with the same tasks. Found {', '.join(model.tasks)} with label "
                f"spaces that differ from the first model."
            )
        self.model = self.model_wrapped = model
        self._take_tasks(model.tasks)
        self.optimizer = self.lr_scheduler = None
        if self.place_model_on_device:
            self._move_model_to_device(model, self.args.device)
        for callback in self.own_callbacks:  # by class, since a resumed training has copies of some callbacks
            self.remove_callback(type(callback))
        self.bind()
        self._is_renewed = True

    def _take_tasks(self, tasks: dict[str, Task]) -> None:
        """Take over the tasks of a new model, whose thresholds a training sets."""
        self.tasks = self.display.tasks = tasks
        self.trained_tasks = {name: tasks[name] for name in self.trained_tasks}
        self.columns = dataclasses.replace(self.columns, tasks=tuple(tasks.values()))
        if type(self.data_collator) is MultitaskDataCollator:
            self.data_collator = dataclasses.replace(self.data_collator, tasks=tasks)

    def call_model_init(self, trial: Any = None) -> MultitaskModel:
        """Return the model of the training that begins, or a new model outside of a training."""
        if self._is_renewed:
            self._is_renewed = False
            return self.model
        return super().call_model_init(trial)

    def _hp_search_setup(self, trial: Any) -> None:
        self._trial = trial  # `renew` has set the arguments of the trial

    def hyperparameter_search(
        self,
        hp_space: Callable[[Any], dict[str, Any]] | None = None,
        compute_objective: Callable[[dict[str, float]], float] | None = None,
        n_trials: int = 20,
        direction: str | list[str] = "minimize",
        backend: Any = "optuna",
        hp_name: Callable[[Any], str] | None = None,
        **kwargs: Any,
    ) -> BestRun | list[BestRun]:
        """Search for hyperparameters with optuna; each trial trains a new model from `model_init`.

        Args:
            hp_space: a function from a trial to values of training arguments; Trainer's default for optuna by default.
            compute_objective: a function from the metrics of an evaluation to the number to optimize. By default it is
                `eval_mtl_score` to maximize, and `eval_loss` to minimize. The loss depends on the weights of the tasks,
                so that trials with different weights need a score.
            n_trials: the number of trials.
            direction: `minimize` or `maximize`, or a list of both for several objectives.
            backend: `optuna`.
            hp_name: a function from a trial to the name of its folder in `output_dir`; `run-<number>` by default.
            **kwargs: arguments of `optuna.create_study` and `optuna.Study.optimize`.

        Returns:
            The best trial, or the best trials of several objectives.

        Raises:
            CommandError: if optuna is not installed.
            ValueError: if there is no `model_init`, or an argument is not supported.
        """
        if backend not in {None, "optuna"}:
            raise ValueError(f"`backend` should be 'optuna', the only search that was tested. Found {backend!r:.80}.")
        if self.model_init is None:
            raise ValueError(
                "`hyperparameter_search` trains a new model in each trial. Pass `model_init=`, a function that returns "
                "a MultitaskModel, instead of `model=`."
            )
        if kwargs.get("n_jobs", 1) != 1:
            raise ValueError("`n_jobs` should be 1, since all trials use this trainer. Leave it out.")
        with needs_extra("search"):
            import optuna  # noqa: F401
        if compute_objective is None:
            compute_objective = _objective(direction)
        return super().hyperparameter_search(
            hp_space, compute_objective, n_trials, direction, "optuna", hp_name, **kwargs
        )


def _untuned(tasks: Mapping[str, Task]) -> dict[str, Task]:
    """Return tasks without the options that a training chooses on validation rows."""
    unset: dict[str, dict[str, Any]] = {name: dict.fromkeys(task.tuned) for name, task in tasks.items()}
    return {name: dataclasses.replace(task, **unset[name]) for name, task in tasks.items()}


def _objective(direction: str | list[str]) -> Callable[[dict[str, float]], float]:
    """Return the default objective of a direction.

    Raises:
        ValueError: if there are several directions.
    """
    if direction not in ("minimize", "maximize"):
        raise ValueError(f"`compute_objective` is needed for `direction` {direction!r:.80}. Pass it.")
    key = "eval_loss" if direction == "minimize" else "eval_mtl_score"

    def objective(metrics: dict[str, float]) -> float:
        if key not in metrics:
            raise CommandError(f"`compute_objective` is needed, since the evaluation has no {key!r}. Pass it.")
        return metrics[key]

    return objective
