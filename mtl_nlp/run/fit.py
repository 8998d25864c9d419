"""The largest batch whose training steps fit into the memory of a device, found by trying steps on the longest rows."""

from __future__ import annotations

import copy
import dataclasses
import tempfile
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from transformers import PrinterCallback
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from mtl_nlp.data.cutting import flattened
from mtl_nlp.data.encoding import EncodedDataset
from mtl_nlp.errors import CommandError
from mtl_nlp.messages import table
from mtl_nlp.mixture.mixture import TaskMixture
from mtl_nlp.modeling.modeling_multitask import MultitaskModel
from mtl_nlp.run.build import build_model, build_trainer, plan_batches
from mtl_nlp.run.prepare import Run
from mtl_nlp.training.arguments import MultitaskTrainingArguments
from mtl_nlp.training.trainer import MultitaskTrainer

MOST_SUB_WORDS = 2**18
"""The largest budget that is tried. A device that holds more is busy with this one, and larger batches learn less."""

_STEPS = 2
"""The number of steps of an attempt. The optimizer has its state only from the end of the first step."""

_PRECISION = 0.05
_ROUND = 256
_SUGGESTED = 0.9
"""The share of the found budget that is suggested: the free memory of a long run is in more pieces."""


class Fit(NamedTuple):
    """The largest batch that fits.

    Attributes:
        checkpointing: whether activations were recomputed in the backward pass.
        rows: the number of the longest rows that fit in one batch.
        longest: the number of sub-words of the longest row, to which the rows are padded.
        most: the largest number of rows that would have been tried.
    """

    checkpointing: bool
    rows: int
    longest: int
    most: int

    @property
    def sub_words(self) -> int:
        """The sub-words of the batch, padding included."""
        return self.rows * self.longest

    @property
    def suggested(self) -> int:
        """A value of `max_tokens_per_batch` with a reserve, which is not below the longest row."""
        if self.rows == self.most:
            return self.sub_words
        return max(self.longest, int(_SUGGESTED * self.sub_words) // _ROUND * _ROUND)


class _Attempt(MultitaskTrainer):
    """A trainer that chooses no thresholds at the end of its training."""

    def _tune(self) -> None:
        pass


def check_fit(arguments: MultitaskTrainingArguments) -> None:
    """Check that there is one device with a memory of its own.

    Args:
        arguments: the training arguments of the run.

    Raises:
        CommandError: if the device is a CPU, or the model is trained by several processes or in parts.
    """
    if arguments.device.type == "cpu":
        raise CommandError(
            "--fit: there is no accelerator. On a CPU, larger batches are not faster: keep "
            "`per_device_train_batch_size`, or choose `max_tokens_per_batch` for the memory of the longest batches."
        )
    if arguments.world_size > 1 or arguments.fsdp_plugin_args is not None or arguments.deepspeed_plugin is not None:
        raise CommandError(
            "--fit: the steps are tried with the complete model in one process. Run it without `accelerate launch`, "
            "and without `fsdp` and `deepspeed`; the result is that of each device."
        )


def fit_batches(run: Run, arguments: MultitaskTrainingArguments) -> list[Fit]:
    """Find the largest batch of the longest rows that fits, without and with `activation_checkpointing`.

    Each attempt trains for two steps with the recipe's precision, optimizer and adapters, with one micro-batch. The
    number of rows doubles until the memory is full, and is then bisected. The model is built for the attempts only.

    Args:
        run: the run, whose data has no streams.
        arguments: the training arguments of the run, which are not changed.

    Raises:
        RecipeError: if the recipe does not support `max_tokens_per_batch`.
    """
    budget = copy.copy(arguments)
    budget.max_tokens_per_batch = max(MOST_SUB_WORDS, np.iinfo(np.int32).max)
    lengths = plan_batches(run, budget).mixture.lengths
    order, longest = np.argsort(-lengths, kind="stable"), int(lengths.max())
    most = min(len(lengths), max(1, MOST_SUB_WORDS // longest))
    model = build_model(run)
    fits = []
    for checkpointing in (False, True):

        def does_fit(rows: int, checkpointing: bool = checkpointing) -> bool:
            return _fits(run, model, arguments, order[:rows], checkpointing)

        first = min(most, arguments.per_device_train_batch_size)
        fits.append(Fit(checkpointing, largest(does_fit, first, most), longest, most))
    return fits


def largest(does_fit: Callable[[int], bool], first: int, most: int) -> int:
    """Return the largest number that fits, to a twentieth; 0 if 1 does not fit.

    Args:
        does_fit: whether a number fits. If a number does not fit, no larger number does.
        first: the first number to try.
        most: the largest number to try.
    """
    good, bad, tried = 0, most + 1, first
    while True:
        if does_fit(tried):
            good = tried
        else:
            bad = tried
        if good == most or bad - good <= max(1, _PRECISION * good):
            return good
        tried = min(2 * good, most) if bad > most else (good + bad) // 2


def _fits(
    run: Run, model: MultitaskModel, arguments: MultitaskTrainingArguments, rows: np.ndarray, checkpointing: bool
) -> bool:
    """Return whether training steps on some rows of the mixture fit into memory, and free what the attempt has used."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            _train(run, model, _attempted(arguments, folder, len(rows), checkpointing), rows)
        return True
    except RuntimeError as error:
        # Devices raise different errors, and accelerate knows their messages.
        if not (isinstance(error, torch.OutOfMemoryError) or should_reduce_batch_size(error)):
            raise
        return False
    finally:
        model.zero_grad(set_to_none=True)
        clear_device_cache(garbage_collection=True)


def _train(run: Run, model: MultitaskModel, arguments: MultitaskTrainingArguments, rows: np.ndarray) -> None:
    if not arguments.activation_checkpointing:
        model.activation_checkpointing_disable()
    trainer = build_trainer(
        run, model, arguments, trainer_class=_Attempt, train_dataset=TaskMixture(_parts(run.mixture, rows))
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()


def _parts(mixture: TaskMixture, rows: np.ndarray) -> dict[str, EncodedDataset]:
    """Return the datasets of a mixture with some of its rows only."""
    parts = {}
    for number, (name, encoded) in enumerate(mixture.datasets.items()):
        start, end = mixture.offsets[number : number + 2]
        own = np.sort(rows[(start <= rows) & (rows < end)]) - start
        if len(own) and isinstance(encoded, EncodedDataset):
            parts[name] = dataclasses.replace(encoded, windows=flattened(encoded.windows.select(own)))
    return parts


def _attempted(
    arguments: MultitaskTrainingArguments, folder: str, rows: int, checkpointing: bool
) -> MultitaskTrainingArguments:
    """Return a copy of training arguments that trains for two steps, and neither writes nor evaluates nor logs."""
    attempted = copy.copy(arguments)
    attempted.output_dir, attempted.max_steps, attempted.per_device_train_batch_size = folder, _STEPS, rows
    attempted.max_tokens_per_batch, attempted.gradient_accumulation_steps = None, 1
    attempted.activation_checkpointing = checkpointing
    attempted.eval_strategy = attempted.logging_strategy = IntervalStrategy.NO
    attempted.save_strategy, attempted.report_to, attempted.disable_tqdm = SaveStrategy.NO, [], True
    attempted.eval_on_start = attempted.load_best_model_at_end = attempted.push_to_hub = False
    attempted.early_stopping_patience = attempted.freeze_patience = attempted.loss_weights = None
    attempted.dataloader_num_workers, attempted.dataloader_prefetch_factor = 0, None
    attempted.dataloader_persistent_workers = False
    return attempted


def describe_fit(fits: list[Fit], device: torch.device) -> str:
    """Return the found batches as a table, with the lines for the recipe.

    Args:
        fits: the batches without and with `activation_checkpointing`.
        device: the device.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    rows = [
        (
            str(fit.checkpointing).lower(),
            f"{fit.sub_words:,}" if fit.rows else "not one row",
            f"{fit.rows} of {fit.longest} sub-words",
            "no more was tried" if fit.rows == fit.most else "memory",
        )
        for fit in fits
    ]
    return "\n".join(
        [
            f"The largest batches whose training steps fit on {name}, of the longest rows:\n",
            table(("activation_checkpointing", "sub-words", "rows", "limit"), rows),
            *_lines(fits),
        ]
    )


def _lines(fits: list[Fit]) -> list[str]:
    plain, checkpointed = fits
    lines = []
    if plain.rows:
        lines.append(f"training: {{max_tokens_per_batch: {plain.suggested}}}")
    if checkpointed.rows > plain.rows:
        lines.append(
            f"training: {{max_tokens_per_batch: {checkpointed.suggested}, activation_checkpointing: true}}"
            f"     # larger batches, and about a third more time for each sub-word"
        )
    if not lines:
        return ["\nLower `max_length`, choose a smaller encoder, or train adapters only."]
    return ["\nfor the recipe:", *lines]
