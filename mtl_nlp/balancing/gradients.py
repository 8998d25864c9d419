"""The contract of gradient methods: the methods that combine the tasks' gradients of the shared parameters."""

from __future__ import annotations

import contextlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

import torch
from torch import nn

from mtl_nlp.messages import conceal
from mtl_nlp.modeling.adapters_multitask import SHARED, adapter_parameters, peft_adapter_name
from mtl_nlp.modeling.modeling_multitask import MultitaskModel

_SEEDS = 2**63
"""The number of seeds that torch accepts."""


class GradientMethod(nn.Module, ABC):
    """A method that combines the gradients g_t of the tasks' terms in the joint loss into one update.

    The gradients are those of the parameters that all tasks share: g_t = ∇ w_t · (n_t / N) · CE_t / u_t, one vector per
    task over all micro-batches and processes. The result keeps the scale of the plain sum, unless the method says
    otherwise: if the gradients of all tasks are equal, the result is Σ_t g_t.

    Each method is one subclass, which computes coefficients c_t of the update Σ_t c_t g_t from the Gramian
    G_st = ⟨g_s, g_t⟩. The host waits for the device, since the methods run on the CPU. A checkpoint contains the
    `state_dict` of the method.

    Args:
        tasks: the names of all tasks.

    Attributes:
        is_random: whether the method draws random numbers. They depend only on `training.seed` and the step, so that
            they are equal in all processes and need no state.
        every: the number of optimizer steps from one use of the method to the next; the steps between have the plain
            sum.
    """

    is_random: ClassVar[bool] = False
    every: int = 1

    def __init__(self, tasks: Iterable[str]) -> None:
        super().__init__()
        self.tasks = list(tasks)

    @abstractmethod
    def coefficients(self, gramian: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        """Return the coefficient of each gradient, shape (m,), and update the state of the method.

        Args:
            gramian: G in float32 on the CPU, shape (m, m), of two or more gradients that are not zero.
            rows: the position in `tasks` of each of the m gradients, in ascending order.
        """

    def combine(
        self, gradients: torch.Tensor, gramian: torch.Tensor, rows: Sequence[int], *, seed: int = 0
    ) -> torch.Tensor:
        """Return the update of the shared parameters.

        Gradients of zero are left out. If fewer than two gradients remain, or if a gradient is not finite, the result
        is the plain sum: a gradient that is not finite must reach the update, where the trainer looks for it.

        Args:
            gradients: one gradient per task with rows in the step, shape (m, parameters).
            gramian: G in float32 on the CPU, shape (m, m), equal in all processes.
            rows: the position in `tasks` of each of the m gradients, in ascending order.
            seed: the seed of the random numbers.

        Returns:
            Shape (parameters,).
        """
        kept = gramian.diagonal().nonzero().flatten()
        if len(kept) < 2 or not gramian.isfinite().all():
            return gradients.sum(dim=0)
        with seeded(seed, gradients.device) if self.is_random else contextlib.nullcontext():
            return self._combine(gradients, gramian, kept, rows)

    def _combine(
        self, gradients: torch.Tensor, gramian: torch.Tensor, kept: torch.Tensor, rows: Sequence[int]
    ) -> torch.Tensor:
        coefficients = torch.zeros(len(rows))
        of_kept = gramian[kept][:, kept]
        coefficients[kept] = self.coefficients(of_kept, [rows[n] for n in kept.tolist()]).float()
        return coefficients.to(gradients.device) @ gradients


def shared_parameters(model: MultitaskModel) -> list[nn.Parameter]:
    """Return the trained parameters that all tasks share: those of the encoder, and of its shared adapter."""
    names = [peft_adapter_name(name) for name in model.adapter_names if name != SHARED]
    of_tasks = set(adapter_parameters(model.encoder, names))
    return [
        parameter for parameter in model.encoder.parameters() if parameter.requires_grad and parameter not in of_tasks
    ]


def own_parameters(model: MultitaskModel, task: str) -> list[nn.Parameter]:
    """Return the trained parameters of a task's head and of its adapter."""
    adapter = adapter_parameters(model.encoder, [peft_adapter_name(task)])
    return [parameter for parameter in (*model.heads_by_task[task].parameters(), *adapter) if parameter.requires_grad]


def seed_of(seed: int, step: int) -> int:
    """Return the seed of the random numbers of a step.

    Args:
        seed: the seed of the training.
        step: the number of optimizer steps before the step.
    """
    return (seed * 2**32 + step) % _SEEDS


def normalised(gramian: torch.Tensor) -> torch.Tensor:
    """Return the Gramian of gradients with a mean squared norm of 1.

    The coefficients of most methods do not depend on the scale of the gradients, but the solvers of torchjd treat
    Gramians with a trace below 1e-4 as zero.
    """
    return gramian / gramian.diagonal().mean()


def check_number(name: str, value: float, low: float, high: float = math.inf, *, is_integer: bool = False) -> None:
    """Check a parameter of a method.

    Args:
        name: the name of the parameter, for the message.
        value: the value of the parameter.
        low: the smallest valid value.
        high: the largest valid value.
        is_integer: whether the value should be an integer.

    Raises:
        ValueError: if the value is not a finite number between `low` and `high`.
    """
    kinds = int if is_integer else int | float
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high or math.isinf(value):
        kind = "an integer" if is_integer else "a number"
        limits = f"of at least {low:g}" if math.isinf(high) else f"from {low:g} to {high:g}"
        raise ValueError(f"{name}: should be {kind} {limits}. Found {conceal(repr(value)):.80}.")


@contextlib.contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Draw random numbers from a seed, on the CPU and on a device, and restore the random state afterwards."""
    is_cpu = device.type == "cpu"
    with torch.random.fork_rng([] if is_cpu else [device], device_type="cuda" if is_cpu else device.type):
        torch.manual_seed(seed)
        yield
