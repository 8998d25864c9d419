"""Checks of the files of a checkpoint before a run resumes from it, since the files may be damaged."""

from __future__ import annotations

import json
import random
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from accelerate.optimizer import AcceleratedOptimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers.trainer import OPTIMIZER_NAME, SCALER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME
from transformers.trainer_callback import ExportableState, TrainerControl, TrainerState
from transformers.trainer_pt_utils import safe_globals
from transformers.utils import CONFIG_NAME

from mtl_nlp.errors import CheckpointError
from mtl_nlp.hub.outside import Loading, read_object
from mtl_nlp.modeling.configuration_multitask import MultitaskConfig
from mtl_nlp.modeling.options_multitask import is_finite_number
from mtl_nlp.recipe.file import parse_yaml
from mtl_nlp.run_folder import CHECKPOINT_PREFIX, RECIPE_NAME
from mtl_nlp.training.predicting import PredictingTrainer

_MAX_STEPS = 2**53
_NUMBERS = ("epoch", "global_step", "max_steps", "num_train_epochs", "num_input_tokens_seen", "total_flos")
_OF_UNPICKLING = (
    UnpicklingError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)
"""Errors that torch raises on damaged files, apart from OSError."""
_ADAM_STATES = {"exp_avg", "exp_avg_sq"}
_LONGEST_POSITION = 624
"""The length of the table of numpy's generator, which numpy does not compare with the position in the table."""


def read_config(checkpoint: Path) -> MultitaskConfig:
    """Return the configuration of a checkpoint's model.

    Raises:
        CheckpointError: if the file is damaged, or does not belong to a multitask model.
    """
    with Loading(CheckpointError, f"{checkpoint / CONFIG_NAME}"):
        return MultitaskConfig.from_dict(read_object(str(checkpoint), CONFIG_NAME))


def read_settings(checkpoint: Path) -> dict[str, Any]:
    """Return the recipe of a checkpoint as plain data; an empty dict if the run had no recipe.

    Raises:
        CheckpointError: if the file is damaged.
    """
    file = checkpoint / RECIPE_NAME
    with Loading(CheckpointError, str(file)):
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        try:
            return parse_yaml(text) if text else {}
        except ValueError as error:
            raise ValueError(f"the file {error}") from error


def read_trainer_state(checkpoint: Path) -> TrainerState:
    """Return the state of a checkpoint's trainer.

    Raises:
        CheckpointError: if the file is damaged, or belongs to a different step.
    """
    file = checkpoint / TRAINER_STATE_NAME
    with Loading(CheckpointError, str(file)):
        state = TrainerState.load_from_json(str(file))
        for name in _NUMBERS:
            value = vars(state)[name]
            if not is_finite_number(value) or (not 0 <= value <= _MAX_STEPS and name != "total_flos"):
                raise ValueError(f"`{name}` should be a number of at least 0. Found {value!r:.80}.")
        if not isinstance(state.global_step, int):
            raise ValueError(f"`global_step` should be an integer. Found {state.global_step!r}.")
        named = re.fullmatch(rf"{CHECKPOINT_PREFIX}-(\d+)", checkpoint.name)
        if named is not None and int(named[1]) != state.global_step:
            raise ValueError(f"`global_step` should be the step in the name of the folder. Found {state.global_step}.")
        history, best, callbacks = state.log_history, state.best_model_checkpoint, state.stateful_callbacks
        if not isinstance(history, list) or not all(isinstance(entry, dict) for entry in history):
            raise ValueError(f"`log_history` should be a list of objects. Found {history!r:.80}.")
        if not isinstance(best, str | None):
            raise ValueError(f"`best_model_checkpoint` should be a string or null. Found {best!r:.80}.")
        for name in ("best_metric", "best_global_step", "train_batch_size"):
            if vars(state)[name] is not None and not is_finite_number(vars(state)[name]):
                raise ValueError(f"`{name}` should be a number or null. Found {vars(state)[name]!r:.80}.")
        if not isinstance(callbacks, dict) or TrainerControl.__name__ not in callbacks:
            raise ValueError(f"`stateful_callbacks` should have a TrainerControl. Found {callbacks!r:.80}.")
        for saved in callbacks.values():
            for one in saved if isinstance(saved, list) else [saved]:
                if not all(isinstance(one[part], dict) for part in ("args", "attributes")):
                    raise ValueError(f"`stateful_callbacks` should hold objects. Found {one!r:.80}.")
    return state


class RestoringTrainer(PredictingTrainer):
    """A trainer that refuses damaged states of a checkpoint in one line, before the training starts.

    torch and Trainer read these files without running code from them, but check few of their values.
    """

    lr_scheduler: LRScheduler | None

    def read_state(self, checkpoint: Path) -> TrainerState:
        """Return the state of a checkpoint's trainer, after a comparison with the callbacks of this trainer.

        Raises:
            CheckpointError: if the file is damaged, or belongs to a different step.
        """
        state = read_trainer_state(checkpoint)
        with Loading(CheckpointError, str(checkpoint / TRAINER_STATE_NAME)):
            for callback in [*self.callback_handler.callbacks, self.control]:
                if isinstance(callback, ExportableState):
                    saved = state.stateful_callbacks.get(type(callback).__name__, [])
                    for one in saved if isinstance(saved, list) else [saved]:
                        _check_callback(callback, one, is_restored=self.args.restore_callback_states_from_checkpoint)
        return state

    def check_states(self, checkpoint: Path, random_state: Path) -> None:
        """Check the states of optimizer, schedule, random numbers and gradient scaler, which Trainer loads later.

        The states of optimizer and schedule are not checked under FSDP and DeepSpeed, which create the optimizer
        later.

        Args:
            checkpoint: the checkpoint's folder.
            random_state: the file with the random state of this process. The file may be missing.

        Raises:
            CheckpointError: if a file is damaged, or belongs to a different optimizer.
        """
        is_sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
        # Trainer loads both states or none.
        if not is_sharded and (checkpoint / SCHEDULER_NAME).is_file() and any(checkpoint.glob("optimizer*")):
            optimizer = self.create_optimizer()
            with Loading(CheckpointError, str(checkpoint / OPTIMIZER_NAME)):
                check_optimizer(
                    optimizer.optimizer if isinstance(optimizer, AcceleratedOptimizer) else optimizer,
                    read_saved(checkpoint / OPTIMIZER_NAME),
                )
            schedule = self._similar_schedule(len(optimizer.param_groups))
            with Loading(CheckpointError, str(checkpoint / SCHEDULER_NAME)):
                check_schedule(schedule, read_saved(checkpoint / SCHEDULER_NAME))
        if random_state.is_file():
            with Loading(CheckpointError, str(random_state)):
                check_random_state(read_saved(random_state))
        if (checkpoint / SCALER_NAME).is_file():
            with Loading(CheckpointError, str(checkpoint / SCALER_NAME)):
                check_scaler(self.accelerator.scaler, read_saved(checkpoint / SCALER_NAME))

    def _similar_schedule(self, groups: int) -> LRScheduler:
        """Return the schedule of this trainer; if Trainer creates it later, a schedule of the same kind."""
        given = self.lr_scheduler
        try:
            parameters = [{"params": [torch.nn.Parameter(torch.zeros(1))]} for _ in range(groups)]
            return self.create_scheduler(1, torch.optim.SGD(parameters, lr=1.0))
        finally:
            self.lr_scheduler = given


def _check_callback(callback: ExportableState, saved: Any, *, is_restored: bool) -> None:
    """Check the saved state of a callback.

    Args:
        callback: the callback of the run.
        saved: the state from the checkpoint.
        is_restored: whether Trainer creates a new callback from the state.
    """
    name, form = type(callback).__name__, callback.state()
    _check_form(f"stateful_callbacks: {name}", form, saved)
    if is_restored:
        type(callback)(**saved["args"])
        if unknown := saved["attributes"].keys() - form["attributes"].keys():
            raise ValueError(f"`stateful_callbacks`: {name} has no {', '.join(map(repr, unknown)):.80}.")


def check_optimizer(optimizer: torch.optim.Optimizer, state: Any) -> None:
    """Check that an optimizer can load a state. The optimizer stays as it is.

    Args:
        optimizer: the optimizer.
        state: the state, see `torch.optim.Optimizer.state_dict`.

    Raises:
        CheckpointError: if the state belongs to more weights than the optimizer has.
        Exception: if the state is damaged, or belongs to a different optimizer. torch raises errors of many classes.
    """
    before, groups = optimizer.state, optimizer.param_groups
    was, now = (sum(len(group["params"]) for group in each) for each in (state["param_groups"], groups))
    if was > now:
        raise CheckpointError(
            f"The checkpoint trained {was} weights, and this run trains {now}: an earlier version of mtl_nlp also "
            f"trained weights that no task reads. Resume with that version, or train again with --overwrite."
        )
    try:
        optimizer.load_state_dict(state)
        for number, (group, loaded) in enumerate(zip(groups, optimizer.param_groups, strict=True)):
            form = {key: value for key, value in group.items() if key != "params"}
            # A schedule adds the key when it is created.
            form |= {"initial_lr": group["lr"]} if "initial_lr" in loaded else {}
            _check_form(f"param_groups: {number}", form, loaded)
        _check_optimizer_state(optimizer)
    finally:
        # `load_state_dict` replaces both and changes neither.
        optimizer.state, optimizer.param_groups = before, groups


def _check_optimizer_state(optimizer: torch.optim.Optimizer) -> None:
    for parameter, state in optimizer.state.items():
        if not isinstance(parameter, torch.Tensor) or not isinstance(state, dict):
            raise ValueError(f"the state of a weight should be a dict. Found {state!r:.80}.")
        for name in _ADAM_STATES if isinstance(optimizer, torch.optim.Adam) and state else ():
            if not isinstance(state[name], torch.Tensor) or state[name].shape != parameter.shape:
                raise ValueError(f"`{name}` should have the shape {list(parameter.shape)} of its weight.")
            if not state[name].isfinite().all():
                raise ValueError(f"`{name}` should have finite numbers.")
        step = state.get("step", 0)
        if not (is_finite_number(step) or (isinstance(step, torch.Tensor) and step.numel() == 1)):
            raise ValueError(f"`step` should be a number. Found {step!r:.80}.")


def check_schedule(schedule: LRScheduler, state: Any) -> None:
    """Check that a schedule of the learning rate can load a state.

    Args:
        schedule: the schedule, or one of the same kind with the same number of groups.
        state: the state, see `torch.optim.lr_scheduler.LRScheduler.state_dict`. torch keeps the values of the schedule
            for keys that the state does not have.

    Raises:
        ValueError: if the state is damaged.
    """
    if not isinstance(state, dict) or "last_epoch" not in state:
        raise ValueError(f"the state should be a dict with `last_epoch`. Found {state!r:.80}.")
    form = dict(schedule.state_dict())
    # torch sets every key as an attribute.
    if hidden := [key for key in state.keys() - form.keys() if not isinstance(key, str) or key in dir(schedule)]:
        raise ValueError(f"the state should not have the key {hidden[0]!r:.80}.")
    lambdas = form.pop("lr_lambdas", None)
    _check_form("schedule", form, {**form, **state})
    for name in ("last_epoch", "_step_count"):
        value = state.get(name, 0)
        if not isinstance(value, int) or not 0 <= value <= _MAX_STEPS:
            raise ValueError(f"`{name}` should be an integer of at least 0. Found {value!r:.80}.")
    saved = state.get("lr_lambdas")
    if lambdas is not None and not (
        isinstance(saved, list) and len(saved) == len(lambdas) and all(isinstance(one, dict | None) for one in saved)
    ):
        raise ValueError(f"`lr_lambdas` should be {len(lambdas)} dicts or null. Found {saved!r:.80}.")


def check_random_state(state: Any) -> None:
    """Check the random state of a process with generators that are not used otherwise.

    Args:
        state: the states of Python, numpy and torch, as Trainer saves them.

    Raises:
        Exception: if a state is damaged. The libraries raise errors of many classes.
    """
    random.Random().setstate(state["python"])
    np.random.RandomState().set_state(state["numpy"])
    torch.Generator().set_state(state["cpu"])
    position, *_, cached = state["numpy"][2:]
    if not is_finite_number(position) or not 0 <= position <= _LONGEST_POSITION:
        raise ValueError(f"the position of numpy should be from 0 to {_LONGEST_POSITION}. Found {position!r:.80}.")
    for number in (cached, state["python"][2] or 0.0):
        if not is_finite_number(number):
            raise ValueError(f"a random number should be finite. Found {number!r:.80}.")


def check_scaler(scaler: torch.amp.GradScaler | None, state: Any) -> None:
    """Check that a gradient scaler can load a state.

    Args:
        scaler: the scaler; None for a run without a scaler.
        state: the state, see `torch.amp.GradScaler.state_dict`.

    Raises:
        ValueError: if the state is damaged, or the run has no scaler.
    """
    if scaler is None:
        raise ValueError("the run has no gradient scaler. Resume with the precision of the checkpoint.")
    form: Mapping[str, Any] = scaler.state_dict()
    _check_form("scaler", form, state)
    for name in form:
        if state[name] < 0 or (state[name] == 0 and name != "_growth_tracker"):
            raise ValueError(f"`{name}` should be positive. Found {state[name]!r}.")


def _check_form(path: str, form: Any, found: Any) -> None:
    """Check that a value has the same form as a value of the run: its type, its keys, and its length.

    Raises:
        ValueError: if the form is different.
    """
    if isinstance(form, dict):
        if not isinstance(found, dict) or not form.keys() <= found.keys():
            raise ValueError(f"`{path}` should be an object with {', '.join(map(str, form))}. Found {found!r:.80}.")
        for key, value in form.items():
            _check_form(f"{path}: {key}", value, found[key])
    elif isinstance(form, list | tuple):
        if not isinstance(found, list | tuple) or len(found) != len(form):
            raise ValueError(f"`{path}` should have {len(form)} entries. Found {found!r:.80}.")
        for value, other in zip(form, found, strict=True):
            _check_form(path, value, other)
    elif is_finite_number(form) or isinstance(form, torch.Tensor):
        if not is_finite_number(found) and not (isinstance(found, torch.Tensor) and found.numel() == 1):
            raise ValueError(f"`{path}` should be a finite number. Found {found!r:.80}.")
    elif form is None or isinstance(form, bool):
        if found is not None and not isinstance(found, bool | int | float | str):
            raise ValueError(f"`{path}` should be a single value. Found {found!r:.80}.")
    elif type(found) is not type(form):
        raise ValueError(f"`{path}` should be of the type {type(form).__name__}. Found {found!r:.80}.")


def read_saved(file: Path) -> Any:
    """Return the content of a file of `torch.save`, without running code from the file.

    Raises:
        OSError: if the file cannot be opened.
        ValueError: if the file is damaged, or holds objects that could run code.
    """
    try:
        with safe_globals():  # random states hold arrays of numpy
            return torch.load(file, map_location="cpu", weights_only=True)
    except _OF_UNPICKLING as error:
        raise ValueError("the file is damaged, or holds objects that could run code.") from error


def read_stream_position(file: Path) -> dict[str, Any]:
    """Return the position of a process in the streams of a mixture.

    Raises:
        CheckpointError: if the file is damaged.
    """
    with Loading(CheckpointError, str(file)):
        state = json.loads(file.read_text(encoding="utf-8"))
        readers = state["readers"]
        numbers = [state["window"], *(reader[key] for reader in readers.values() for key in ("pass", "block", "used"))]
        for number in numbers:
            if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= _MAX_STEPS:
                raise ValueError(f"a position should be an integer of at least 0. Found {number!r:.80}.")
        if not all(isinstance(reader["source"], dict | None) for reader in readers.values()):
            raise ValueError("`source` should be an object or null.")
    return state
