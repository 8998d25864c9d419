"""The range of each number among the training arguments, in one table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

from mtl_nlp.recipe.checks import LARGEST

MOST = 2**31 - 1
"""The largest number of steps, rows and the like."""


@dataclass(frozen=True)
class Range:
    """The numbers that an argument can have.

    Attributes:
        least: the least number.
        most: the largest number.
        without_least: whether numbers should be above `least`.
        without_most: whether numbers should be below `most`.
        counts_steps: whether numbers from 1 on should be whole: they count steps, and smaller ones are a share of all
            steps.
        also: a further number, which stands for no value.
    """

    least: float
    most: float = LARGEST
    without_least: bool = False
    without_most: bool = False
    counts_steps: bool = False
    also: float | None = None

    def problem(self, value: Any) -> str | None:
        """Return a sentence such as `should be at least 1. Found 0.`, or None for a number of the range."""
        if isinstance(value, bool) or not isinstance(value, Real):
            return f"should be a number. Found {value!r:.80}."
        is_technical = self.most in {LARGEST, MOST}
        try:
            number = float(value)
        except OverflowError:  # a very large integer
            number = math.inf
        if number == self.also:
            return None
        if not math.isfinite(number):
            return f"should be finite and {self._lower}. Found {number}."
        if number < self.least or (self.without_least and number == self.least):
            return f"should be {self._lower if is_technical else self._rule}{self._or_also}. Found {value}."
        if number > self.most or (self.without_most and number == self.most):
            rule = f"at most {LARGEST:.2g}, the limit of float32" if self.most == LARGEST else self._rule
            return f"should be {rule}. Found {value}."
        if self.counts_steps and number >= 1.0 and not number.is_integer():
            return f"should be a whole number of steps, or a share of all steps below 1. Found {value}."
        return None

    @property
    def _lower(self) -> str:
        return f"{'above' if self.without_least else 'at least'} {self.least}"

    @property
    def _rule(self) -> str:
        return f"{self._lower} and {'below' if self.without_most else 'at most'} {self.most}"

    @property
    def _or_also(self) -> str:
        return "" if self.also is None else f", or {self.also}"

    def json_schema(self) -> dict[str, float]:
        """Return the range in the words of JSON schema."""
        least = self.least if self.also is None else min(self.least, self.also)
        schema = {"exclusiveMinimum" if self.without_least else "minimum": least}
        if self.most != LARGEST:
            schema["exclusiveMaximum" if self.without_most else "maximum"] = self.most
        return schema


_COUNT = Range(1, MOST)
_COUNT_OR_NONE = Range(0, MOST)
_RATE = Range(0)
_SEED = Range(0, 2**32 - 1)
_STEPS = Range(0, MOST, without_least=True, counts_steps=True)
_MOMENTUM = Range(0, 1, without_most=True)

RANGES: dict[str, Range] = {
    "per_device_train_batch_size": _COUNT,
    "per_device_eval_batch_size": _COUNT,
    "gradient_accumulation_steps": _COUNT,
    "max_tokens_per_batch": _COUNT,
    "num_train_epochs": Range(0, MOST, without_least=True),
    "max_steps": Range(1, MOST, also=-1),
    "learning_rate": _RATE,
    "head_learning_rate": _RATE,
    "adapter_learning_rate": _RATE,
    "layer_lr_decay": Range(0, 1, without_least=True),
    "weight_decay": _RATE,
    "warmup_steps": Range(0, MOST, counts_steps=True),
    "adam_beta1": _MOMENTUM,
    "adam_beta2": _MOMENTUM,
    "adam_epsilon": Range(0, 1, without_least=True),
    "max_grad_norm": _RATE,  # 0 does not clip
    "label_smoothing_factor": _MOMENTUM,
    "neftune_noise_alpha": _RATE,
    "adapter_pull": _RATE,
    "torch_empty_cache_steps": _COUNT,
    "logging_steps": _STEPS,
    "eval_steps": _STEPS,
    "save_steps": _STEPS,
    "eval_delay": Range(0, MOST),
    "eval_accumulation_steps": _COUNT,
    "save_total_limit": _COUNT_OR_NONE,  # 0 keeps all checkpoints, like null
    "seed": _SEED,
    "data_seed": _SEED,
    "dataloader_num_workers": Range(0, 1024),  # each is a process; a mistyped number would stop the machine
    "dataloader_prefetch_factor": _COUNT,
    "ddp_bucket_cap_mb": _COUNT,
    "ddp_timeout": _COUNT,
    "local_rank": Range(0, MOST, also=-1),
    "early_stopping_patience": _COUNT,
    "freeze_patience": _COUNT,
    "conflict_every": _COUNT,
}
"""Training argument -> the numbers that it can have, for all numbers of `MultitaskTrainingArguments`."""


def check_ranges(values: Mapping[str, Any]) -> None:
    """Check that each training argument of the table has a number of its range, or None.

    Args:
        values: the training arguments by name.

    Raises:
        ValueError: if a number is out of its range.
    """
    for name, allowed in RANGES.items():
        value = values.get(name)
        problem = None if value is None else allowed.problem(value)
        if problem is not None:
            raise ValueError(f"`{name}` {problem}")
