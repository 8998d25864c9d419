"""Loading the tokenizer so that words are aligned rightly."""

from __future__ import annotations

import json
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase


def load_tokenizer(encoder: str, *, reads_words: bool, **kwargs: Any) -> PreTrainedTokenizerBase:
    """Load an encoder's fast tokenizer.

    A byte-level BPE tokenizer (RoBERTa, …) marks a word's beginning by the blank before it. For texts given as words
    it must be told to put that blank there, or it reads every word as the inside of another, and raises nothing.

    Args:
        encoder: a Hub id or folder.
        reads_words: whether texts are given as words.
        **kwargs: arguments of `AutoTokenizer.from_pretrained`.

    Raises:
        ValueError: if there is no fast tokenizer, which alignment needs.
    """
    tokenizer = AutoTokenizer.from_pretrained(encoder, **kwargs)
    if not tokenizer.is_fast:
        raise ValueError(f"The tokenizer of {encoder} is not a fast one, which the alignment of words needs.")
    if reads_words and _lacks_prefix_space(tokenizer):
        tokenizer = AutoTokenizer.from_pretrained(encoder, add_prefix_space=True, **kwargs)
    return tokenizer


def _lacks_prefix_space(tokenizer: PreTrainedTokenizerBase) -> bool:
    pre_tokenizer = json.loads(tokenizer.backend_tokenizer.to_str())["pre_tokenizer"] or {}
    steps = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    return any(step.get("type") == "ByteLevel" and not step.get("add_prefix_space", True) for step in steps)
