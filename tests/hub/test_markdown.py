"""Markdown in which names are plain text."""

from __future__ import annotations

import html

from mtl_nlp.hub.markdown import escape, table_of, table_of_escaped


def test_markup_is_escaped_and_names_stay_readable():
    assert escape("a_b c-d 1.5 (x)") == "a_b c-d 1.5 (x)"
    text = "<script> *b* [l](u) `c` | $x$ www.x.y @ada #1 _i_"
    assert not set("<>*[]`|$@") & set(escape(text))
    assert html.unescape(escape(text)) == text
    assert escape("two\n lines") == "two lines"


def test_a_table_has_equal_numbers_of_cells_whatever_the_names():
    lines = table_of(["a|b", "c"], [["x|y", "z"]]).splitlines()
    assert [line.count("|") for line in lines] == [3, 3, 3]
    assert table_of_escaped(["`a`"], [["b"]]) == "| `a` |\n| --- |\n| b |"
