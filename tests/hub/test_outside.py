"""Refusal of damaged and hostile files of models and encoders, in one line and without much time or memory."""

from __future__ import annotations

import json
import pickle
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from safetensors import SafetensorError
from toys import build_config, build_model, build_tokenizer, liven_adapters, remove_hash
from transformers import AutoModel, pipeline

from mtl_nlp import Recipe, Regression, TextClassification, TokenClassification
from mtl_nlp.errors import ModelError, MtlNlpError, RecipeError
from mtl_nlp.hub.loading import load_config, load_model, load_model_tokenizer
from mtl_nlp.hub.outside import Loading, check_size
from mtl_nlp.run.build import build_model as build_run_model
from mtl_nlp.run.prepare import prepare

TASKS = [
    TokenClassification(name="ner", labels=["O", "B-PER", "I-PER"], scheme="iob2"),
    TextClassification(name="topic", labels=["a", "b"]),
    Regression(name="score"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a model with an adapter and a tokenizer."""
    model = build_model(TASKS)
    model.add_adapter(LoraConfig(r=2, target_modules=["query"]), "ner")
    liven_adapters(model).save_pretrained(tmp_path / "model")
    build_tokenizer("wordpiece").save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def load(folder: Path) -> None:
    model = load_model(str(folder))
    load_model_tokenizer(str(folder), model.config)


def refusal(folder: Path, seconds: float = 5.0) -> str:
    """Check that a folder is refused in one line and in a short time, and return the line."""
    start = time.monotonic()
    with pytest.raises(ModelError) as raised:
        load(folder)
    assert time.monotonic() - start < seconds
    assert str(raised.value).startswith(str(folder))
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 600
    return str(raised.value)


def change(file: Path, *path: str | int, value: Any) -> None:
    """Replace a value of a JSON file."""
    content = json.loads(file.read_text())
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    file.write_text(json.dumps(content))


def test_undamaged_folder_is_accepted(folder):
    load(folder)


# Forms of JSON files


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "tokenizer.json"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not valid JSON"),
        (b"{", "is not valid JSON"),
        (b'{"a": "caf\xe9"}', "is not valid JSON"),
        (b"\xef\xbb\xbf{}", "is not valid JSON"),
        (b"5", "should be an object. Found 5"),
        (b"null", "should be an object. Found None"),
        (b'["config"]', "should be an object"),
        (b"[" * 100_000, "is nested too deeply"),
    ],
)
def test_file_that_is_not_a_json_object_is_named(folder, name, content, message):
    (folder / name).write_bytes(content)
    assert f"{name} {message}" in refusal(folder)


# Sizes in config.json


@pytest.mark.parametrize("number", [10**5, 10**8, 10**12, 10**30])
@pytest.mark.parametrize(
    "path",
    [
        ("text_config", "vocab_size"),
        ("text_config", "hidden_size"),
        ("text_config", "intermediate_size"),
        ("text_config", "num_hidden_layers"),
        ("text_config", "max_position_embeddings"),
        ("text_config", "type_vocab_size"),
        ("text_config", "num_attention_heads"),
        ("adapters", 0, "r"),
    ],
    ids=str,
)
def test_numbers_that_the_weights_do_not_have_are_refused_at_once(folder, path, number):
    change(folder / "config.json", *path, value=number)
    refusal(folder, seconds=2.0)


@pytest.mark.parametrize(
    ("family", "key"),
    [
        ("albert", "inner_group_num"),
        ("albert", "num_hidden_groups"),
        ("deberta-v2", "pooler_hidden_size"),
        ("deberta-v2", "position_buckets"),
        ("modernbert", "num_hidden_layers"),
        ("distilbert", "n_layers"),
        ("distilbert", "dim"),
    ],
)
def test_sizes_of_other_families_are_refused_too(tmp_path, family, key):
    build_model(TASKS, family).save_pretrained(tmp_path)
    build_tokenizer("wordpiece").save_pretrained(tmp_path)
    load(tmp_path)
    change(tmp_path / "config.json", "text_config", key, value=200_000_000)
    refusal(tmp_path)


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (100_000, "describes a model with more weights than model.safetensors contains"),
        (2_000_000, "config.json should have at most 8,000,000 bytes"),
    ],
)
def test_long_label_list_without_weights_is_refused(folder, count, message):
    change(folder / "config.json", "tasks", 1, "labels", value=[str(number) for number in range(count)])
    assert message in refusal(folder)


@pytest.mark.parametrize("value", [0, -1, -(10**9), 1.5, "x", None, [], {}, True, float("nan")], ids=str)
@pytest.mark.parametrize("key", ["hidden_size", "vocab_size", "num_hidden_layers", "num_attention_heads"])
def test_sizes_of_a_wrong_type_are_refused(folder, key, value):
    change(folder / "config.json", "text_config", key, value=value)
    refusal(folder)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("text_config", "hidden_act"), "explode"),
        (("text_config", "hidden_act"), 5),
        (("text_config", "pad_token_id"), 10**6),
        (("text_config", "hidden_dropout_prob"), 7),
        (("text_config", "dtype"), "nn"),
        (("text_config", "model_type"), "bort-9000"),
        (("text_config",), 5),
        (("text_config", "id2label"), {"x": 1}),
        (("text_config", "per_layer_config"), 5),
        (("tasks",), 5),
        (("tasks", 0, "labels"), 3),
        (("tasks", 0, "type"), ["x"]),
        (("adapters",), 5),
        (("adapters", 0, "target_modules"), ["no_such_layer"]),
        (("model_type",), 5),
        (("model_type",), None),
        (("model_type",), "bert"),
        (("max_length",), 1),
        (("max_length",), 65),
        (("stride",), 10**6),
    ],
    ids=str,
)
def test_values_that_cannot_be_used_are_refused(folder, path, value):
    change(folder / "config.json", *path, value=value)
    refusal(folder)


# Tokenizers


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("model_max_length",), "x"),
        (("model_max_length",), 0),
        (("model_input_names",), 5),
        (("model_input_names",), []),
        (("model_input_names",), ["x"]),
        (("model_input_names",), ["[x]", "token_type_ids", "attention_mask"]),
        (("model_input_names",), ["attention_mask", "input_ids"]),
        (("model_input_names",), ["input_ids", 5]),
        (("padding_side",), "up"),
        (("tokenizer_class",), 5),
        (("pad_token",), 7),
        (("pad_token",), None),
    ],
    ids=str,
)
def test_values_of_the_tokenizer_configuration_are_checked(folder, path, value):
    change(folder / "tokenizer_config.json", *path, value=value)
    refusal(folder)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("model", "vocab", "the"), "x"),
        (("model", "vocab", "the"), 10**9),
        (("model", "vocab"), {}),
        (("model", "vocab"), 5),
        (("model", "type"), "x"),
        (("model",), None),
        (("added_tokens", 0, "special"), 5),
        (("added_tokens", 0, "id"), 10**9),
        (("normalizer",), 5),
        (("post_processor", "special_tokens", "[CLS]", "ids"), [10**6]),
        (("post_processor", "pair", 0, "SpecialToken", "id"), "[NONE]"),
    ],
    ids=str,
)
def test_values_of_the_tokenizer_file_are_checked(folder, path, value):
    change(folder / "tokenizer.json", *path, value=value)
    assert f"{folder}: the tokenizer cannot be loaded" in refusal(folder)


def test_tokenizer_of_a_different_model_is_refused(folder):
    content = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    content["model"]["vocab"] = dict([*vocabulary.items()][:200])
    (folder / "tokenizer.json").write_text(json.dumps(content))
    assert "the tokenizer has 200 entries, and the embedding of the encoder has 500 rows" in refusal(folder)


def test_pipeline_refuses_a_folder_with_a_different_tokenizer(folder, tmp_path):
    build_model(TASKS, vocab_size=2000).save_pretrained(folder)
    with pytest.raises(ValueError, match="the tokenizer has 300 entries, and the embedding of the encoder has 2000"):
        pipeline("multitask", model=str(folder))


# Weights


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """The folder of a model with several weights files and their index."""
    build_model(TASKS).save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    build_tokenizer("wordpiece").save_pretrained(tmp_path / "sharded")
    return tmp_path / "sharded"


def test_sharded_model_is_accepted(sharded):
    load(sharded)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("weight_map",), 5, "`weight_map` should be an object"),
        (("weight_map",), {}, "`weight_map` should be an object"),
        (("metadata",), 5, "`metadata` should be an object"),
        (("weight_map", "encoder.embeddings.LayerNorm.bias"), 5, "should name files in the folder of the model"),
        (("weight_map", "encoder.embeddings.LayerNorm.bias"), "../x.safetensors", "should name files in the folder"),
        (("weight_map", "encoder.embeddings.LayerNorm.bias"), "/etc/passwd", "should name files in the folder"),
        (("weight_map", "encoder.embeddings.LayerNorm.bias"), "x.safetensors", "which does not exist"),
    ],
    ids=str,
)
def test_index_of_the_weights_is_checked(sharded, path, value, message):
    change(sharded / "model.safetensors.index.json", *path, value=value)
    assert message in refusal(sharded)


@pytest.mark.parametrize("header", [10**18, 2**63, 0, 10], ids=str)
def test_length_of_a_weights_header_is_checked(folder, header):
    remove_hash(folder)
    file = folder / "model.safetensors"
    file.write_bytes(header.to_bytes(8, "little") + file.read_bytes()[8:])
    assert "the weights file is damaged or truncated" in refusal(folder)


def test_weights_that_could_run_code_are_refused(folder):
    (folder / "model.safetensors").unlink()
    torch.save({"x": Path("x")}, folder / "pytorch_model.bin")
    refusal(folder)


# Encoders


def start(folder: Path, quick_recipe: dict) -> None:
    build_run_model(prepare(Recipe.from_dict({**quick_recipe, "encoder": str(folder)})))


@pytest.mark.parametrize(
    ("file", "path", "value"),
    [
        ("config.json", ("num_hidden_layers",), 10**9),
        ("config.json", ("vocab_size",), 10**8),
        ("config.json", ("hidden_size",), 10**12),
        ("config.json", ("hidden_size",), "x"),
        ("config.json", ("hidden_act",), "x"),
        ("config.json", ("dtype",), "nn"),
        ("config.json", ("model_type",), 5),
        ("config.json", ("initializer_range",), -1.0),
        ("tokenizer_config.json", ("model_max_length",), 2),
        ("tokenizer.json", ("model", "vocab"), {}),
        ("tokenizer.json", ("model", "type"), 5),
    ],
    ids=str,
)
def test_damaged_encoder_is_refused(tmp_path, quick_recipe, file, path, value):
    folder = tmp_path / "encoder"
    AutoModel.from_config(build_config("bert")).save_pretrained(folder)
    build_tokenizer("wordpiece").save_pretrained(folder)
    start(folder, quick_recipe)
    change(folder / file, *path, value=value)
    began = time.monotonic()
    with pytest.raises(RecipeError, match=r"^(encoder: |max_length: )"):
        start(folder, quick_recipe)
    assert time.monotonic() - began < 5.0


def test_encoder_without_a_tokenizer_is_refused(tmp_path, quick_recipe):
    AutoModel.from_config(build_config("bert")).save_pretrained(tmp_path)
    with pytest.raises(RecipeError, match="the tokenizer has 5 entries, and the embedding of the encoder has 500 rows"):
        start(tmp_path, quick_recipe)


# The context


@pytest.mark.parametrize(
    "error",
    [
        KeyError("x"),
        TypeError("x"),
        AttributeError("x"),
        RecursionError("x"),
        ZeroDivisionError("x"),
        OverflowError("x"),
        MemoryError("x"),
        AssertionError("x"),
        EOFError("x"),
        struct.error("x"),
        SafetensorError("x"),
        pickle.UnpicklingError("x"),
        Exception("x"),
    ],
    ids=repr,
)
def test_errors_of_the_libraries_become_one_line(error):
    with (
        pytest.raises(ModelError, match=r"^runs/ewt(?: cannot be loaded)?: ") as raised,
        Loading(ModelError, "runs/ewt"),
    ):
        raise error
    assert raised.value.__cause__ is error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), StopIteration(), MtlNlpError("own")], ids=repr)
def test_other_errors_pass(error):
    with pytest.raises(type(error)) as raised, Loading(ModelError, "runs/ewt"):
        raise error
    assert raised.value is error


def test_model_as_large_as_its_file_is_accepted(folder):
    check_size(load_config(str(folder)), str(folder))


def test_files_of_all_encoders_are_found(encoder_folder: Callable[[str], str]):
    for family in ("albert", "deberta-v2", "distilbert"):
        check_size(build_config(family), encoder_folder(family))
        with pytest.raises(ValueError, match=r"more weights than model\.safetensors"):
            check_size(build_config(family, vocab_size=10**7), encoder_folder(family))
