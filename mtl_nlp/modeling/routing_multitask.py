"""Which rows of a batch go through which adapters, and in how many passes through the encoder."""

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
    """Which adapters the rows of an encoder pass go through.

    Attributes:
        adapters: for each group of neighbouring rows the adapters it goes through, all of them added up.
        sizes: how many rows each group has.
        idle: adapters that none of the rows goes through, and that get a gradient of zero.
    """

    adapters: tuple[tuple[str, ...], ...]
    sizes: tuple[int, ...]
    idle: tuple[str, ...] = ()


_ROUTE: ContextVar[Route | None] = ContextVar("route", default=None)


@contextlib.contextmanager
def routed(route: Route) -> Iterator[None]:
    """Inside, rows go this way. Threads, each with its own way, may share an encoder."""
    token = _ROUTE.set(route)
    try:
        yield
    finally:
        _ROUTE.reset(token)


def current_route() -> Route | None:
    """The way that rows go here; None outside of `routed`."""
    return _ROUTE.get()


def checkpointing_routed(checkpoint: Callable[..., Any]) -> Callable[..., Any]:
    """Activation checkpointing whose second forward, in backward, goes the way of the first."""

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
        route: which adapters its rows go through.
        rows: the batch's rows that it reads, shape (rows,), a row once for each adapter; None for the batch as it is.
        positions: for each task where in the pass its rows are, shape (n_t,); None for the whole pass.
    """

    route: Route
    rows: torch.Tensor | None
    positions: Mapping[str, torch.Tensor | None]


def encoder_passes(
    adapters: Mapping[str, tuple[str, ...]], rows: Mapping[str, torch.Tensor] | None, *, in_one: bool
) -> list[EncoderPass]:
    """Plan the encoder passes that a batch needs for some tasks.

    Tasks with the same adapters share their rows. A row that is labelled for tasks with different adapters is read once
    for each combination of adapters.

    Args:
        adapters: for each task its adapters.
        rows: for each task the rows of the batch that carry its label, shape (n_t,); None for all rows.
        in_one: whether one pass can hold rows of several adapters, see `supports_mixed_batches`. With `rows=None` each
            combination of adapters takes a pass of its own, so that no pass holds more rows than the batch.

    Returns:
        At least one pass, since a loss of zero needs an encoder pass too.
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
        return [_joined(reads)]
    return [EncoderPass(Route((group,), ()), read, positions) for group, (read, positions) in reads.items()]


_Read = tuple[torch.Tensor, dict[str, torch.Tensor]]
"""Rows of the batch, shape (rows,), and for each task the positions of its rows among them, shape (n_t,)."""


def _read_once(rows: Mapping[str, torch.Tensor]) -> _Read:
    """Collect the rows of tasks that share their adapters, each row once."""
    if len(rows) == 1:
        ((name, read),) = rows.items()
        return read, {name: torch.arange(len(read), device=read.device)}
    read = torch.cat(list(rows.values())).unique()
    return read, {name: torch.searchsorted(read, of_task) for name, of_task in rows.items()}


def _joined(reads: Mapping[tuple[str, ...], _Read]) -> EncoderPass:
    """Put the rows of several combinations of adapters behind each other, in one pass."""
    sizes = [len(read) for read, _ in reads.values()]
    starts = itertools.accumulate(sizes[:-1], initial=0)
    positions = {
        name: start + position
        for (_, of_group), start in zip(reads.values(), starts, strict=True)
        for name, position in of_group.items()
    }
    return EncoderPass(Route(tuple(reads), tuple(sizes)), torch.cat([read for read, _ in reads.values()]), positions)


def mark_idle_adapters(passes: Sequence[EncoderPass], names: Iterable[str]) -> list[EncoderPass]:
    """The same passes, of which the first gives those of some adapters that no row goes through a gradient of zero."""
    used = {name for each in passes for group in each.route.adapters for name in group}
    idle = tuple(name for name in names if name not in used)
    return [replace(passes[0], route=replace(passes[0].route, idle=idle)), *passes[1:]]
