"""Fixtures: processes that train together."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from interpreter import COMMANDS, Interpreter
from launching import ALONE


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Interpreter]:
    """Workers without a launcher, forked from one interpreter, since imports take most of their time."""
    interpreter = Interpreter(tmp_path_factory.mktemp("workers"), ALONE, f"{COMMANDS}, peft, torch.distributed.fsdp")
    yield interpreter
    interpreter.close()
