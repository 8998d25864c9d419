"""Splitting raw text into words, close to how English treebanks (Universal Dependencies EWT) do.

The rules, in order, at each position of the text:

1. URLs, e-mail addresses, @mentions, #hashtags and emoticons are one word, without sentence punctuation at their end.
2. Numbers keep their separators: `1,000.50`, `10:30`, `2/3`.
3. Abbreviations keep their period: `Mr.`, `e.g.`, `U.S.`, single initials such as `J.`.
4. Runs of letters and digits are words; apostrophes inside them stay, except for the clitics
   `n't 's 're 've 'll 'd 'm`, which are words of their own (`do n't`, `John 's`), as are the parts of `cannot`,
   `gonna`, `wanna`, `gotta`. Combining marks, zero-width joiners and variation selectors stay with their letter.
5. Repeated periods, hyphens, exclamation and question marks are one word (`...`, `--`, `?!`).
6. Every other character that is not white space is a word (so are Chinese, Japanese and Korean ideographs).
   Hyphenated words are split: `five - star`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_ABBREVIATIONS = (
    r"Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|Inc|Ltd|Co|Corp|No|vs|etc|approx|Dept|Gen|Col|Lt|Sgt|Capt|Rev|Hon|Gov|Sen|Rep|Ave|"
    r"Blvd|Rd|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sep|Sept|Oct|Nov|Dec|Mon|Tue|Wed|Thu|Fri|Sat|Sun"
)
_LETTER = r"[^\W_]"
_MARKS = r"[\u0300-\u036f\u0483-\u0489\u0591-\u05bd\u0610-\u061a\u064b-\u065f\u093a-\u094f\u200c\u200d\ufe0e\ufe0f]"
_IDEOGRAPH = r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]"
_EMOJI = r"[\U0001f1e6-\U0001faff\u2600-\u27bf]"
_WORD = re.compile(
    "|".join(
        (
            r"(?:https?://|www\.)[^\s<>\"]*[^\s<>\".,;:!?')\]}]",
            r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+",
            r"(?:[\w-]+\.)+(?:com|org|net|edu|gov|io|co\.uk)(?:/[^\s<>\"]*[^\s<>\".,;:!?')\]}])?\b",
            r"[@#]\w+",
            r"[:;=8][-^']?[)(\]\[DPpOo/\\|*](?!\w)|<3",
            r"\d+(?:[.,:/]\d+)*",
            rf"(?:{_ABBREVIATIONS})\.(?=\s)|(?:[eE]\.g|[iI]\.e|[aApP]\.m)\.|(?:[A-Z]\.){{2,}}|\b[A-Z]\.(?=\s+[A-Z])",
            rf"{_EMOJI}(?:{_MARKS}*{_EMOJI})*{_MARKS}*",
            _IDEOGRAPH,
            rf"(?:(?!{_IDEOGRAPH}){_LETTER}{_MARKS}*|_)+(?:['’](?:(?!{_IDEOGRAPH}){_LETTER}{_MARKS}*)+)*",
            r"['’](?:s|re|ve|ll|d|m)\b",
            r"\.{2,}|-{2,}|[!?]{2,}",
            r"\S",
        )
    )
)
_CLITICS = re.compile(r"(?i)(?P<stem>.+?)(?P<clitic>n['’]t|['’](?:s|re|ve|ll|d|m))$")
_CONTRACTIONS = {"cannot": 3, "gonna": 3, "wanna": 3, "gotta": 3}


class Word(NamedTuple):
    """A word and where it stands: `text[start:end] == word`."""

    text: str
    start: int
    end: int


def split_words(text: str) -> list[Word]:
    """Split a raw text into words by the rules in this module's docstring.

    Returns:
        The words in order, with character offsets into `text`. Joined, they are the text without its white space.
    """
    words: list[Word] = []
    for match in _WORD.finditer(text):
        word, start = match.group(), match.start()
        cut = _CONTRACTIONS.get(word.lower(), 0)
        clitic = _CLITICS.match(word)
        if clitic:
            cut = clitic.start("clitic")
        pieces = [(0, cut), (cut, len(word))] if cut else [(0, len(word))]
        words += [Word(word[a:b], start + a, start + b) for a, b in pieces]
    return words
