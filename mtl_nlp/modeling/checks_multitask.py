"""Checks of the values in a `config.json`, and of a tokenizer against an encoder. Both may come from anywhere."""

from __future__ import annotations

import math
from typing import Any

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from .windows_multitask import default_max_length

_MAX_DEPTH = 20
_MAX_NUMBER = 1_000_000_000
_MAX_LAYERS = 1_000
_MAX_LABELS = 1_000_000
_DTYPE_KEYS = {"dtype", "torch_dtype"}
_DTYPES = ("float16", "bfloat16", "float32", "float64")
_PLAIN = (str, int, float, list, dict)
_INPUTS = {"input_ids", "attention_mask", "token_type_ids"}


def check_values(values: Any, name: str = "config.json") -> None:
    """Check that plain data have finite numbers of a plausible size, before code reserves memory for these numbers.

    Args:
        values: the content of a `config.json`. Objects that are not plain data are not checked.
        name: the name of the content, for the message.

    Raises:
        ValueError: if a number is not finite or too large, or the content is nested too deeply.
    """
    open_values: list[tuple[str, Any, int]] = [(name, values, 0)]  # a recursive function would fail at a large depth
    while open_values:
        path, value, depth = open_values.pop()
        if depth > _MAX_DEPTH:
            raise ValueError(f"{path:.80} should be nested at most {_MAX_DEPTH} levels deep.")
        if path.rpartition(": ")[2] in _DTYPE_KEYS and isinstance(value, _PLAIN) and value not in _DTYPES:
            raise ValueError(f"{path} should be one of {', '.join(_DTYPES)}. Found {value!r:.80}.")
        if isinstance(value, dict):
            open_values += [(f"{path}: {key}"[:200], item, depth + 1) for key, item in value.items()]
        elif isinstance(value, list | tuple):
            open_values += [(path, item, depth + 1) for item in value]
        elif isinstance(value, int | float) and not isinstance(value, bool):
            _check_number(path, value)


def _check_number(path: str, value: float) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{path} should be finite. Found {value}.")
    key = path.rpartition(": ")[2]
    limit = _MAX_LAYERS if "layers" in key else _MAX_LABELS if key == "num_labels" else _MAX_NUMBER
    if isinstance(value, int) and abs(value) > limit:
        raise ValueError(f"{path} should be at most {limit:,}. Found {value:.3g}.")
    if value < 0 and (key.startswith(("num_", "n_")) or key.endswith("_size")):
        raise ValueError(f"{path} should not be negative. Found {value}.")


def check_tokenizer(
    tokenizer: PreTrainedTokenizerBase,
    text_config: PreTrainedConfig,
    max_length: int | None = None,
    stride: int | None = None,
) -> None:
    """Check that a tokenizer belongs to an encoder.

    A tokenizer without its vocabulary reads every word as the unknown token, and a different tokenizer's ids stand for
    other sub-words, both without an error.

    Args:
        tokenizer: the tokenizer.
        text_config: the encoder's configuration.
        max_length: the maximum number of sub-words per window, including special tokens; None for the encoder's limit.
        stride: the number of sub-words that neighbouring windows share; None for a part of the window.

    Raises:
        ValueError: if the vocabulary has fewer than half of the embedding's rows, or has more entries than the
            embedding has rows; if the tokenizer cannot pad or returns inputs that the encoder does not read; or if a
            window has no space for a sub-word or is not longer than `stride`.
    """
    encoder = text_config.to_dict()
    rows, types = encoder.get("vocab_size"), encoder.get("type_vocab_size")
    size = len(tokenizer)
    if rows is not None and not rows / 2 <= size <= rows:
        raise ValueError(
            f"the vocabulary of the tokenizer has {size} entries, and the embedding of the encoder has {rows} rows. "
            f"The vocabulary should have at most as many entries and at least half as many. Copy the tokenizer files "
            f"of the encoder again."
        )
    if tokenizer.pad_token is None:
        raise ValueError("the tokenizer should have a `pad_token`, since texts of a batch differ in length.")
    if tokenizer.model_input_names[:1] != ["input_ids"]:
        raise ValueError(
            f"the first input of the tokenizer should be `input_ids`. Found {tokenizer.model_input_names}."
        )
    # Words that no vocabulary has, and a pair, so that the unknown token and the template of a pair are read too.
    example = tokenizer(["a", "\u2603\u0f17"], ["b", "c"], padding=True)
    if unread := example.keys() - _INPUTS:
        raise ValueError(f"the tokenizer returns {', '.join(sorted(unread))}, which the encoder does not read.")
    if not {"input_ids", "attention_mask"} <= example.keys():
        raise ValueError("the tokenizer should return `input_ids` and `attention_mask`.")
    for key, limit in (("input_ids", rows), ("token_type_ids", types or None)):
        largest = max((value for row in example.get(key, []) for value in row), default=0)
        if limit is not None and largest >= limit:
            raise ValueError(f"the tokenizer returns {largest} in `{key}`. The encoder reads numbers below {limit}.")
    check_window(tokenizer, max_length or default_max_length(tokenizer, text_config), stride)


def check_window(tokenizer: PreTrainedTokenizerBase, max_length: int | None, stride: int | None) -> None:
    """Check that a window has space for a sub-word and is longer than the stride.

    Args:
        tokenizer: the tokenizer.
        max_length: the maximum number of sub-words per window, including special tokens; None for no limit.
        stride: the number of sub-words that neighbouring windows share; None for a part of the window.

    Raises:
        ValueError: if the window is too short.
    """
    if max_length is None:
        return
    capacity = max_length - tokenizer.num_special_tokens_to_add()
    if capacity < 1:
        raise ValueError(
            f"max_length: should be at least {max_length - capacity + 1}, for one sub-word and the special tokens. "
            f"Found {max_length}."
        )
    if stride is not None and stride >= capacity:
        raise ValueError(
            f"stride: should be below {capacity}, the number of sub-words per window without special tokens. "
            f"Found {stride}."
        )
