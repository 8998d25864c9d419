"""Restoring of the states in a checkpoint, with checks of their types and shapes, since the files may be damaged."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate.optimizer import AcceleratedOptimizer
from transformers.trainer import OPTIMIZER_NAME, SCALER_NAME, TRAINER_STATE_NAME
from transformers.trainer_callback import ExportableState, TrainerControl, TrainerState
from transformers.utils import CONFIG_NAME

from mtl_nlp.errors import CheckpointError
from mtl_nlp.hub.outside import Loading, read_object
from mtl_nlp.modeling.configuration_multitask import MultitaskConfig
from mtl_nlp.run_folder import CHECKPOINT_PREFIX, RECIPE_NAME
from mtl_nlp.training.evaluation import EvaluatingTrainer

_MAX_STEPS = 2**53
_NUMBERS = ("epoch", "global_step", "max_steps", "num_train_epochs", "num_input_tokens_seen", "total_flos")
_ADAM_STATES = {"exp_avg", "exp_avg_sq"}


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
            settings = yaml.safe_load(text) if text else {}
        except yaml.YAMLError as error:
            raise ValueError(f"not valid YAML: {error}") from error
        if not isinstance(settings, dict):
            raise ValueError(f"expected keys and values. Found {settings!r:.80}.")
    return settings


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
            if not _is_number(value) or (not 0 <= value <= _MAX_STEPS and name != "total_flos"):
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
            if vars(state)[name] is not None and not _is_number(vars(state)[name]):
                raise ValueError(f"`{name}` should be a number or null. Found {vars(state)[name]!r:.80}.")
        if not isinstance(callbacks, dict) or TrainerControl.__name__ not in callbacks:
            raise ValueError(f"`stateful_callbacks` should have a TrainerControl. Found {callbacks!r:.80}.")
        for saved in callbacks.values():
            for one in saved if isinstance(saved, list) else [saved]:
                if not all(isinstance(one[part], dict) for part in ("args", "attributes")):
                    raise ValueError(f"`stateful_callbacks` should hold objects. Found {one!r:.80}.")
    return state


class RestoringTrainer(EvaluatingTrainer):
    """A trainer that refuses damaged states of a checkpoint in one line.

    torch and Trainer read these files without running code from them, but check few of their values.
    """

    def read_state(self, checkpoint: Path) -> TrainerState:
        """Return the state of a checkpoint's trainer, after a comparison with the callbacks of this trainer.

        Raises:
            CheckpointError: if the file is damaged, or belongs to a different step.
        """
        state = read_trainer_state(checkpoint)
        with Loading(CheckpointError, str(checkpoint / TRAINER_STATE_NAME)):
            for callback in [*self.callback_handler.callbacks, self.control]:
                if isinstance(callback, ExportableState):
                    name = type(callback).__name__
                    saved = state.stateful_callbacks.get(name, [])
                    for one in saved if isinstance(saved, list) else [saved]:
                        _check_form(f"stateful_callbacks: {name}", callback.state(), one)
        return state

    def _load_callback_state(self) -> None:
        with Loading(CheckpointError, f"{TRAINER_STATE_NAME} of the checkpoint"):
            super()._load_callback_state()

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        with Loading(CheckpointError, f"{Path(checkpoint) / OPTIMIZER_NAME} or the state of the schedule"):
            groups = [
                {key: value for key, value in group.items() if key != "params"} for group in self.optimizer.param_groups
            ]
            schedule = dict(self.lr_scheduler.state_dict())
            super()._load_optimizer_and_scheduler(checkpoint)
            for number, (new, group) in enumerate(zip(groups, self.optimizer.param_groups, strict=True)):
                _check_form(f"param_groups: {number}", new, group)
            _check_form("schedule", schedule, self.lr_scheduler.state_dict())
            is_wrapped = isinstance(self.optimizer, AcceleratedOptimizer)
            _check_optimizer_state(self.optimizer.optimizer if is_wrapped else self.optimizer)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with Loading(CheckpointError, f"the random state in {checkpoint}"):
            super()._load_rng_state(checkpoint)

    def _load_scaler(self, checkpoint: str | None) -> None:
        with Loading(CheckpointError, f"{SCALER_NAME} in {checkpoint}"):
            super()._load_scaler(checkpoint)


def _check_optimizer_state(optimizer: torch.optim.Optimizer) -> None:
    for parameter, state in optimizer.state.items():
        if not isinstance(parameter, torch.Tensor) or not isinstance(state, dict):
            raise ValueError(f"the state of a weight should be a dict. Found {state!r:.80}.")
        for name in _ADAM_STATES if isinstance(optimizer, torch.optim.Adam) and state else ():
            if not isinstance(state[name], torch.Tensor) or state[name].shape != parameter.shape:
                raise ValueError(f"`{name}` should have the shape {list(parameter.shape)} of its weight.")
        step = state.get("step", 0)
        if not (_is_number(step) or (isinstance(step, torch.Tensor) and step.numel() == 1)):
            raise ValueError(f"`step` should be a number. Found {step!r:.80}.")


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
    elif _is_number(form) or isinstance(form, torch.Tensor):
        if not _is_number(found) and not (isinstance(found, torch.Tensor) and found.numel() == 1):
            raise ValueError(f"`{path}` should be a finite number. Found {found!r:.80}.")
    elif form is None or isinstance(form, bool):
        if found is not None and not isinstance(found, bool | int | float | str):
            raise ValueError(f"`{path}` should be a single value. Found {found!r:.80}.")
    elif type(found) is not type(form):
        raise ValueError(f"`{path}` should be of the type {type(form).__name__}. Found {found!r:.80}.")


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


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
