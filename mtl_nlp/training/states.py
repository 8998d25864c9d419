"""Additional files of a checkpoint: the positions in streams, and the state of the loss weighting."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from mtl_nlp.balancing.weighting import LossWeighting
from mtl_nlp.errors import CheckpointError
from mtl_nlp.messages import one_line
from mtl_nlp.modeling.weights_multitask import NotFiniteError, check_finite
from mtl_nlp.run_folder import WEIGHTING_NAME
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
    if state := weighting.state_dict():
        torch.save(state, checkpoint / WEIGHTING_NAME)


def load_weighting(checkpoint: Path, weighting: LossWeighting) -> None:
    """Read the state of a loss weighting from a checkpoint.

    Raises:
        CheckpointError: if the checkpoint has no state for a weighting with state, or has a state that cannot be read,
            is not finite or belongs to a different weighting.
    """
    file, name = checkpoint / WEIGHTING_NAME, type(weighting).__name__
    if not weighting.state_dict():
        if file.is_file():
            raise CheckpointError(
                f"{checkpoint} belongs to a different loss weighting: it has {WEIGHTING_NAME}, and {name} has no "
                f"state. Resume with the loss weighting of the checkpoint."
            )
        return
    try:
        weighting.load_state_dict(read_saved(file))
        check_finite(itertools.chain(weighting.named_parameters(), weighting.named_buffers()))
    except NotFiniteError as error:
        raise CheckpointError(f"{file}: {error}") from error
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{checkpoint} has no {WEIGHTING_NAME}, the state of the loss weighting {name}. Resume from a checkpoint "
            f"of a run with {name}."
        ) from error
    except _UNREADABLE as error:
        raise CheckpointError(
            f"{file} cannot be read as the state of the loss weighting {name} ({one_line(error)}). Resume with the "
            f"loss weighting of the checkpoint."
        ) from error
