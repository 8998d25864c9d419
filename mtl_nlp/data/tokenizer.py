"""Loading the tokenizer so that words are aligned rightly."""

from __future__ import annotations

from typing import Any

from tokenizers import pre_tokenizers
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
    if reads_words and _steps_without_prefix_space(tokenizer):
        tokenizer = AutoTokenizer.from_pretrained(encoder, add_prefix_space=True, **kwargs)
        # Classes of their own (RoBERTa's) obey the argument; the generic one (ModernBERT's) reads its file alone.
        for step in _steps_without_prefix_space(tokenizer):
            step.add_prefix_space = True
    return tokenizer


def _steps_without_prefix_space(tokenizer: PreTrainedTokenizerBase) -> list[pre_tokenizers.ByteLevel]:
    whole = tokenizer.backend_tokenizer.pre_tokenizer
    steps = list(whole) if isinstance(whole, pre_tokenizers.Sequence) else [whole]  # type: ignore[call-overload]
    return [step for step in steps if isinstance(step, pre_tokenizers.ByteLevel) and not step.add_prefix_space]
