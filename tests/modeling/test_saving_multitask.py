"""The weights of a saved model belong to its `config.json`."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from toys import build_model
from transformers import AutoModel

from mtl_nlp import MultitaskModel, TextClassification
from mtl_nlp.modeling.saving_multitask import hash_weights

TASKS = [TextClassification(name="topic", labels=("news", "sport"))]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    build_model(TASKS).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def set_hash(folder: Path, value: str | None) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["weights_sha256"] = value
    (folder / "config.json").write_text(json.dumps(config))


def test_a_model_that_is_saved_again_has_the_same_hash(folder, tmp_path):
    model = MultitaskModel.from_pretrained(folder)
    model.save_pretrained(tmp_path / "again")
    assert model.config.weights_sha256 == hash_weights(folder) == hash_weights(tmp_path / "again")
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}


@pytest.mark.parametrize("load", [MultitaskModel.from_pretrained, AutoModel.from_pretrained])
def test_weights_of_a_different_model_are_refused(folder, tmp_path, load):
    torch.manual_seed(1)
    build_model([TextClassification(name="topic", labels=("sport", "news"))]).save_pretrained(tmp_path / "other")
    weights = load_file(tmp_path / "other" / "model.safetensors")
    weights["heads.0.stock.classifier.bias"] += 1.0
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"do not belong to its config\.json: their SHA-256 is different"):
        load(folder)
    set_hash(folder, None)
    load(folder)


def test_changed_bytes_and_exchanged_shards_are_refused(tmp_path):
    build_model(TASKS).save_pretrained(tmp_path / "model", max_shard_size="20KB")
    shards = sorted((tmp_path / "model").glob("*.safetensors"))
    assert len(shards) > 1
    MultitaskModel.from_pretrained(tmp_path / "model")
    content = bytearray(shards[0].read_bytes())
    content[-1] ^= 1
    shards[0].write_bytes(content)
    with pytest.raises(ValueError, match="SHA-256"):
        MultitaskModel.from_pretrained(tmp_path / "model")


def test_an_interrupted_save_is_refused(folder, monkeypatch):
    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("transformers.modeling_utils.safe_save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_model([TextClassification(name="topic", labels=("sport", "news"))]).save_pretrained(folder)
    with pytest.raises(ValueError, match=f"The save of the model in {folder} was interrupted"):
        MultitaskModel.from_pretrained(folder)


def test_a_model_in_a_subfolder_is_checked(folder):
    set_hash(folder, "0" * 64)
    with pytest.raises(ValueError, match="SHA-256"):
        MultitaskModel.from_pretrained(folder.parent, subfolder="model")


def test_the_config_alone_can_be_copied(folder, tmp_path):
    shutil.copy(folder / "config.json", tmp_path)
    with pytest.raises(OSError, match="no file named"):
        MultitaskModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_all_files_have_the_mode_of_the_umask(tmp_path, mask):
    before = os.umask(mask)
    try:
        build_model(TASKS).save_pretrained(tmp_path / "model", max_shard_size="20KB")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "model").iterdir()}
    assert set(modes.values()) == {0o666 & ~mask}


@pytest.mark.parametrize("sizes", [("5GB", "20KB"), ("20KB", "5GB"), ("10KB", "20KB")])
def test_a_model_replaces_a_model_with_a_different_number_of_files(tmp_path, sizes):
    for number, size in enumerate(sizes):
        torch.manual_seed(number)
        model = build_model(TASKS)
        model.save_pretrained(tmp_path, max_shard_size=size)
    state = MultitaskModel.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(state[name], weight) for name, weight in model.state_dict().items())


def test_weights_with_names_of_a_wrapper_are_checked_too(tmp_path):
    model = build_model(TASKS)
    state = {f"wrapper.{name}": weight for name, weight in model.state_dict().items()}
    state["wrapper.heads.0.stock.classifier.bias"] = torch.tensor([0.0, float("nan")])
    with pytest.raises(ValueError, match=r"NaN or infinite numbers in wrapper\.heads"):
        model.save_pretrained(tmp_path, state_dict=state)
    assert not any(tmp_path.iterdir())
