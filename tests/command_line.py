"""Helpers for the tests of the commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from mtl_nlp.cli.main import main


def write(path: Path, recipe: Any) -> str:
    path.write_text(recipe if isinstance(recipe, str) else yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return str(path)


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Check that a command refuses its input, and return its one line on stderr."""
    capsys.readouterr()
    assert main(list(arguments)) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("mtl-nlp: error: ")
    return lines[0]
