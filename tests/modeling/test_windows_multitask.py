"""Tokenization: every word has a position, and the windows of a long text lose no word."""

import random
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from toys import TEXTS, build_config
from transformers import PreTrainedTokenizerFast

from mtl_nlp.modeling.windows_multitask import Window, default_max_length, tokenize_texts, tokenize_words

KINDS = ("wordpiece", "bpe", "unigram")
SPECIAL = {1, 2}  # [CLS], [SEP]
VOCABULARY = sorted({word for text in TEXTS for word in text.split()})
STRANGE = [
    "",
    "\u200b",
    "\ufe0f",
    "👩\u200d👩\u200d👧",
    "😀",
    "cafe\u0301",
    "\u0301",
    "नमस्ते",
    "שָׁלוֹם",
    "مرحبا",
    "漢字",
    "a\u200bb",
    "x" * 60,
]


@pytest.fixture(params=KINDS)
def tokenizer(request, tokenizers):
    return tokenizers[request.param]


def random_words(rng, count):
    return [rng.choice(STRANGE if rng.random() < 0.2 else VOCABULARY) for _ in range(count)]


def pieces_of(tokenizer, word):
    """Return the sub-words of a word, or the unknown token if it has none."""
    return tokenizer([[word]], is_split_into_words=True, add_special_tokens=False)["input_ids"][0] or [
        tokenizer.unk_token_id
    ]


def test_word_position_is_the_first_sub_word(tokenizer):
    rng = random.Random(0)
    for _ in range(60):
        words = random_words(rng, rng.randint(0, 12))
        ((window,),) = tokenize_words(tokenizer, [words])
        assert window.words == list(range(len(words)))
        ends = [*window.positions, len(window.input_ids) - 1][1:]
        for word, start, end in zip(words, window.positions, ends, strict=True):
            assert window.input_ids[start:end] == pieces_of(tokenizer, word)
        assert window.lost == 0


def test_sub_words_at_a_position_decode_to_the_word(tokenizer):
    words = TEXTS[0].split()
    ((window,),) = tokenize_words(tokenizer, [words])
    ends = [*window.positions, len(window.input_ids) - 1][1:]
    decoded = [tokenizer.decode(window.input_ids[a:b]).strip() for a, b in zip(window.positions, ends, strict=True)]
    assert [word.lower() for word in decoded] == [word.lower() for word in words]


def test_words_without_sub_words_are_read_as_unknown(tokenizers):
    ((window,),) = tokenize_words(tokenizers["wordpiece"], [["fox", "", "\u200b", "dog"]])
    assert window.words == [0, 1, 2, 3]
    assert [window.input_ids[position] for position in window.positions[1:3]] == [3, 3]


def test_words_without_sub_words_need_an_unknown_token(tokenizers):
    backend = tokenizers["wordpiece"].backend_tokenizer
    with pytest.raises(ValueError, match="The word '' has no sub-words, and the tokenizer has no unknown token"):
        tokenize_words(PreTrainedTokenizerFast(tokenizer_object=backend), [["fox", ""]])


def test_texts_of_a_batch_do_not_affect_each_other(tokenizer):
    rng = random.Random(1)
    texts = [random_words(rng, rng.randint(0, 30)) for _ in range(12)]
    together = tokenize_words(tokenizer, texts, max_length=24, stride=6)
    assert together == [tokenize_words(tokenizer, [text], max_length=24, stride=6)[0] for text in texts]


def window_spans(tokenizer, words, windows, capacity):
    """Return (start, end) of each window in the sub-words of the text, found from its ids."""
    sizes = [min(len(pieces_of(tokenizer, word)), capacity) for word in words]
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    ids = [piece for word, size in zip(words, sizes, strict=True) for piece in pieces_of(tokenizer, word)[:size]]
    spans = []
    for window in windows:
        start = starts[window.words[0]] - (window.positions[0] - 1) if window.words else None
        inside = window.input_ids[1:-1]
        if start is not None:
            assert ids[start : start + len(inside)] == inside
        spans.append(None if start is None else (start, start + len(inside)))
    return sizes, starts, len(ids), spans


def context(start, stop, span, end):
    """Return the smaller number of sub-words on a side of `start:stop`; negative outside the window."""
    left = float("inf") if span[0] == 0 <= start else start - span[0]
    right = float("inf") if span[1] == end >= stop else span[1] - stop
    return min(left, right)


def test_every_word_belongs_to_the_window_with_most_context(tokenizer):
    rng = random.Random(2)
    for _ in range(60):
        max_length = rng.randint(8, 24)
        capacity = max_length - 2
        stride = rng.choice([None, rng.randrange(capacity // 2 + 1)])
        words = random_words(rng, rng.randint(1, 60))
        (windows,) = tokenize_words(tokenizer, [words], max_length=max_length, stride=stride)
        assert [word for window in windows for word in window.words] == list(range(len(words)))
        for window in windows:
            assert len(window.input_ids) <= max_length
            assert (window.input_ids[0], window.input_ids[-1]) == (1, 2)
        sizes, starts, end, spans = window_spans(tokenizer, words, windows, capacity)
        assert sum(window.lost for window in windows) == sum(
            max(len(pieces_of(tokenizer, word)) - capacity, 0) for word in words
        )
        for window, own in zip(windows, spans, strict=True):
            for word in window.words:
                contexts = [context(starts[word], starts[word] + sizes[word], span, end) for span in spans if span]
                assert context(starts[word], starts[word] + sizes[word], own, end) == max(contexts) >= 0


def test_neighbouring_windows_overlap_by_the_stride(tokenizers):
    words = ["fox"] * 100
    (windows,) = tokenize_words(tokenizers["wordpiece"], [words], max_length=22, stride=8)
    assert [len(window.input_ids) for window in windows] == [22] * 7 + [18]
    assert [window.words[0] for window in windows] == [0, *range(16, 100, 12)]


def test_default_stride_is_a_quarter_of_the_window(tokenizers):
    (windows,) = tokenize_words(tokenizers["wordpiece"], [["fox"] * 100], max_length=22)
    assert windows == tokenize_words(tokenizers["wordpiece"], [["fox"] * 100], max_length=22, stride=5)[0]


@pytest.mark.parametrize(("count", "windows"), [(20, 1), (21, 2)])
def test_text_within_the_limit_is_one_window(tokenizers, count, windows):
    assert len(tokenize_words(tokenizers["wordpiece"], [["fox"] * count], max_length=22)[0]) == windows


def test_word_longer_than_a_window_is_cut_and_counted(tokenizers):
    (windows,) = tokenize_words(tokenizers["bpe"], [["fox", "x" * 500, "dog"]], max_length=12, stride=2)
    whole = len(tokenizers["bpe"]([["x" * 500]], is_split_into_words=True)["input_ids"][0]) - 2
    assert sum(window.lost for window in windows) == whole - 10
    assert sorted(word for window in windows for word in window.words) == [0, 1, 2]


@pytest.mark.parametrize("stride", [-1, 10, 99])
def test_stride_without_progress_is_refused(tokenizers, stride):
    message = rf"`stride` should be at least 0 and below 10 \(max_length 12\)\. Found {stride}\."
    with pytest.raises(ValueError, match=message):
        tokenize_words(tokenizers["wordpiece"], [["fox"] * 30], max_length=12, stride=stride)


@pytest.mark.parametrize(("first", "second"), [(40, 60), (3, 60), (60, 3), (3, 4), (0, 50)])
def test_pairs_are_one_window_and_truncated_words_have_no_position(tokenizer, first, second):
    words, others = (["fox", "lazy"] * 30)[:first], ["dog"] * second
    ((window,),) = tokenize_words(tokenizer, [words], [others], max_length=20)
    whole = tokenizer([words], [others], is_split_into_words=True)["input_ids"][0]
    border = window.input_ids.index(2)
    assert len(window.input_ids) == min(len(whole), 20)
    assert window.lost == len(whole) - len(window.input_ids)
    assert window.words == list(range(len(window.words)))
    assert len(window.words) == first or len(whole) > 20
    for word, position in zip(window.words, window.positions, strict=True):
        assert 0 < position < border
        assert window.input_ids[position] == pieces_of(tokenizer, words[word])[0]
    assert len(window.words) == first or border - window.positions[-1] <= len(pieces_of(tokenizer, words[-1]))


def test_token_types_distinguish_the_sides_of_a_pair(tokenizers):
    ((window,),) = tokenize_words(tokenizers["wordpiece"], [["fox"] * 3], [["dog"] * 4])
    assert window.token_type_ids == [0] * 5 + [1] * 5
    ((window,),) = tokenize_texts(tokenizers["wordpiece"], ["fox fox"], ["dog"])
    assert window.token_type_ids == [0] * 4 + [1] * 2
    (windows,) = tokenize_words(tokenizers["wordpiece"], [["fox"] * 50], max_length=12)
    assert all(window.token_type_ids == [0] * len(window.input_ids) for window in windows)
    ((window,),) = tokenize_words(tokenizers["bpe"], [["fox"]], [["dog"]])
    assert window.token_type_ids is None


def test_raw_texts_are_tokenized_unchanged_and_truncated(tokenizer):
    texts = [TEXTS[0], "", TEXTS[1] * 3]
    windows = [window for (window,) in tokenize_texts(tokenizer, texts, max_length=20)]
    expected = tokenizer(texts, truncation=True, max_length=20)["input_ids"]
    assert [window.input_ids for window in windows] == expected
    assert [window.lost for window in windows] == [max(len(ids) - 20, 0) for ids in tokenizer(texts)["input_ids"]]
    assert tokenize_texts(tokenizer, texts, max_length=20)[1] == [Window([1, 2], windows[1].token_type_ids)]


def test_empty_text_is_one_window_without_words(tokenizer):
    ((window,), (other,)) = tokenize_words(tokenizer, [[], ["fox"]], max_length=12)
    assert (window.input_ids, window.words, window.positions) == ([1, 2], [], [])
    assert other.words == [0]


@pytest.mark.parametrize(
    ("of_tokenizer", "of_encoder", "limit"),
    [(48, 512, 48), (512, 64, 64), (int(1e30), 64, 64), (48, None, 48), (int(1e30), None, None), (int(1e30), -1, None)],
)
def test_smaller_limit_of_tokenizer_and_encoder_applies(tokenizers, monkeypatch, of_tokenizer, of_encoder, limit):
    monkeypatch.setattr(tokenizers["bpe"], "model_max_length", of_tokenizer)
    config = None if of_encoder is None else build_config("bert", max_position_embeddings=of_encoder)
    assert default_max_length(tokenizers["bpe"], config) == limit


def test_roberta_reads_fewer_sub_words_than_it_has_positions(tokenizers, monkeypatch):
    monkeypatch.setattr(tokenizers["bpe"], "model_max_length", int(1e30))
    config = build_config("roberta", max_position_embeddings=514, pad_token_id=1)
    assert default_max_length(tokenizers["bpe"], config) == 512


# Truncation of long texts and pairs


def of_single_characters(kind: str) -> PreTrainedTokenizerFast:
    """Build a tokenizer of characters or bytes with the special tokens of RoBERTa, four for a pair."""
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet()) if kind == "bytes" else sorted(set("".join(TEXTS)))
    vocabulary = {piece: index for index, piece in enumerate([*special, *alphabet])}
    if kind == "bytes":
        tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    else:
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.RobertaProcessing(("[SEP]", 2), ("[CLS]", 1))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]")


@pytest.fixture(scope="module", params=[*KINDS, "bytes", "characters"])
def any_tokenizer(request, tokenizers):
    return tokenizers[request.param] if request.param in KINDS else of_single_characters(request.param)


def truncated_by_the_tokenizer(tokenizer, texts, pairs, max_length, **options):
    encoding = tokenizer(texts, pairs, truncation="longest_first", max_length=max_length, **options)
    return list(zip(encoding["input_ids"], encoding.get("token_type_ids", [None] * len(texts)), strict=True))


def found(windows):
    return [(window.input_ids, window.token_type_ids) for (window,) in windows]


SOME_WORDS = st.lists(st.sampled_from([*STRANGE, *VOCABULARY]) | st.text(max_size=8), max_size=40)
settings_of_a_fixture = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.parametrize("side", ["right", "left"])
@settings_of_a_fixture
@given(first=SOME_WORDS, second=st.none() | SOME_WORDS, max_length=st.integers(4, 64))
def test_truncation_is_the_longest_first_truncation_of_the_tokenizer(any_tokenizer, side, first, second, max_length):
    any_tokenizer.truncation_side = side
    one, two = [" ".join(first)], None if second is None else [" ".join(second)]
    expected = truncated_by_the_tokenizer(any_tokenizer, one, two, max_length)
    assert found(tokenize_texts(any_tokenizer, one, two, max_length=max_length)) == expected
    if second is not None:
        one, two = ([[word if word.strip() else "x" for word in words]] for words in (first, second))
        (windows,) = tokenize_words(any_tokenizer, one, two)
        expected = truncated_by_the_tokenizer(any_tokenizer, one, two, max_length, is_split_into_words=True)
        if len(windows[0].input_ids) == len(any_tokenizer(one, two, is_split_into_words=True)["input_ids"][0]):
            assert found(tokenize_words(any_tokenizer, one, two, max_length=max_length)) == expected
    any_tokenizer.truncation_side = "right"


def test_pairs_of_thousands_of_words_are_truncated_like_by_the_tokenizer(any_tokenizer):
    rng = random.Random(3)
    for counts in ((1500, 3), (3, 1500), (600, 600), (601, 600), (20, 700), (0, 900), (900, 0)):
        one, two = ([" ".join(rng.choice(VOCABULARY) for _ in range(count))] for count in counts)
        for max_length in (47, 48, 512):
            expected = truncated_by_the_tokenizer(any_tokenizer, one, two, max_length)
            windows = tokenize_texts(any_tokenizer, one, two, max_length=max_length)
            assert found(windows) == expected
            assert windows[0][0].lost == len(any_tokenizer(one, two)["input_ids"][0]) - len(expected[0][0])


@pytest.mark.parametrize("text", ["fox " * 50_000, "x" * 200_000, "\n" * 200_000, "漢" * 200_000])
def test_time_for_a_pair_of_long_texts_grows_linearly(any_tokenizer, text):
    def seconds(share: float) -> float:
        piece = text[: int(len(text) * share)]
        started = time.process_time()
        tokenize_texts(any_tokenizer, [piece], [piece], max_length=48)
        return time.process_time() - started

    seconds(0.1)
    # Ten times the text; a hundred times the time if the time grew with the square.
    assert min(seconds(1.0) for _ in range(2)) < 40 * max(min(seconds(0.1) for _ in range(3)), 0.005)


@pytest.mark.parametrize(("pairs", "special"), [(None, 2), (["dog"], 3)])
def test_limit_below_the_number_of_special_tokens_is_refused(tokenizers, pairs, special):
    ((window,),) = tokenize_texts(tokenizers["wordpiece"], ["fox"], pairs, max_length=special)
    assert window.input_ids == [1, *[2] * (special - 1)]
    with pytest.raises(ValueError, match=f"`max_length` should be at least {special}, the number of special tokens"):
        tokenize_texts(tokenizers["wordpiece"], ["fox"], pairs, max_length=special - 1)
