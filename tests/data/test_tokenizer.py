from __future__ import annotations

import pytest
from tokenizers import pre_tokenizers
from transformers import CanineTokenizer, PreTrainedTokenizerFast

from mtl_nlp.data.tokenizer import load_tokenizer


@pytest.fixture
def without_prefix_space(tokenizers, tmp_path):
    """Write a byte-level BPE tokenizer that adds no space before the first word, like RoBERTa."""
    tokenizers["bpe"].save_pretrained(tmp_path)
    text = (tmp_path / "tokenizer.json").read_text()
    assert '"add_prefix_space": true' in text
    (tmp_path / "tokenizer.json").write_text(text.replace('"add_prefix_space": true', '"add_prefix_space": false'))
    return str(tmp_path)


def pieces(tokenizer: PreTrainedTokenizerFast, words: list[str]) -> list[list[str]]:
    encoding = tokenizer(words, is_split_into_words=True)
    return [
        [token for token, word in zip(encoding.tokens(), encoding.word_ids(), strict=True) if word == index]
        for index in range(len(words))
    ]


def test_byte_level_words_are_tokenized_equally_at_any_position(without_prefix_space):
    first, second = pieces(load_tokenizer(without_prefix_space, reads_words=True), ["river", "river"])
    assert first == second
    assert first[0].startswith("Ġ")


def test_plain_loading_reads_byte_level_words_without_a_prefix_space(without_prefix_space):
    first, second = pieces(PreTrainedTokenizerFast.from_pretrained(without_prefix_space), ["river", "river"])
    assert not first[0].startswith("Ġ")
    assert not second[0].startswith("Ġ")


def test_tokenizer_for_raw_texts_is_unchanged(without_prefix_space):
    tokenizer = load_tokenizer(without_prefix_space, reads_words=False)
    assert not tokenizer.tokenize("river")[0].startswith("Ġ")


def test_prefix_space_is_saved(without_prefix_space, tmp_path):
    load_tokenizer(without_prefix_space, reads_words=True).save_pretrained(tmp_path / "saved")
    first, second = pieces(load_tokenizer(str(tmp_path / "saved"), reads_words=True), ["river", "river"])
    assert first == second


def test_prefix_space_is_set_in_a_sequence_of_steps(without_prefix_space):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(without_prefix_space)
    steps = [pre_tokenizers.Digits(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.save_pretrained(without_prefix_space)
    (first,) = pieces(load_tokenizer(without_prefix_space, reads_words=True), ["river"])
    assert first[0].startswith("Ġ")


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram"])
def test_other_tokenizers_are_loaded_unchanged(tokenizers, tmp_path, kind):
    tokenizers[kind].save_pretrained(tmp_path)
    loaded = load_tokenizer(str(tmp_path), reads_words=True)
    words = ["river", "river", "Ada"]
    assert pieces(loaded, words) == pieces(tokenizers[kind], words)


def test_slow_tokenizer_is_refused(tmp_path):
    CanineTokenizer().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"should be a fast tokenizer.* Found \w+\. Choose an encoder"):
        load_tokenizer(str(tmp_path), reads_words=True)
