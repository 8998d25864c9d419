"""Loading of complete and damaged models."""

from __future__ import annotations

import json
import subprocess

import pytest
from safetensors.torch import load_file, save_file
from toys import remove_hash

from mtl_nlp.errors import ModelError
from mtl_nlp.hub.loading import load_model, load_model_tokenizer


def test_a_saved_model_loads_with_its_tokenizer(saved, run):
    model = load_model(str(saved))
    assert model.tasks == run.tasks
    tokenizer = load_model_tokenizer(str(saved), model.config)
    assert tokenizer(["Ada"], is_split_into_words=True) == run.tokenizer(["Ada"], is_split_into_words=True)


def test_plain_encoder_is_refused_as_multitask_model(encoder_folder):
    with pytest.raises(ModelError, match="holds a bert model without multitask heads"):
        load_model(encoder_folder("bert"))


def test_weights_that_do_not_belong_to_the_config_are_refused(saved):
    weights = saved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(ModelError, match=r"are damaged or do not belong to its config\.json"):
        load_model(str(saved))
    remove_hash(saved)
    load_model(str(saved))


def test_an_interrupted_replacement_is_refused_with_the_remedy(saved):
    (saved / ".saved").mkdir()
    (saved / "config.json").rename(saved / ".saved" / "config.json")
    with pytest.raises(ModelError, match=f"interrupted. Finish it: mv {saved}/.saved/\\* {saved}/$"):
        load_model(str(saved))


def test_truncated_weights_are_named(saved):
    remove_hash(saved)
    weights = saved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match="the weights file is damaged or truncated"):
        load_model(str(saved))


def test_weights_without_a_head_are_refused(saved):
    remove_hash(saved)
    weights = {name: values for name, values in load_file(saved / "model.safetensors").items() if "heads" not in name}
    save_file(weights, saved / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"the weights file does not match .*: heads\.0\..* are missing or"):
        load_model(str(saved))


def test_weights_of_a_different_shape_are_refused(saved):
    config = json.loads((saved / "config.json").read_text())
    config["tasks"][-1]["labels"].pop()
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"does not match config\.json: heads\.2\..* have a different shape"):
        load_model(str(saved))


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_missing_file_is_explained(saved, file):
    (saved / file).unlink()
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(str(saved))


def test_a_model_without_a_tokenizer_is_named(saved):
    for file in saved.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ModelError, match="the tokenizer cannot be loaded"):
        load_model_tokenizer(str(saved), load_model(str(saved)).config)


def test_weights_that_are_not_finite_are_refused(saved):
    weights = load_file(saved / "model.safetensors")
    weights["heads.0.stock.classifier.bias"][0] = float("inf")
    save_file(weights, saved / "model.safetensors", metadata={"format": "pt"})
    remove_hash(saved)
    with pytest.raises(ModelError) as error:
        load_model(str(saved))
    assert str(error.value) == (
        f"{saved} cannot be loaded: The weights should be finite. Found NaN or infinite numbers in "
        "heads.0.stock.classifier.bias. Use an earlier checkpoint, or train the model again with a lower learning "
        "rate."
    )


def test_the_remedy_of_an_interrupted_replacement_is_a_valid_command(saved):
    (saved / ".saved").mkdir()
    (saved / "config.json").rename(saved / ".saved" / "config.json")
    moved = saved.rename(saved.with_name("a model's folder"))
    with pytest.raises(ModelError) as caught:
        load_model(str(moved))
    subprocess.run(str(caught.value).partition("Finish it: ")[2], shell=True, check=True)
    load_model(str(moved))
