"""Routing: the assignment of a batch's rows to adapters and encoder passes."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import torch


@dataclass(frozen=True)
class Route:
    """The adapters of each row in an encoder pass.

    Attributes:
        adapters: the adapters of each group of consecutive rows. The outputs of a group's adapters are added up.
        sizes: the number of rows in each group; empty for a single group.
        idle: adapters without rows, which get a gradient of zero.
    """

    adapters: tuple[tuple[str, ...], ...]
    sizes: tuple[int, ...]
    idle: tuple[str, ...] = ()


_ROUTE: ContextVar[Route | None] = ContextVar("route", default=None)


@contextlib.contextmanager
def routed(route: Route) -> Iterator[None]:
    """Use a route inside the context. Threads with different routes can share an encoder."""
    token = _ROUTE.set(route)
    try:
        yield
    finally:
        _ROUTE.reset(token)


def current_route() -> Route | None:
    """Return the current route; None outside of `routed`."""
    return _ROUTE.get()


def checkpointing_routed(checkpoint: Callable[..., Any]) -> Callable[..., Any]:
    """Return activation checkpointing that recomputes a forward pass with the route of the original pass."""

    def again(route: Route, forward: Callable[..., Any], *inputs: Any) -> Any:
        with routed(route):
            return forward(*inputs)

    @functools.wraps(checkpoint)
    def checkpointing(forward: Callable[..., Any], *inputs: Any, **kwargs: Any) -> Any:
        route = _ROUTE.get()
        return checkpoint(forward if route is None else functools.partial(again, route, forward), *inputs, **kwargs)

    return checkpointing


@dataclass(frozen=True)
class EncoderPass:
    """One pass through the encoder.

    Attributes:
        route: the adapters of the rows.
        rows: indices of the batch's rows, shape (rows,), where a row is repeated for each combination of adapters; None
            for all rows in order.
        positions: positions of each task's rows in the pass, shape (n_t,); None for all rows of the pass.
    """

    route: Route
    rows: torch.Tensor | None
    positions: Mapping[str, torch.Tensor | None]


def encoder_passes(
    adapters: Mapping[str, tuple[str, ...]], rows: Mapping[str, torch.Tensor] | None, *, in_one: bool
) -> list[EncoderPass]:
    """Plan the encoder passes that a batch needs for some tasks.

    Tasks with the same adapters share their rows. A row that is labelled for tasks with different adapters is encoded
    once per combination of adapters.

    Args:
        adapters: the adapters of each task.
        rows: indices of the rows that are labelled for each task, shape (n_t,); None for all rows.
        in_one: whether one pass can read rows of several adapters, see `supports_mixed_batches`. With `rows=None`, each
            combination of adapters takes a separate pass, so that no pass has more rows than the batch.

    Returns:
        At least one pass, since a loss of zero also needs an encoder pass.
    """
    tasks: dict[tuple[str, ...], list[str]] = {}
    for name, group in adapters.items():
        if rows is None or len(rows[name]):
            tasks.setdefault(group, []).append(name)
    tasks = tasks or {(): []}
    if rows is None:
        return [EncoderPass(Route((group,), ()), None, dict.fromkeys(names)) for group, names in tasks.items()]
    if len(tasks) == 1:
        return [
            EncoderPass(Route((group,), ()), None, {name: rows[name] for name in names})
            for group, names in tasks.items()
        ]
    reads = {group: _read_once({name: rows[name] for name in names}) for group, names in tasks.items()}
    if in_one:
        return [_join_passes(reads)]
    return [EncoderPass(Route((group,), ()), read, positions) for group, (read, positions) in reads.items()]


_Read = tuple[torch.Tensor, dict[str, torch.Tensor]]
"""Indices of rows in the batch, shape (rows,), and positions of each task's rows in these indices, shape (n_t,)."""


def _read_once(rows: Mapping[str, torch.Tensor]) -> _Read:
    """Collect the rows of tasks with the same adapters, each row once."""
    if len(rows) == 1:
        ((name, read),) = rows.items()
        return read, {name: torch.arange(len(read), device=read.device)}
    read = torch.cat(list(rows.values())).unique()
    return read, {name: torch.searchsorted(read, of_task) for name, of_task in rows.items()}


def _join_passes(reads: Mapping[tuple[str, ...], _Read]) -> EncoderPass:
    """Join the rows of several combinations of adapters in one pass."""
    sizes = [len(read) for read, _ in reads.values()]
    starts = itertools.accumulate(sizes[:-1], initial=0)
    positions = {
        name: start + position
        for (_, of_group), start in zip(reads.values(), starts, strict=True)
        for name, position in of_group.items()
    }
    return EncoderPass(Route(tuple(reads), tuple(sizes)), torch.cat([read for read, _ in reads.values()]), positions)


def mark_idle_adapters(passes: Sequence[EncoderPass], names: Iterable[str]) -> list[EncoderPass]:
    """Return the passes, the first of which gives every named adapter without rows a gradient of zero."""
    used = {name for each in passes for group in each.route.adapters for name in group}
    idle = tuple(name for name in names if name not in used)
    return [replace(passes[0], route=replace(passes[0].route, idle=idle)), *passes[1:]]
