"""The notebook of the documentation runs from its first to its last cell."""

from __future__ import annotations

from pathlib import Path

import nbclient
import nbformat
import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs" / "multitask.ipynb"


@pytest.mark.slow
def test_notebook_runs_and_answers():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=280, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    printed = [output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("('Maria Jensen', 'PER')" in text for text in printed)
