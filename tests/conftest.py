"""Tiny encoders and tokenizers, built here: no test needs a network or `../shared`."""

from __future__ import annotations

import copy
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Set before transformers is imported, so that every request to the Hub fails at once with a message.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch
import yaml
from interpreter import LIBRARIES, Interpreter
from local_hub import ADA, EVE, READER, LocalHub
from toys import (
    REPOSITORY,
    build_config,
    build_tokenizer,
    sample_recipe,
)
from transformers import AutoModel, PreTrainedTokenizerBase

from mtl_nlp import Recipe
from mtl_nlp.run.build import build_model as build_run_model
from mtl_nlp.run.prepare import Run, prepare


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Use one thread, with which tiny models are faster and test processes do not compete for cores."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _ctrl_c_interrupts() -> None:
    """Handle Ctrl-C even in a background job of a shell, where this process and its children would ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _own_caches(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the cache of `datasets` into a temporary folder, shared by all tests of a run."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.getbasetemp() / "datasets_cache")


@pytest.fixture(scope="session")
def tokenizers() -> dict[str, PreTrainedTokenizerBase]:
    """The three toy tokenizers by kind."""
    return {kind: build_tokenizer(kind) for kind in ("wordpiece", "bpe", "unigram")}


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """family -> a folder with a tiny random encoder and a WordPiece tokenizer, as a value for `encoder:`."""
    folders: dict[str, str] = {}

    def build(family: str = "bert") -> str:
        if family not in folders:
            folder = tmp_path_factory.mktemp(family)
            torch.manual_seed(0)
            AutoModel.from_config(build_config(family)).save_pretrained(folder)
            build_tokenizer("wordpiece").save_pretrained(folder)
            folders[family] = str(folder)
        return folders[family]

    return build


@pytest.fixture
def quick_recipe(encoder_folder: Callable[[str], str], tmp_path: Path) -> dict:
    """The sample recipe, with a separate folder per test."""
    return sample_recipe(encoder_folder("bert"), tmp_path / "run", max_steps=4)


@pytest.fixture
def run(quick_recipe: dict) -> Run:
    """The sample recipe, loaded and encoded."""
    return prepare(Recipe.from_dict(quick_recipe))


@pytest.fixture
def saved(run: Run, tmp_path: Path) -> Path:
    """A folder with an untrained model and its tokenizer."""
    build_run_model(run).save_pretrained(tmp_path / "saved")
    run.tokenizer.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.fixture(scope="session")
def hub() -> Iterator[LocalHub]:
    """The local Hub."""
    running = LocalHub()
    yield running
    running.close()


@pytest.fixture(scope="session")
def online(hub: LocalHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Interpreter]:
    """Programs that reach the local Hub, with Ada's token by default."""
    folder = tmp_path_factory.mktemp("online")
    (folder / "home").mkdir()
    interpreter = Interpreter(folder, hub.environment(folder / "home"))
    yield interpreter
    interpreter.close()


@pytest.fixture(scope="session")
def stranger(hub: LocalHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Interpreter]:
    """Programs of a user who can reach the local Hub but cannot import mtl_nlp."""
    folder = tmp_path_factory.mktemp("stranger")
    (folder / "home").mkdir()
    interpreter = Interpreter(folder, {**hub.environment(folder / "home"), "PYTHONPATH": ""}, LIBRARIES)
    yield interpreter
    interpreter.close()


@pytest.fixture(scope="session")
def pushed_run(
    online: Interpreter, encoder_folder: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of a run after the train command, with checkpoints."""
    folder = tmp_path_factory.mktemp("pushed")
    recipe = sample_recipe(encoder_folder("bert"), folder / "run", max_steps=2)
    recipe["training"] |= {"save_strategy": "steps", "save_steps": 1}
    recipe["card"] = {"license": "apache-2.0", "language": ["en"], "base_model": "ada/tiny-bert"}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    finished = online.command("train", str(folder / "recipe.yaml"))
    assert finished.status == 0, finished.stderr
    return folder / "run"


@pytest.fixture(scope="session")
def private_words(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Strings that must not be published: tokens, and the folders of runs, homes, data and the user."""
    paths = {tmp_path_factory.getbasetemp(), REPOSITORY, Path.home()}
    return {ADA, READER, EVE, *(str(path) for path in paths if len(path.parts) > 1)}


@pytest.fixture(scope="session")
def trained(encoder_folder: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `recipe.yaml`, and in `run` the model that the train command trained with the recipe."""
    import datasets
    from command_line import write

    from mtl_nlp.cli.main import main

    folder = tmp_path_factory.mktemp("cli")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
        recipe = write(folder / "recipe.yaml", sample_recipe(encoder_folder("bert"), folder / "run", max_steps=2))
        assert main(["train", recipe]) == 0
    return folder


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
    from command_line import write

    from mtl_nlp.cli.main import main

    folder = tmp_path_factory.mktemp("compared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
        patch.setenv("HF_DATASETS_CACHE", str(folder / "cache"))
        recipe = write(folder / "joint.yaml", two_tasks(folder))
        assert main(["compare", recipe, "--seeds", "2", "--output", str(folder / "compared")]) == 0
    return folder
