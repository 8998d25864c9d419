"""Checkpoints: which of them are whole, and what a run that goes on from one keeps, changes and loses."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from safetensors import SafetensorError, safe_open
from transformers.trainer import TRAINER_STATE_NAME
from transformers.utils import CONFIG_NAME

from mtl_nlp.errors import CheckpointError
from mtl_nlp.modeling.modeling_multitask import MultitaskModel
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.run_folder import RECIPE_NAME, checkpoint_folders

_IN_THE_OPTIMIZER = (
    *("training.learning_rate", "training.head_learning_rate", "training.adapter_learning_rate"),
    *("training.weight_decay", "training.adam_"),
)

_GROUPS_OF_THE_OPTIMIZER = ("training.head_learning_rate", "training.adapter_learning_rate")

_TRAINED = ("training.optim", "freeze", "adapters.train_encoder")

_IN_THE_WEIGHTS = ("encoder", "model_init_kwargs.revision")

_IN_THE_ORDER = (
    *("datasets.", "mixture.", "max_length", "stride", "training.seed", "training.data_seed"),
    *("training.per_device_train_batch_size", "training.max_tokens_per_batch", "training.gradient_accumulation_steps"),
)

_NOT_OF_THE_RUN = ("output_dir",)

_SHAPES_OF_ADAPTERS = ("r", "target_modules", "use_dora")


class LastCheckpoint(NamedTuple):
    """What a resumed run goes on from.

    Attributes:
        path: the newest whole checkpoint.
        skipped: for newer ones, what is wrong with them, a sentence each.
    """

    path: Path
    skipped: list[str]


def last_checkpoint(folder: Path) -> LastCheckpoint:
    """Find the newest whole checkpoint of a run.

    Args:
        folder: the run's `output_dir`.

    Raises:
        CheckpointError: if there is none.
    """
    # By time, not by number: a folder may also hold those of an earlier, longer run.
    found = sorted(checkpoint_folders(folder), key=lambda path: (_written_at(path), path), reverse=True)
    skipped: list[str] = []
    for path in found:
        flaw = checkpoint_problem(path)
        if flaw is None:
            return LastCheckpoint(path, skipped)
        skipped.append(f"{path.name} is not whole ({flaw})")
    what = f": {'; '.join(skipped)}" if skipped else ""
    raise CheckpointError(f"--resume: there is no whole checkpoint in {folder}{what}. Leave out --resume to start.")


def checkpoint_problem(checkpoint: Path) -> str | None:
    """What makes a checkpoint unusable to go on from, such as that its writing was interrupted; None if it is whole."""
    # The state is written last, when the files of all processes are there.
    for name in (TRAINER_STATE_NAME, CONFIG_NAME):
        try:
            json.loads((checkpoint / name).read_text(encoding="utf-8"))
        except OSError:
            return f"{name} is missing"
        except ValueError:
            return f"{name} is cut off"
    for file in checkpoint.glob("*.safetensors"):
        try:
            with safe_open(file, framework="pt"):
                pass
        except SafetensorError:
            return f"{file.name} is cut off"
    for file in [*checkpoint.glob("*.pt"), *checkpoint.glob("*.pth")]:
        if not zipfile.is_zipfile(file):
            return f"{file.name} is cut off"
    # FSDP and DeepSpeed keep weights and optimizers in folders of their own.
    if not [file for kind in ("model*", "pytorch_model*", "global_step*") for file in checkpoint.glob(kind)]:
        return "it holds no weights"
    if not [*checkpoint.glob("optimizer*"), *checkpoint.glob("global_step*")]:
        return "it holds no optimizer state; was it saved with save_only_model?"
    return None


def check_same_model(checkpoint: Path, model: MultitaskModel) -> None:
    """See that a checkpoint is of this model.

    Raises:
        CheckpointError: if its tasks or adapters, or its weights' names or shapes, are others.
    """
    config = json.loads((checkpoint / CONFIG_NAME).read_text(encoding="utf-8"))
    theirs = {task["name"]: task for task in config.get("tasks") or []}
    ours = {task.name: json.loads(json.dumps(task.to_dict())) for task in model.tasks.values()}
    other = f"{checkpoint} is of another model: "
    if list(theirs) != list(ours):
        raise CheckpointError(f"{other}its tasks are {', '.join(theirs) or 'none'}, here {', '.join(ours)}.")
    for name, task in ours.items():
        for key in sorted({**task, **theirs[name]}, key="labels".__eq__):  # last, since they follow from the others
            was, now = theirs[name].get(key), task.get(key)
            if was != now:
                raise CheckpointError(f"{other}{key} of task {name!r} was {was!r}, here {now!r}.")
    if flaw := _other_adapters(config.get("adapters") or [], model.config.adapters or []):
        raise CheckpointError(f"{other}{flaw}.")
    state = model.state_dict()
    saved: set[str] = set()
    for file in checkpoint.glob("*.safetensors"):
        with safe_open(file, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118  (safe_open is no mapping)
                was, now = weights.get_slice(name).get_shape(), list(state[name].shape) if name in state else None
                if was != now:
                    raise CheckpointError(f"{other}{name} has shape {was}, here {now}.")
                saved.add(name)
    memory = {state[name].data_ptr() for name in saved}  # what is tied is saved once
    for name, tensor in state.items():
        if saved and name not in saved and tensor.data_ptr() not in memory:
            raise CheckpointError(f"{other}it has no {name}.")


def _other_adapters(theirs: Sequence[Mapping[str, Any]], ours: Sequence[Mapping[str, Any]]) -> str | None:
    """What differs in the adapters' weights; None if nothing does."""
    was, now = ([options["name"] for options in adapters] for adapters in (theirs, ours))
    if was != now:  # also in order, which is that of the optimizer's state
        return f"its adapters are {', '.join(was) or 'none'}, here {', '.join(now) or 'none'}"
    for old, new in zip(theirs, ours, strict=True):
        for key in _SHAPES_OF_ADAPTERS:
            if old[key] != new[key]:
                return f"{key} of the adapter of {old['name']} was {old[key]!r}, here {new[key]!r}"
    return None


def check_same_optimizer(checkpoint: Path, recipe: Recipe) -> None:
    """See that a checkpoint's optimizer state is of use for a recipe.

    Raises:
        CheckpointError: if the recipe asks for another optimizer, or for other parameters in it or in its groups.
    """
    for key, (old, new) in _changed(checkpoint, recipe).items():
        if key.startswith(_TRAINED) or (key in _GROUPS_OF_THE_OPTIMIZER and None in (old, new)):
            raise CheckpointError(
                f"{checkpoint} is of another optimizer: {_was_and_is(key, old, new)}. Set it back, or leave out "
                f"--resume to start."
            )


def describe_changes(checkpoint: Path, recipe: Recipe, num_processes: int) -> list[str]:
    """What differs from the run that wrote a checkpoint, and what it means for going on; a sentence each."""
    notes = []
    changed = {key: _was_and_is(key, *values) for key, values in _changed(checkpoint, recipe).items()}
    processes = max(1, len(list(checkpoint.glob("rng_state_*.pth"))))
    if processes != num_processes:
        changed["mixture.processes"] = f"the number of processes (was {processes}, is {num_processes})"
    groups = {
        "kept from the checkpoint, so without effect": (*_IN_THE_OPTIMIZER, *_IN_THE_WEIGHTS),
        "weights, optimizer and steps go on, but rows come in another order, so that some of the epoch may come again "
        "or not at all": _IN_THE_ORDER,
        "in effect from here on": ("",),
    }
    for meaning, keys in groups.items():
        members = [key for key in changed if key.startswith(keys)]
        if members:
            notes.append(f"changed since {checkpoint.name}: {', '.join(map(changed.pop, members))}: {meaning}")
    return notes


def _changed(checkpoint: Path, recipe: Recipe) -> dict[str, tuple[Any, Any]]:
    """`{"a.b": (was, is)}` of the recipe's keys that differ; None for those not given."""
    saved = checkpoint / RECIPE_NAME
    text = saved.read_text(encoding="utf-8") if saved.is_file() else ""
    if not text:  # the trainer was made by hand
        return {}
    old, new = _flat(yaml.safe_load(text)), _flat(yaml.safe_load(recipe.to_yaml()))
    return {
        key: (old.get(key), new.get(key))
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not key.startswith(_NOT_OF_THE_RUN)
    }


def _was_and_is(key: str, old: Any, new: Any) -> str:
    was, now = ("not given" if value is None else value for value in (old, new))
    return f"{key} (was {was}, is {now})"


def _written_at(checkpoint: Path) -> int:
    state = checkpoint / TRAINER_STATE_NAME
    return (state if state.is_file() else checkpoint).stat().st_mtime_ns


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a.b": value}` of nested mappings."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
