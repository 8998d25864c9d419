"""Loading of tokenizers such that words are aligned with sub-words correctly."""

from __future__ import annotations

from typing import Any

from tokenizers import pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase


def load_tokenizer(encoder: str, *, reads_words: bool, **kwargs: Any) -> PreTrainedTokenizerBase:
    """Load an encoder's fast tokenizer.

    A byte-level BPE tokenizer (RoBERTa, …) marks the start of a word by the space before the word. For texts given as
    words, the tokenizer must add this space (`add_prefix_space`). Otherwise it reads every word as the continuation of
    the previous word, without an error.

    Args:
        encoder: a Hub id or folder of an encoder.
        reads_words: whether texts are given as words.
        **kwargs: further arguments of `AutoTokenizer.from_pretrained`. Without `trust_remote_code`, a tokenizer that
            needs code of its own is refused.

    Raises:
        ValueError: if the encoder has no fast tokenizer, which the alignment needs.
    """
    kwargs = {"trust_remote_code": False, **kwargs}  # by default transformers would ask the user
    tokenizer = AutoTokenizer.from_pretrained(encoder, **kwargs)
    if not tokenizer.is_fast:
        raise ValueError(
            f"The tokenizer of {encoder} should be a fast tokenizer, which the alignment of words needs. "
            f"Found {type(tokenizer).__name__}. Choose an encoder with a fast tokenizer."
        )
    if reads_words and _steps_without_prefix_space(tokenizer):
        tokenizer = AutoTokenizer.from_pretrained(encoder, add_prefix_space=True, **kwargs)
        # Model-specific classes (RoBERTa's) use the argument; the generic class (ModernBERT's) uses only its file.
        for step in _steps_without_prefix_space(tokenizer):
            step.add_prefix_space = True
    if tokenizer.pad_token is None and tokenizer.eos_token is not None:  # decoders; no position reads the padding
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _steps_without_prefix_space(tokenizer: PreTrainedTokenizerBase) -> list[pre_tokenizers.ByteLevel]:
    whole = tokenizer.backend_tokenizer.pre_tokenizer
    steps = list(whole) if isinstance(whole, pre_tokenizers.Sequence) else [whole]  # type: ignore[call-overload]
    return [step for step in steps if isinstance(step, pre_tokenizers.ByteLevel) and not step.add_prefix_space]
