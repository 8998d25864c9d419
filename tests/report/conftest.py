"""Folders of comparisons and runs that several tests read; a test that changes one copies it."""

from __future__ import annotations

from pathlib import Path

import pytest
from comparison_folder import write_comparison, write_run


@pytest.fixture(scope="session")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison of two ways to share three tasks, with three seeds."""
    return write_comparison(tmp_path_factory.mktemp("comparisons") / "three")


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without a comparison."""
    return write_run(tmp_path_factory.mktemp("runs") / "lone")
