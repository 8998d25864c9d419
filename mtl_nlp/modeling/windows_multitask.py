"""Tokenization of words or texts to the encoder's input ids, alignment of words and sub-words, and windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from transformers import BatchEncoding, PreTrainedConfig, PreTrainedTokenizerBase

_UNLIMITED = 1_000_000
"""The bound from which `model_max_length` means no limit; tokenizers without a limit report about 1e30."""

_NUMBERED_FROM_PADDING = {
    "camembert",
    "data2vec-text",
    "ibert",
    "longformer",
    "mpnet",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
}
"""The model types whose positions are numbered from the padding id + 1."""


@dataclass
class Window:
    """One input of the encoder: a complete text, or one of the overlapping pieces of a long text.

    Attributes:
        input_ids: ids of sub-words and special tokens, shape (L,).
        token_type_ids: shape (L,), or None if the tokenizer does not return token types.
        words: indices of the text's words that belong to this window: their labels are predicted from it.
        positions: for each of these words, the position of its first sub-word in `input_ids`.
        lost: number of the text's sub-words that no window contains, counted in the first window.
    """

    input_ids: list[int]
    token_type_ids: list[int] | None = None
    words: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    lost: int = 0


def default_max_length(tokenizer: PreTrainedTokenizerBase, text_config: PreTrainedConfig | None = None) -> int | None:
    """Return the maximum number of sub-words per window, or None if neither tokenizer nor encoder sets a limit."""
    limits = [tokenizer.model_max_length] if tokenizer.model_max_length < _UNLIMITED else []
    if text_config is not None and (limit := encoder_max_length(text_config)) is not None:
        limits.append(limit)
    return min(limits, default=None)


def encoder_max_length(text_config: PreTrainedConfig) -> int | None:
    """Return the maximum number of sub-words that an encoder has positions for, or None if it has no limit.

    Encoders like RoBERTa number positions from the padding id + 1. Their limit is lower than `max_position_embeddings`
    by this number.
    """
    encoder = text_config.to_dict()
    positions = encoder.get(text_config.attribute_map.get("max_position_embeddings", "max_position_embeddings"))
    if positions is None or positions <= 0:
        return None
    return positions - (encoder["pad_token_id"] + 1 if encoder["model_type"] in _NUMBERED_FROM_PADDING else 0)


def added_tokens(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return the tokens that were added to a tokenizer, each of which is one word of a text, such as `[E1]`.

    The special tokens of the model itself (`[CLS]`, …) and tokens with white space are left out.
    """
    own = {
        tokenizer.pad_token,
        tokenizer.cls_token,
        tokenizer.sep_token,
        tokenizer.unk_token,
        tokenizer.mask_token,
        tokenizer.bos_token,
        tokenizer.eos_token,
    }
    return sorted(token for token in tokenizer.get_added_vocab().keys() - own if token.split() == [token])


def tokenize_texts(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    pairs: Sequence[str] | None = None,
    *,
    max_length: int | None = None,
) -> list[list[Window]]:
    """Encode each raw text, or pair of texts, as one window that is truncated to `max_length` sub-words.

    Raises:
        ValueError: if the special tokens alone are more than `max_length`.
    """
    encoding = tokenizer(list(texts), None if pairs is None else list(pairs), verbose=False)
    return [
        [_window(tokenizer, encoding, row, _truncated(tokenizer, encoding, row, max_length))]
        for row in range(len(texts))
    ]


def tokenize_words(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[Sequence[str]],
    pairs: Sequence[Sequence[str]] | None = None,
    *,
    max_length: int | None = None,
    stride: int | None = None,
) -> list[list[Window]]:
    """Encode texts that are split into words; long texts become overlapping windows.

    Every word of a text belongs to exactly one window: the window in which the word's shorter context, left or right,
    is longest. A word without sub-words (an empty or zero-width word) is read as the unknown token, so that every word
    has a position. A pair is truncated to one window, since the encoder must read both texts together; truncated words
    have no position.

    Args:
        tokenizer: a fast tokenizer.
        texts: the words of each text.
        pairs: the words of each second text, for tasks on pairs.
        max_length: maximum number of sub-words per window, including special tokens; None for no limit.
        stride: maximum number of sub-words that neighbouring windows share; a quarter of a window by default.

    Returns:
        The windows of each text, at least one per text.

    Raises:
        ValueError: if `stride` is negative or not below the capacity of a window without special tokens, if the special
            tokens alone are more than `max_length`, or if a word has no sub-words and the tokenizer has no unknown
            token.
    """
    sides = [[list(words) for words in side] for side in (texts, pairs) if side is not None]
    encoding = tokenizer(*sides, is_split_into_words=True, verbose=False)
    replaced = [_replace_silent_words(tokenizer, encoding, side, index) for index, side in enumerate(sides)]
    if any(replaced):
        encoding = tokenizer(*sides, is_split_into_words=True, verbose=False)
    encoded: list[list[Window]] = []
    for row in range(len(texts)):
        kept = _truncated(tokenizer, encoding, row, None if pairs is None else max_length)
        all_word_ids = window_word_ids(encoding, row)
        window, word_ids = _window(tokenizer, encoding, row, kept), [all_word_ids[position] for position in kept]
        if max_length is not None and len(window.input_ids) > max_length:
            encoded.append(_cut(window, word_ids, max_length, stride))
        else:
            _place_words(window, word_ids)
            encoded.append([window])
    return encoded


def window_word_ids(encoding: BatchEncoding, row: int, side: int = 0) -> list[int | None]:
    """Return the word index of each position of a row; None for special tokens and the other side of a pair.

    Args:
        encoding: the output of a fast tokenizer.
        row: the row of the encoding.
        side: 0 for the first text of a pair, or the only text; 1 for the second text.
    """
    sequences = encoding.sequence_ids(row)
    return [
        word if sequence == side else None for word, sequence in zip(encoding.word_ids(row), sequences, strict=True)
    ]


def _replace_silent_words(
    tokenizer: PreTrainedTokenizerBase, encoding: BatchEncoding, texts: list[list[str]], side: int
) -> bool:
    """Replace words without sub-words with the unknown token in `texts`, and return whether there are such words."""
    found = False
    for row, words in enumerate(texts):
        silent = set(range(len(words))) - set(window_word_ids(encoding, row, side))
        if silent and tokenizer.unk_token is None:
            raise ValueError(
                f"The word {words[min(silent)]!r} has no sub-words, and the tokenizer has no unknown token. "
                "Set `unk_token`, or remove the word."
            )
        for index in silent:
            words[index] = tokenizer.unk_token
            found = True
    return found


def _window(tokenizer: PreTrainedTokenizerBase, encoding: BatchEncoding, row: int, kept: Sequence[int]) -> Window:
    """Return the window of the given positions of a row, without words.

    A tokenizer without special tokens (GPT-2) has no sub-word for an empty text, which is read as one padding token.
    """
    input_ids, type_ids = encoding["input_ids"][row], encoding.get("token_type_ids")
    return Window(
        [input_ids[position] for position in kept] or [tokenizer.pad_token_id],
        None if type_ids is None else [type_ids[row][position] for position in kept] or [0],
        lost=len(input_ids) - len(kept),
    )


def _truncated(
    tokenizer: PreTrainedTokenizerBase, encoding: BatchEncoding, row: int, max_length: int | None
) -> Sequence[int]:
    """Return the positions of a row that remain after truncation to `max_length`, in order.

    These are the positions that the tokenizer keeps with `truncation="longest_first"`. The tokenizer itself is not
    used, since it also returns each combination of a truncated piece of the first text with one of the second, so that
    time and memory grow with the product of both lengths.

    Raises:
        ValueError: if the special tokens alone are more than `max_length`.
    """
    length = len(encoding["input_ids"][row])
    if max_length is None or length <= max_length:
        return range(length)
    sequences = encoding.sequence_ids(row)
    sides = [[position for position, sequence in enumerate(sequences) if sequence == side] for side in (0, 1)]
    capacity = max_length - sequences.count(None)
    if capacity < 0:
        raise ValueError(
            f"`max_length` should be at least {sequences.count(None)}, the number of special tokens of this input. "
            f"Found {max_length}."
        )
    sizes = _truncated_sizes(len(sides[0]), len(sides[1]), capacity)
    kept = [position for position, sequence in enumerate(sequences) if sequence is None]
    for side, size in zip(sides, sizes, strict=True):
        kept += side[len(side) - size :] if tokenizer.truncation_side == "left" else side[:size]
    return sorted(kept)


def _truncated_sizes(first: int, second: int, capacity: int) -> tuple[int, int]:
    """Return the numbers of sub-words that two texts keep, where the longer text loses sub-words first.

    Args:
        first: the number of sub-words of the first text.
        second: the number of sub-words of the second text; 0 for a single text.
        capacity: the number of sub-words to keep, smaller than the sum of both.
    """
    shorter = min(first, second, capacity // 2)
    return (shorter, capacity - shorter) if first <= second else (capacity - shorter, shorter)


def _place_words(window: Window, word_ids: Sequence[int | None]) -> None:
    """Add to the window every word whose first sub-word is in it."""
    previous = None
    for position, word in enumerate(word_ids):
        if word is not None and word != previous:
            window.words.append(word)
            window.positions.append(position)
        previous = word


def _cut(whole: Window, word_ids: Sequence[int | None], max_length: int, stride: int | None) -> list[Window]:
    """Cut a long text at word borders into overlapping windows, and assign each word to one window."""
    inside = [position for position, word in enumerate(word_ids) if word is not None]
    prefix, suffix = whole.input_ids[: inside[0]], whole.input_ids[inside[-1] + 1 :]
    capacity = max_length - len(prefix) - len(suffix)
    stride = capacity // 4 if stride is None else stride
    if not 0 <= stride < capacity:
        raise ValueError(
            f"`stride` should be at least 0 and below {capacity} (max_length {max_length}). Found {stride}."
        )
    pieces: list[list[int]] = []
    for position in inside:
        if not pieces or word_ids[position] != word_ids[position - 1]:
            pieces.append([])
        pieces[-1].append(whole.input_ids[position])
    lost = sum(max(len(piece) - capacity, 0) for piece in pieces)
    pieces = [piece[:capacity] for piece in pieces]
    borders = _window_borders([len(piece) for piece in pieces], capacity, stride)
    owners = _owners([len(piece) for piece in pieces], borders)
    windows = []
    for index, (first, last) in enumerate(borders):
        window = Window(list(prefix), lost=lost if index == 0 else 0)
        for word in range(first, last):
            if owners[word] == index:
                window.words.append(word)
                window.positions.append(len(window.input_ids))
            window.input_ids += pieces[word]
        window.input_ids += suffix
        if whole.token_type_ids is not None:
            window.token_type_ids = whole.token_type_ids[: len(window.input_ids)]
        windows.append(window)
    return windows


def _window_borders(sizes: Sequence[int], capacity: int, stride: int) -> list[tuple[int, int]]:
    """Return (first word, last word + 1) of each window.

    A window contains as many words as fit, and shares up to `stride` sub-words with the previous window.
    """
    borders = []
    first = 0
    while True:
        last, used = first, 0
        while last < len(sizes) and used + sizes[last] <= capacity:
            used += sizes[last]
            last += 1
        borders.append((first, last))
        if last == len(sizes):
            return borders
        following, shared = last, 0
        while following - 1 > first and shared + sizes[following - 1] <= stride:
            following -= 1
            shared += sizes[following]
        # The next window must contain the word `last`, so a long word there leaves less space for shared context.
        while shared + sizes[last] > capacity:
            shared -= sizes[following]
            following += 1
        first = following


def _owners(sizes: Sequence[int], borders: Sequence[tuple[int, int]]) -> list[int]:
    """Return for each word the window in which the shorter of its left and right contexts is longest.

    Contexts are measured in sub-words. The start and end of the text count as unlimited context.
    """
    starts = [0]
    for size in sizes:
        starts.append(starts[-1] + size)
    end = starts[-1]
    owners, best = [-1] * len(sizes), [-1.0] * len(sizes)
    for index, (first, last) in enumerate(borders):
        for word in range(first, last):
            left = float("inf") if first == 0 else starts[word] - starts[first]
            right = float("inf") if starts[last] == end else starts[last] - starts[word + 1]
            if min(left, right) > best[word]:
                owners[word], best[word] = index, min(left, right)
    return owners
