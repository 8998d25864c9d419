"""Splitting of raw text into words, similar to English treebanks (Universal Dependencies EWT).

The rules, in order, at each position of the text:

1. URLs, e-mail addresses, @mentions, #hashtags and emoticons are one word, without sentence punctuation at the end.
2. Numbers keep their separators and endings: `1,000.50`, `10:30`, `2/3`, `2021-03-04`, `555-0142`, `22nd`, `1990s`,
   `14C`. Units are separate words: `5 kg`, `10 am`.
3. Abbreviations keep their period: `Mr.`, `e.g.`, `U.S.`, `Ph.D.`, single initials such as `J.` (not the pronoun `I`).
4. Sequences of letters and digits are words, and keep apostrophes inside them, except that the clitics
   `n't 's 're 've 'll 'd 'm` are separate words (`do n't`, `John 's`). `cannot`, `gonna`, `wanna` and `gotta` are split
   in two. Combining marks, zero-width joiners and variation selectors stay with their letter. `AT&T` and `e-mail` are
   one word.
5. Repeated periods, repeated hyphens, and sequences of exclamation and question marks are one word (`...`, `--`,
   `?!`), and so are sequences of emoji.
6. Every other character except white space is a word, such as each Chinese or Japanese character. Hyphenated words
   are split: `five - star`.

The other scripts without spaces between words (Thai, Lao, Khmer, Burmese) are not split.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

_ABBREVIATIONS = (
    r"Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|Inc|Ltd|Co|Corp|No|vs|etc|approx|Dept|Gen|Col|Lt|Sgt|Capt|Rev|Hon|Gov|Sen|Rep|Ave|"
    r"Blvd|Rd|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sep|Sept|Oct|Nov|Dec|Mon|Tue|Wed|Thu|Fri|Sat|Sun"
)
_ADDRESS = r"[^\s<>\"]*[^\s<>\".,;:!?')\]}]"
_LETTER = r"[^\W_]"
# The combining marks of all scripts (accents, vowel signs, variation selectors), and the two zero-width joiners.
_MARKS = f"[{''.join(chr(c) for c in range(0x300, 0x1F000) if unicodedata.category(chr(c))[0] == 'M')}\u200c\u200d]"
# Kana, and the ideographs that BERT's tokenizers split into single characters.
_IDEOGRAPH = r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f]"
_EMOJI = r"[\U0001f1e6-\U0001faff\u2600-\u27bf]"
# Repetitions are bounded, as the parts of addresses are, so that no text takes quadratic time.
_WORD = re.compile(
    "|".join(
        (
            rf"(?:https?://|www\.){_ADDRESS}",
            r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+",
            rf"(?:[\w-]{{1,63}}\.){{1,8}}(?:(?:com|org|net|edu|gov|io|co\.uk)\b|[a-z]{{2,}}(?=/))(?:/(?:{_ADDRESS})?)?",
            r"[@#]\w+",
            r"(?<!\d)(?:[:;=][-^']?|8-)[)(\]\[DPpOo/\\|*](?!\w)|<3",
            r"\d{4}-\d\d-\d\d\b|(?:\d{3}-)?\d{3}-\d{4}\b|\d+(?:st|nd|rd|th|s|[A-Z])\b",
            rf"\d+(?:[.,:/]\d+)*{_MARKS}*",
            rf"(?:{_ABBREVIATIONS})\.(?=\s)",
            r"(?:[eE]\.g|[iI]\.e|[aApP]\.m)\.|(?:[A-Z]\.){2,}|Ph\.D\.|\b[A-HJ-Z]\.(?=\s+[A-Z])",
            rf"{_EMOJI}(?:{_MARKS}*{_EMOJI})*{_MARKS}*",
            _IDEOGRAPH,
            r"[A-Z]+&[A-Z]+\b|[eE]-[a-z]+",
            rf"(?:(?!{_IDEOGRAPH}){_LETTER}{_MARKS}*|_)+(?:['’](?:(?!{_IDEOGRAPH}){_LETTER}{_MARKS}*)+)*",
            r"['’](?:s|re|ve|ll|d|m|em|til|tis|cause)\b",
            r"\.{2,}|-{2,}|[!?]{2,}",
            r"\S",
        )
    )
)
_CLITICS = re.compile(r"(?i)(?P<stem>.+?)(?P<clitic>n['’]t|['’](?:s|re|ve|ll|d|m))$")
_CHUNK = re.compile(r"\S+")
_CAPITAL = re.compile(r"\s+[A-Z]")
_SHORT = 32
"""The length up to which the words of a text without white space are remembered."""
_CONTRACTIONS = {"cannot": 3, "gonna": 3, "wanna": 3, "gotta": 3}


class Word(NamedTuple):
    """A word with its character offsets, so that `text[start:end]` is the word."""

    text: str
    start: int
    end: int


def split_words(text: str, whole: Sequence[str] = ()) -> list[Word]:
    """Split a raw text into words by the rules in this module's docstring.

    Args:
        text: the text.
        whole: texts that are one word wherever a word can start, such as tokens that were added to a tokenizer. A text
            that begins or ends with a letter or digit does not cut a longer word.

    Returns:
        The words in order, with character offsets into `text`. The joined words are the text without white space.
    """
    kept = tuple(whole)
    if any(len(each.split()) != 1 for each in kept):
        return [Word(text[a:b], a, b) for a, b in _borders(text, kept)]
    words: list[Word] = []
    add = words.append
    for match in _CHUNK.finditer(text):
        chunk, start = match.group(), match.start()
        if chunk.isalpha() and chunk.isascii() and chunk.lower() not in _CONTRACTIONS and not kept:
            add(Word(chunk, start, start + len(chunk)))  # the most frequent case, without the other rules
            continue
        # Rules look beyond a chunk only for white space, and for a capital letter after it.
        following = text[match.end() : match.end() + 1] and (" A" if _CAPITAL.match(text, match.end()) else " a")
        borders = _short_borders if len(chunk) <= _SHORT else _borders
        for a, b in borders(chunk + following, kept):
            if a < len(chunk):
                add(Word(chunk[a:b], start + a, start + b))
    return words


def _borders(text: str, whole: tuple[str, ...]) -> list[tuple[int, int]]:
    """Return the start and end of each word of a text."""
    found: list[tuple[int, int]] = []
    for match in _pattern(whole).finditer(text):
        word, start = match.group(), match.start()
        cut = _CONTRACTIONS.get(word.lower(), 0)
        borders = [cut, len(word)] if cut else [len(word)]
        while len(borders) < 3 and (clitic := _CLITICS.match(word, 0, borders[0])):  # `shouldn't've` has two
            borders.insert(0, clitic.start("clitic"))
        if match.lastgroup == "whole":
            borders = [len(word)]
        found += [(start + a, start + b) for a, b in pairwise([0, *borders])]
    return found


_short_borders = lru_cache(maxsize=2**14)(_borders)


@lru_cache(maxsize=8)
def _pattern(whole: tuple[str, ...]) -> re.Pattern[str]:
    """Return the pattern of a word, with the given texts before all other rules."""
    if not whole:
        return _WORD
    kept = "|".join(_kept(each) for each in sorted(whole, key=len, reverse=True))
    return re.compile(f"(?P<whole>{kept})|{_WORD.pattern}")


def _kept(text: str) -> str:
    """Return the pattern of a text that does not cut a longer word."""
    start, end = (r"(?<!\w)" if re.match(r"\w", text) else ""), (r"(?!\w)" if re.search(r"\w$", text) else "")
    return f"{start}{re.escape(text)}{end}"
