"""Additional files of a checkpoint: the positions in streams, and the state of the loss weighting."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from mtl_nlp.balancing.gradients import GradientMethod
from mtl_nlp.balancing.weighting import LossWeighting
from mtl_nlp.errors import CheckpointError
from mtl_nlp.messages import one_line
from mtl_nlp.modeling.weights_multitask import NotFiniteError, check_finite
from mtl_nlp.run_folder import GRADIENT_METHOD_NAME, WEIGHTING_NAME
from mtl_nlp.training.restoring import read_saved, read_stream_position

_UNREADABLE = (OSError, ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""Errors on damaged states: torch does not check most values of a state before it uses the values."""


class StreamPosition:
    """The position of this process in the streams of the mixture, after the last optimizer step.

    Args:
        process_index: the number of this process.
        num_processes: the number of processes.

    Attributes:
        state: the state that `MixtureStream` yields with each batch; `None` at the start and without streams.
    """

    def __init__(self, process_index: int, num_processes: int) -> None:
        self.name = f"streams_{process_index}_of_{num_processes}.json"
        self.state: dict[str, Any] | None = None

    def save(self, checkpoint: Path) -> None:
        """Write the position into a checkpoint; do nothing without streams."""
        if self.state is not None:
            (checkpoint / self.name).write_text(json.dumps(self.state, allow_nan=False), encoding="utf-8")

    def load(self, checkpoint: Path) -> None:
        """Read the position of this process; do nothing if it has none for the same index and number of processes.

        Raises:
            CheckpointError: if the file is damaged.
        """
        file = checkpoint / self.name
        if file.is_file():
            self.state = read_stream_position(file)


def random_state_name(args: TrainingArguments) -> str:
    """Return the name of the file in which Trainer saves the random state of this process."""
    return "rng_state.pth" if args.world_size <= 1 else f"rng_state_{args.process_index}.pth"


def save_weighting(checkpoint: Path, weighting: LossWeighting) -> None:
    """Write the state of a loss weighting into a checkpoint; do nothing for a weighting without state."""
    _save(checkpoint / WEIGHTING_NAME, weighting)


def load_weighting(checkpoint: Path, weighting: LossWeighting) -> None:
    """Read the state of a loss weighting from a checkpoint.

    Raises:
        CheckpointError: if the checkpoint has no state for a weighting with state, or has a state that cannot be read,
            is not finite or belongs to a different weighting.
    """
    _load(checkpoint / WEIGHTING_NAME, weighting, "loss weighting")


def save_gradient_method(checkpoint: Path, method: GradientMethod | None) -> None:
    """Write the state of a gradient method into a checkpoint; do nothing without a method or state."""
    _save(checkpoint / GRADIENT_METHOD_NAME, method or torch.nn.Module())


def load_gradient_method(checkpoint: Path, method: GradientMethod | None) -> None:
    """Read the state of a gradient method from a checkpoint; None is the plain sum, which has no state.

    Raises:
        CheckpointError: if the checkpoint has no state for a method with state, or has a state that cannot be read, is
            not finite or belongs to a different method.
    """
    _load(checkpoint / GRADIENT_METHOD_NAME, method or torch.nn.Module(), "gradient method")


def _save(file: Path, method: torch.nn.Module) -> None:
    if state := method.state_dict():
        torch.save(state, file)


def _load(file: Path, method: torch.nn.Module, kind: str) -> None:
    """Read the state of a method.

    Args:
        file: the file of the checkpoint.
        method: the method, whose state is overwritten.
        kind: the kind of the method in words.
    """
    checkpoint, name = file.parent, type(method).__name__
    if not method.state_dict():
        if file.is_file():
            found = "the plain sum" if type(method) is torch.nn.Module else name
            raise CheckpointError(
                f"{checkpoint} belongs to a different {kind}: it has {file.name}, and {found} has no state. Resume "
                f"with the {kind} of the checkpoint."
            )
        return
    try:
        method.load_state_dict(read_saved(file))
        check_finite(itertools.chain(method.named_parameters(), method.named_buffers()))
    except NotFiniteError as error:
        raise CheckpointError(f"{file}: {error}") from error
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{checkpoint} has no {file.name}, the state of the {kind} {name}. Resume from a checkpoint of a run with "
            f"{name}."
        ) from error
    except _UNREADABLE as error:
        raise CheckpointError(
            f"{file} cannot be read as the state of the {kind} {name} ({one_line(error)}). Resume with the {kind} of "
            f"the checkpoint."
        ) from error
