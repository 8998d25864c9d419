"""Checks of the files of a model or an encoder from outside, before transformers reads them."""

from __future__ import annotations

import contextlib
import json
import struct
import threading
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from pickle import UnpicklingError
from types import TracebackType
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from huggingface_hub.utils import httpx
from safetensors import SafetensorError, safe_open
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from transformers import AutoModel, PreTrainedConfig
from transformers.utils import (
    CONFIG_NAME,
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    WEIGHTS_INDEX_NAME,
    WEIGHTS_NAME,
    cached_file,
)

from mtl_nlp.errors import MtlNlpError
from mtl_nlp.hub.advice import load_advice
from mtl_nlp.modeling.checks_multitask import check_values
from mtl_nlp.modeling.configuration_multitask import MultitaskConfig
from mtl_nlp.modeling.modeling_multitask import MultitaskModel

TOKENIZER_NAME = "tokenizer.json"
TOKENIZER_CONFIG_NAME = "tokenizer_config.json"

_MAX_BYTES = {CONFIG_NAME: 8_000_000}
"""The largest size of a JSON file. transformers copies a configuration many times, a tokenizer only once."""
_MAX_BYTES_OF_OTHERS = 200_000_000
_MAX_TOKEN_ID = 10_000_000
_HUB_OPTIONS = {"revision", "cache_dir"}
_DAMAGE = (
    OSError,
    ValueError,
    UnpicklingError,
    httpx.HTTPError,
    SafetensorError,
    StrictDataclassError,
    # transformers and torch do not check most values of a file before they use the values.
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    struct.error,
)
"""Errors that the libraries raise when they read a damaged file."""
_SELF_EXPLAINED = (OSError, ValueError, ImportError, httpx.HTTPError)


class Loading(contextlib.AbstractContextManager):
    """A context that turns the errors of the libraries on damaged files into an error for users.

    Only the calls that read a folder or repository from outside belong into the context.

    Args:
        error: the class of the error for users.
        what: the start of the message, such as `runs/ewt`.
        failure: the middle of the message.
    """

    def __init__(self, error: type[MtlNlpError], what: str, failure: str = "cannot be loaded") -> None:
        self._error = error
        self._what = what
        self._failure = failure

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, MtlNlpError):
            return
        # The tokenizers library raises objects of the class Exception itself, or of a class that cannot be imported.
        is_of_tokenizers = kind is Exception or type(error).__name__ == "PanicException"
        if is_of_tokenizers or isinstance(error, _DAMAGE):
            raise self._error(f"{self._what}{self._describe(error)}") from error

    def _describe(self, error: BaseException) -> str:
        reason = load_advice(error)
        if isinstance(error, SafetensorError):
            return f": the weights file is damaged or truncated ({reason}). Copy or train the model again."
        if isinstance(error, UnpicklingError):
            return (
                ": the weights file is a pickle with objects other than weights, which could run code. Save the model "
                "as safetensors."
            )
        if not isinstance(error, _SELF_EXPLAINED):
            reason = f"a file or an argument is not valid ({type(error).__name__}: {reason})"
        return f" {self._failure}: {reason}"


def check_config_file(folder: str, **kwargs: Any) -> None:
    """Check the `config.json` of a model or an encoder: its form, and the size of its numbers.

    Here and in `check_tokenizer_files`, a missing file is not reported, since `from_pretrained` reports the file.

    Args:
        folder: the folder or Hub id.
        **kwargs: arguments of `from_pretrained`, of which `revision` and `cache_dir` are used.

    Raises:
        ValueError: if the file is not valid.
    """
    check_values(read_object(folder, CONFIG_NAME, **kwargs))


def check_tokenizer_files(folder: str, **kwargs: Any) -> None:
    """Check the JSON files of a tokenizer: their form, and the values that transformers uses without a check.

    Args:
        folder: the folder or Hub id.
        **kwargs: arguments of `from_pretrained`, of which `revision` and `cache_dir` are used.

    Raises:
        ValueError: if a file is not valid.
    """
    _check_tokenizer_config(read_object(folder, TOKENIZER_CONFIG_NAME, **kwargs))
    tokenizer = read_object(folder, TOKENIZER_NAME, **kwargs)
    _check_token_ids(tokenizer)
    _check_template(tokenizer.get("post_processor"))


def check_size(config: PreTrainedConfig, folder: str, **kwargs: Any) -> None:
    """Check that a model is not larger than the files of its weights, without memory for the weights.

    Args:
        config: the configuration of a multitask model or an encoder.
        folder: the folder or Hub id.
        **kwargs: arguments of `from_pretrained`, of which `revision` and `cache_dir` are used.

    Raises:
        ValueError: if the model has more weights than the files can contain, or the index of the files is not valid.
        SafetensorError: if a file is damaged or truncated.
    """
    files = _weights_files(folder, kwargs)
    if not files:
        return
    for file in files:
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt"):  # checks the header and the size of the file
                pass
    limit = 2 * sum(file.stat().st_size for file in files)  # a weight has at least 4 bits
    too_large = ValueError(
        f"{CONFIG_NAME} describes a model with more weights than {files[0].name} contains. Copy or train the model "
        f"again."
    )
    thread, count = threading.get_ident(), 0

    def add(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal count
        if parameter is not None and threading.get_ident() == thread:
            count += parameter.numel()
            if count > limit:
                raise too_large

    is_multitask = isinstance(config, MultitaskConfig)
    # The hook ends the construction of a model with too many layers at once.
    hook = register_module_parameter_registration_hook(add)
    try:
        with torch.device("meta"):
            AutoModel.from_config(config.text_config if is_multitask else config)
    finally:
        hook.remove()
    if is_multitask:
        with torch.device("meta"):
            model = MultitaskModel(config)
        if sum(parameter.numel() for parameter in model.parameters()) > limit:
            raise too_large


def _find(folder: str, name: str, kwargs: Mapping[str, Any]) -> Path | None:
    """Return the path of a file in a folder or repository, or None if the file cannot be found."""
    if Path(folder).is_dir():
        file = Path(folder) / name
        return file if file.is_file() else None
    try:
        file = cached_file(folder, name, **{key: kwargs[key] for key in kwargs.keys() & _HUB_OPTIONS})
    except OSError:  # from_pretrained reports the reason
        return None
    return None if file is None else Path(file)


def read_object(folder: str, name: str, **kwargs: Any) -> dict[str, Any]:
    """Read a JSON file of a model or an encoder.

    Args:
        folder: the folder or Hub id.
        name: the name of the file.
        **kwargs: arguments of `from_pretrained`, of which `revision` and `cache_dir` are used.

    Returns:
        The content of the file; an empty dict if there is no file.

    Raises:
        ValueError: if the file is too large, or does not hold a JSON object.
    """
    file = _find(folder, name, kwargs)
    if file is None:
        return {}
    size, limit = file.stat().st_size, _MAX_BYTES.get(name, _MAX_BYTES_OF_OTHERS)
    if size > limit:
        raise ValueError(f"{name} should have at most {limit:,} bytes. Found {size:,}.")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError(f"{name} is nested too deeply.") from error
    except ValueError as error:
        raise ValueError(f"{name} is not valid JSON ({error}).") from error
    if not isinstance(content, dict):
        raise ValueError(f"{name} should be an object. Found {content!r:.80}.")
    return content


def _weights_files(folder: str, kwargs: Mapping[str, Any]) -> list[Path]:
    """Return the files with the weights; an empty list if there are none."""
    for name, index_name in ((SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME), (WEIGHTS_NAME, WEIGHTS_INDEX_NAME)):
        if (file := _find(folder, name, kwargs)) is not None:
            return [file]
        if index := read_object(folder, index_name, **kwargs):
            shards = _shard_names(index_name, index)
            files = [(shard, _find(folder, shard, kwargs)) for shard in shards]
            if missing := [shard for shard, file in files if file is None]:
                raise ValueError(f"{index_name} names {missing[0]!r:.80}, which does not exist.")
            return [file for _, file in files if file is not None]
    return []


def _shard_names(index_name: str, index: Mapping[str, Any]) -> list[str]:
    """Return the names of the files in the index of a model's weights."""
    weights = index.get("weight_map")
    if not isinstance(weights, dict) or not weights:
        raise ValueError(f"{index_name}: `weight_map` should be an object with the file of each weight.")
    for shard in weights.values():
        if not isinstance(shard, str) or PurePosixPath(shard).name != shard or "\\" in shard:
            raise ValueError(f"{index_name} should name files in the folder of the model. Found {shard!r:.80}.")
    if not isinstance(index.get("metadata", {}), dict):
        raise ValueError(f"{index_name}: `metadata` should be an object. Found {index['metadata']!r:.80}.")
    return sorted(set(weights.values()))


def _check_tokenizer_config(config: Mapping[str, Any]) -> None:
    """Check the values of a `tokenizer_config.json` that transformers uses without a check."""
    limit = config.get("model_max_length")
    names = config.get("model_input_names")
    for key, valid, rule in (
        ("model_max_length", limit is None or _is_number(limit, 1), "a number of at least 1"),
        (
            "model_input_names",
            names is None or _are_names_of_inputs(names),
            "a list of strings that starts with `input_ids`",
        ),
        ("padding_side", config.get("padding_side") in {None, "left", "right"}, "left or right"),
        ("truncation_side", config.get("truncation_side") in {None, "left", "right"}, "left or right"),
    ):
        if not valid:
            raise ValueError(f"{TOKENIZER_CONFIG_NAME}: `{key}` should be {rule}. Found {config[key]!r:.80}.")


def _check_token_ids(tokenizer: Mapping[str, Any]) -> None:
    """Check that the ids of a `tokenizer.json` are small. The tokenizers library reserves memory up to the largest."""
    model = tokenizer.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    ids = list(vocabulary.values()) if isinstance(vocabulary, dict) else []
    added = tokenizer.get("added_tokens")
    ids += [token.get("id") for token in added if isinstance(token, dict)] if isinstance(added, list) else []
    for number in ids:
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= _MAX_TOKEN_ID:
            raise ValueError(
                f"{TOKENIZER_NAME}: the id of a token should be an integer from 0 to {_MAX_TOKEN_ID:,}. Found "
                f"{number!r:.80}."
            )


def _check_template(processor: Any) -> None:
    """Check that templates name only their own special tokens. The tokenizers library panics at others."""
    if not isinstance(processor, dict):
        return
    steps = processor.get("processors")
    for step in steps if isinstance(steps, list) else ():
        _check_template(step)
    special = processor.get("special_tokens")
    if not isinstance(special, dict):
        return
    for key in ("single", "pair"):
        template = processor.get(key)
        for piece in template if isinstance(template, list) else ():
            token = piece.get("SpecialToken") if isinstance(piece, dict) else None
            name = token.get("id") if isinstance(token, dict) else None
            if isinstance(name, str) and name not in special:
                raise ValueError(f"{TOKENIZER_NAME}: the template names {name!r:.80}, which is not a special token.")


def _is_number(value: Any, least: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= least


def _are_names_of_inputs(value: Any) -> bool:
    # transformers pads the first input, and the other inputs to its length.
    return isinstance(value, list) and value[:1] == ["input_ids"] and all(isinstance(name, str) for name in value)
