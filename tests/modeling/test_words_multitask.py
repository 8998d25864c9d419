"""Word splitting: exact offsets, complete coverage, and the word borders of a treebank."""

import copy
import itertools
import random

import pytest
from toys import SAMPLE_CORPUS

from mtl_nlp.modeling.windows_multitask import added_tokens
from mtl_nlp.modeling.words_multitask import _borders, split_words


def spelled(text):
    return " ".join(word.text for word in split_words(text))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("I can't, won't, don't. CANNOT", "I ca n't , wo n't , do n't . CAN NOT"),
        ("I’d’ve shouldn't've gone", "I ’d ’ve should n't 've gone"),
        ("John's dogs' they're we'll I'm", "John 's dogs ' they 're we 'll I 'm"),
        ("gonna wanna gotta cannot", "gon na wan na got ta can not"),
        ("O'Brien said 'tis o'clock", "O'Brien said 'tis o'clock"),
        ("See https://a.b/c?d=e. (www.x.org/y/)", "See https://a.b/c?d=e . ( www.x.org/y/ )"),
        ("at google.com, or shop.example/r/88.", "at google.com , or shop.example/r/88 ."),
        ("Mail a.b+c@d-e.org, @ada #nlp!", "Mail a.b+c@d-e.org , @ada #nlp !"),
        ("1,000.50 at 10:30, 2/3, 50%", "1,000.50 at 10:30 , 2/3 , 50 %"),
        ("the 22nd, 1990s, seat 14C, 3D", "the 22nd , 1990s , seat 14C , 3D"),
        ("5kg at 10am on 2021-03-04", "5 kg at 10 am on 2021-03-04"),
        ("call 555-0142 or 713-853-7658", "call 555-0142 or 713-853-7658"),
        ("Mr. Smith, e.g. J. R. Tolkien, Ph.D.", "Mr. Smith , e.g. J. R. Tolkien , Ph.D."),
        ("The U.S. and 5 p.m. in Paris.", "The U.S. and 5 p.m. in Paris ."),
        ("You and I. Then we left.", "You and I . Then we left ."),
        ("fine :) sad :-( ;D :P <3 8-)", "fine :) sad :-( ;D :P <3 8-)"),
        ("(see page 8) 8:30", "( see page 8 ) 8:30"),
        ("a--b – c — d", "a -- b – c — d"),
        ("five-star e-mail and/or AT&T", "five - star e-mail and / or AT&T"),
        ("wow!!! what?! well...", "wow !!! what ?! well ..."),
        ("“quoted” (it)", "“ quoted ” ( it )"),
        ("abc漢字def ひらカナ", "abc 漢 字 def ひ ら カ ナ"),
        ("𠮷𠮷野家 兀兀", "𠮷 𠮷 野 家 兀 兀"),
        ("cafe\u0301 नमस्ते வணக்கம் ภาษาไทย", "cafe\u0301 नमस्ते வணக்கம் ภาษาไทย"),
        ("שלום, עולם", "שלום , עולם"),
        ("ok 👩‍👩‍👧👍🏽 ❤️!", "ok 👩‍👩‍👧👍🏽 ❤️ !"),
        ("snake_case a_1", "snake_case a_1"),
        (" \t\n", ""),
        ("", ""),
    ],
)
def test_words_follow_treebank_tokenization(text, words):
    assert spelled(text) == words


def test_added_tokens_stay_whole_unless_they_are_part_of_a_longer_word(tokenizers):
    tokenizer = copy.deepcopy(tokenizers["wordpiece"])
    assert added_tokens(tokenizer) == []
    tokenizer.add_tokens(["[E1]", "[E1] x", "covid", "can't", "<user>", "  "])
    tokenizer.add_special_tokens({"extra_special_tokens": ["<e>"]})
    whole = added_tokens(tokenizer)
    assert whole == ["<e>", "<user>", "[E1]", "can't", "covid"]
    text = "[E1]Lena[E1] can't tell <user>: covids, Covid or covid's <e>?"
    words = split_words(text, whole)
    assert (
        " ".join(word.text for word in words) == "[E1] Lena [E1] can't tell <user> : covids , Covid or covid 's <e> ?"
    )
    assert all(text[word.start : word.end] == word.text for word in words)
    assert "[ E1 ]" in spelled(text)


def test_offsets_are_exact_and_words_cover_the_text():
    rng = random.Random(0)
    alphabet = "aBé09 .,:;!?'’\"-_@#/()[]&$%\t\n漢か\u0301\u200b\u200d😀🏽שعन्\ud83d\u00a0"
    pieces = ["can't", "e.g.", "http://x.y", "a@b.co", ":)", "10:30", "U.S.", "n't", "www.", "'s"]
    for _ in range(1500):
        text = "".join(
            rng.choice(pieces) if rng.random() < 0.15 else rng.choice(alphabet) for _ in range(rng.randint(0, 30))
        )
        words = split_words(text)
        assert all(word.text and text[word.start : word.end] == word.text for word in words)
        assert all(one.end <= other.start for one, other in itertools.pairwise(words))
        assert "".join(word.text for word in words) == "".join(text.split())


@pytest.mark.parametrize(
    "piece", ["a.", "a-", "a'", "n't", "'s", "x@", "1,", "A&", "\u0301", "www.,", "a@a.a-", "😀", "z"]
)
@pytest.mark.timeout(10)
def test_no_text_takes_quadratic_time(piece):
    assert split_words(piece * 10_000)


def sample_sentences():
    for path in sorted(SAMPLE_CORPUS.glob("*/*.conll")):
        for sentence in path.read_text(encoding="utf-8").strip().split("\n\n"):
            lines = sentence.split("\n")
            (text,) = (line.removeprefix("# text = ") for line in lines if line.startswith("# text = "))
            yield text, [line.split("\t")[0] for line in lines if not line.startswith("# ")]


def test_sample_corpus_is_split_like_its_annotations():
    same = total = 0
    for text, tokens in sample_sentences():
        found, start = {(word.start, word.end) for word in split_words(text)}, 0
        for token in tokens:
            start = text.index(token, start)
            same += (start, start + len(token)) in found
            start += len(token)
        total += len(tokens)
    assert total > 10_000
    assert same / total >= 0.99


def test_parts_between_white_space_have_the_words_of_the_complete_text():
    rng = random.Random(0)
    parts = [
        "Mr",
        ".",
        "J",
        "a",
        "A",
        "é",
        "\u0301",
        "'s",
        "n't",
        "cannot",
        "1",
        ",",
        ":",
        ")",
        "8-)",
        "@",
        "://",
        "www.",
        "/",
    ]
    parts += [
        "http",
        "com",
        "e-mail",
        "U.S.",
        "\u4e00",
        "😀",
        "_",
        "-",
        "!",
        "[E1]",
        " ",
        " ",
        " ",
        "\n",
        "\u00a0",
        "\x1c",
    ]
    for whole in ((), ("[E1]", "Mr"), ("a A",)):
        for _ in range(1500):
            text = "".join(rng.choice(parts) for _ in range(rng.randrange(14)))
            assert [(start, end) for _, start, end in split_words(text, whole)] == _borders(text, whole)
            assert all(text[start:end] == word for word, start, end in split_words(text, whole))
