"""Fixtures of the comparison's tests: a small recipe, and a comparison of it that has been trained."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import write
from toys import sample_recipe

from mtl_nlp.cli.main import main


@pytest.fixture(scope="session")
def two_tasks(encoder_folder: Callable[[str], str]) -> Callable[[Path], dict[str, Any]]:
    """A function from a folder to a recipe with two tasks, of which one has labels on each of its two datasets."""

    def build(folder: Path) -> dict[str, Any]:
        recipe = sample_recipe(encoder_folder("bert"), folder / "run", max_steps=4)
        sample = recipe["datasets"].pop("sample")
        del recipe["tasks"]["ner"]
        recipe["datasets"] = {
            "words": {**copy.deepcopy(sample), "labels": {"pos": "upos"}},
            "texts": {**copy.deepcopy(sample), "labels": {"topic": "topic"}},
        }
        recipe["training"] |= {"eval_strategy": "steps", "eval_steps": 2}
        return recipe

    return build


@pytest.fixture(scope="session")
def compared(two_tasks: Callable[[Path], dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `joint.yaml`, and in `compared` the comparison of its tasks with two seeds."""
    import datasets

    folder = tmp_path_factory.mktemp("compared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
        patch.setenv("HF_DATASETS_CACHE", str(folder / "cache"))
        recipe = write(folder / "joint.yaml", two_tasks(folder))
        assert main(["compare", recipe, "--seeds", "2", "--output", str(folder / "compared")]) == 0
    return folder
