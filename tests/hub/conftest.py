"""Fixtures: pushes to a Hub, with and without faults."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hub_faults import FAILING
from interpreter import Finished, Interpreter
from local_hub import LocalHub


@pytest.fixture
def push(online: Interpreter, pushed_run: Path) -> Callable[..., Finished]:
    """Return a function that pushes the run: (repository, options…) -> the result."""

    def run(repo_id: str, *options: str, **environment: str) -> Finished:
        return online.command("push", str(pushed_run), repo_id, *options, **environment)

    return run


@pytest.fixture(scope="module")
def failed(hub: LocalHub, online: Interpreter, pushed_run: Path) -> dict[str, Finished]:
    """Start all pushes that fail at once, since some of them wait; return name -> the result."""
    running = {}
    for name, case in FAILING.items():
        if case.step is not None:
            hub.fail(f"ada/{name}", case.step, **case.fault)
        environment = {} if case.token is None else {"HF_TOKEN": case.token}
        options = ["--revision", "side"] if case.step == "branch" else []
        running[name] = online.start_command("push", str(pushed_run), f"ada/{name}", *options, **environment)
    return {name: program.wait() for name, program in running.items()}
