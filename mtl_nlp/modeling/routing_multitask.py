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
    positions: dict[str, torch.Tensor | None]


def encoder_passes(
    adapters: Mapping[str, tuple[str, ...]], rows: Mapping[str, torch.Tensor] | None, *, in_one: bool
) -> list[EncoderPass]:
    """The encoder passes that a batch needs for some tasks.

    Tasks that go through the same adapters share what is read for them. A row that is labelled for tasks of other
    adapters is read once for each of those, and for no other.

    Args:
        adapters: for each task the adapters it goes through.
        rows: for each task the rows of the batch that it labels, shape (n_t,); None for all.
        in_one: whether one pass can hold rows of several adapters, see `supports_mixed_batches`. With `rows=None` every
            group of adapters takes a pass of its own all the same, so that no pass holds more rows than the batch.
    """
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, of_task in adapters.items():
        if rows is None or len(rows[name]):
            groups.setdefault(of_task, []).append(name)
    groups = groups or {(): []}  # the batch as it is, since a loss of zero needs an encoder pass too
    if rows is None:
        return [EncoderPass(Route((group,), ()), None, dict.fromkeys(names)) for group, names in groups.items()]
    if len(groups) == 1:
        return [
            EncoderPass(Route((group,), ()), None, {name: rows[name] for name in names})
            for group, names in groups.items()
        ]
    reads = []
    for group, names in groups.items():
        parts = [rows[name] for name in names]
        if len(parts) == 1:
            reads.append((group, parts[0], [torch.arange(len(parts[0]), device=parts[0].device)]))
        else:
            of_group = torch.cat(parts).unique()
            reads.append((group, of_group, [torch.searchsorted(of_group, part) for part in parts]))
    if not in_one:
        return [
            EncoderPass(Route((group,), ()), read, dict(zip(groups[group], positions, strict=True)))
            for group, read, positions in reads
        ]
    sizes = [len(read) for _, read, _ in reads]
    starts = itertools.accumulate(sizes, initial=0)
    joined = {
        name: start + place
        for (group, _, positions), start in zip(reads, starts, strict=False)
        for name, place in zip(groups[group], positions, strict=True)
    }
    route = Route(tuple(groups), tuple(sizes))
    return [EncoderPass(route, torch.cat([read for _, read, _ in reads]), joined)]


def mark_idle_adapters(passes: Sequence[EncoderPass], names: Iterable[str]) -> list[EncoderPass]:
    """The same passes, of which the first gives those of some adapters that no row goes through a gradient of zero."""
    used = {name for each in passes for group in each.route.adapters for name in group}
    idle = tuple(name for name in names if name not in used)
    return [replace(passes[0], route=replace(passes[0].route, idle=idle)), *passes[1:]]
