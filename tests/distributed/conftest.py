"""Fixtures: processes that train together, and commands that train in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from interpreter import COMMANDS, Interpreter
from launching import ALONE
from workshop import Workshop


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Interpreter]:
    """Workers without a launcher, forked from one interpreter, since imports take most of their time."""
    interpreter = Interpreter(tmp_path_factory.mktemp("workers"), ALONE, f"{COMMANDS}, peft, torch.distributed.fsdp")
    yield interpreter
    interpreter.close()


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    """A folder with an encoder, data and a recipe. All tests share its runs that were never stopped."""
    workshop = Workshop(tmp_path_factory.mktemp("workshop"))
    yield workshop
    for started in workshop.started:
        if started.is_running:
            started.kill()


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "run"
