"""Checks of a checkpoint to resume from: its model, its optimizer, and changes to the recipe since."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open

from mtl_nlp.errors import CheckpointError
from mtl_nlp.messages import conceal, shortened
from mtl_nlp.modeling.modeling_multitask import MultitaskModel
from mtl_nlp.modeling.weights_multitask import NotFiniteError, check_finite
from mtl_nlp.recipe.plain_yaml import as_yaml, is_same
from mtl_nlp.recipe.resume import OnResume
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.recipe.secret_keys import is_secret_key
from mtl_nlp.training.arguments import MultitaskTrainingArguments
from mtl_nlp.training.progress import number_format_of
from mtl_nlp.training.restoring import read_config, read_settings
from mtl_nlp.training.resume import meaning_of

_SHAPES_OF_ADAPTERS = ("r", "target_modules", "use_dora")


def check_same_format(checkpoint: Path, args: MultitaskTrainingArguments) -> None:
    """Check that `precision: auto` has not chosen a different number format from that of a checkpoint.

    Raises:
        CheckpointError: if the format of the checkpoint is known and different.
    """
    saved = number_format_of(checkpoint)
    if args.precision == "auto" and saved not in {None, args.number_format}:
        raise CheckpointError(
            f"{checkpoint} was trained in {saved}, and `precision: auto` is {args.number_format} on this machine. "
            f"Resume with `precision` {saved}."
        )


def check_same_model(checkpoint: Path, model: MultitaskModel) -> None:
    """Check that a checkpoint belongs to a model.

    Args:
        checkpoint: the checkpoint's folder.
        model: the model.

    Raises:
        CheckpointError: if the tasks, the adapters, or the names, shapes or types of the weights differ, if the
            checkpoint's configuration is damaged, or if a weight is not finite.
    """
    config = read_config(checkpoint)
    theirs = {task["name"]: task for task in config.tasks or []}
    ours = {task.name: json.loads(json.dumps(task.to_dict())) for task in model.tasks.values()}
    other = f"{checkpoint} belongs to a different model: "
    remedy = " Resume with the model of the checkpoint, or start a new run."
    if list(theirs) != list(ours):
        raise CheckpointError(
            f"{other}its tasks were {', '.join(theirs) or 'none'} and are now {', '.join(ours)}.{remedy}"
        )
    for name, task in ours.items():
        # `labels` comes late, since a difference in an option can change the labels too, which change what is learned.
        compared = {**task, **theirs[name]}.keys() - set(model.tasks[name].tuned)  # set after training
        late = ("labels", *model.tasks[name].learned)
        for key in [*sorted(compared - set(late)), *(key for key in late if key in compared)]:
            was, now = theirs[name].get(key), task.get(key)
            if was != now:
                raise CheckpointError(
                    f"{other}`{key}` of task {name!r} was {shortened(was)} and is now {shortened(now)}.{remedy}"
                )
    if flaw := _other_adapters(config.adapters or [], model.config.adapters or []):
        raise CheckpointError(f"{other}{flaw}.{remedy}")
    state = model.state_dict()
    saved: set[str] = set()
    for file in checkpoint.glob("*.safetensors"):
        with safe_open(file, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118  (safe_open is not a mapping)
                was, now = weights.get_slice(name).get_shape(), list(state[name].shape) if name in state else None
                if was != now:
                    raise CheckpointError(f"{other}the shape of {name} was {was} and is now {now}.{remedy}")
                kind = weights.get_slice(name).get_dtype()
                if state[name].is_floating_point() != kind.startswith(("F", "BF")):
                    raise CheckpointError(f"{other}the type of {name} was {kind}.{remedy}")
                saved.add(name)
                try:
                    check_finite([(name, weights.get_tensor(name))])
                except NotFiniteError as error:
                    raise CheckpointError(f"{checkpoint}: {error}") from error
    memory = {state[name].data_ptr() for name in saved}  # tied weights are saved once
    for name, tensor in state.items():
        if saved and name not in saved and tensor.data_ptr() not in memory:
            raise CheckpointError(f"{other}it has no {name}.{remedy}")


def _other_adapters(theirs: Sequence[Mapping[str, Any]], ours: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the first difference that changes the weights of two lists of adapters, or None without a difference."""
    names, other_names = ([options["name"] for options in adapters] for adapters in (theirs, ours))
    if names != other_names:  # the order counts too, since the optimizer's state has the same order
        return f"its adapters were {', '.join(names) or 'none'} and are now {', '.join(other_names) or 'none'}"
    for old, new in zip(theirs, ours, strict=True):
        for key in _SHAPES_OF_ADAPTERS:
            if old[key] != new[key]:
                was, now = shortened(old[key]), shortened(new[key])
                return f"`{key}` of the adapter of {old['name']} was {was} and is now {now}"
    return None


def check_same_optimizer(checkpoint: Path, recipe: Recipe) -> None:
    """Check that a checkpoint's states of the optimizer and the loss weighting fit a recipe.

    Args:
        checkpoint: the checkpoint's folder.
        recipe: the recipe of the run that should resume.

    Raises:
        CheckpointError: if the recipe has a different optimizer or loss weighting, or different parameters in the
            optimizer's groups.
    """
    for key, (old, new) in _changed(checkpoint, recipe).items():
        meaning = meaning_of(key)
        if meaning is OnResume.REFUSED or (meaning is OnResume.KEPT_IF_PRESENT and None in (old, new)):
            part = "loss weighting" if key.startswith("loss.") else "optimizer"
            raise CheckpointError(
                f"{checkpoint} belongs to a different {part}: {_was_and_is(key, old, new)}. Set it back, or leave "
                f"out --resume to start a new run."
            )


def describe_changes(checkpoint: Path, recipe: Recipe, num_processes: int) -> list[str]:
    """Return sentences about the recipe's changes since a checkpoint, and the effects of the changes on a resumed run.

    Args:
        checkpoint: the checkpoint's folder.
        recipe: the recipe of the run that resumes.
        num_processes: the number of processes of the run that resumes.
    """
    groups: dict[OnResume, list[str]] = {OnResume.KEPT: [], OnResume.REORDERS: [], OnResume.TAKES_EFFECT: []}
    for key, (old, new) in _changed(checkpoint, recipe).items():
        meaning = meaning_of(key)
        # Other changes are refused, or do not affect the run.
        group = groups.get(OnResume.KEPT if meaning is OnResume.KEPT_IF_PRESENT else meaning, [])
        group.append(_was_and_is(key, old, new))
    processes = max(1, len(list(checkpoint.glob("rng_state_*.pth"))))
    if processes != num_processes:
        groups[OnResume.REORDERS].append(f"the number of processes (was {processes}, is {num_processes})")
    return [
        f"changed since {checkpoint.name}: {', '.join(members)}: {meaning.value}"
        for meaning, members in groups.items()
        if members
    ]


def _changed(checkpoint: Path, recipe: Recipe) -> dict[str, tuple[Any, Any]]:
    """Return `{"a.b": (was, is)}` for the keys of the recipe that differ, with None for a value that is not given."""
    settings = read_settings(checkpoint)
    if not settings:  # the checkpoint's run had no recipe
        return {}
    old, new = _flat(settings), _flat(recipe.as_written())
    # Earlier releases wrote the values of variables.
    values = _flat(recipe.model_dump(exclude_defaults=True))
    return {
        key: (old.get(key), new.get(key))
        for key in sorted(old.keys() | new.keys())
        if not any(is_same(old.get(key), now.get(key), key) for now in (new, values))
    }


def _was_and_is(key: str, old: Any, new: Any) -> str:
    if any(map(is_secret_key, key.split("."))) or "storage_options" in key.split("."):
        return f"{key} (changed)"
    was, now = ("not given" if value is None else f"{conceal(as_yaml(value, key)):.300}" for value in (old, new))
    return f"{key} (was {was}, is {now})"


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as a flat mapping: `{"a.b": value}`."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
