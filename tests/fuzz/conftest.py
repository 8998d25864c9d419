"""The profiles of hypothesis, and the folders that all cases share.

`scripts/test` runs the profile `unit`, which has the same cases in every run; `scripts/test --fuzz` runs `fuzz`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cases import CASES, Bench
from hypothesis import HealthCheck, Phase, settings
from hypothesis.strategies import DataObject
from originals import build_originals
from sandbox import Sandbox, Violation

_SHARED = settings(
    deadline=None,
    database=None,
    # One or two files are damaged per case: a smaller example would not be easier to understand.
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
settings.register_profile("unit", _SHARED, max_examples=10, derandomize=True)
settings.register_profile("fuzz", _SHARED, max_examples=300, print_blob=True)
settings.load_profile("unit")  # pytest loads the profile of --hypothesis-profile after this module


@pytest.fixture(scope="session")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """A sandbox with a preloaded interpreter."""
    running = Sandbox(tmp_path_factory.mktemp("fuzz"))
    yield running
    running.close()


@pytest.fixture(scope="session")
def originals(sandbox: Sandbox) -> dict[str, Path]:
    """The intact folders by name."""
    return build_originals(sandbox)


@pytest.fixture(scope="session")
def violations(sandbox: Sandbox, originals: dict[str, Path]) -> Callable[[DataObject, str], list[Violation]]:
    """Run a case of a kind, print the damage, and return the violations."""

    def run(data: DataObject, kind: str) -> list[Violation]:
        what, outcome = CASES[kind](Bench(data, sandbox, originals))
        print(what)
        return list(outcome.violations)

    return run
