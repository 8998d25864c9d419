"""Parts of one-line messages."""

from __future__ import annotations

import json

from mtl_nlp.errors import MtlNlpError
from mtl_nlp.messages import (
    Shown,
    conceal,
    counted,
    did_you_mean,
    is_finite,
    json_text,
    one_line,
    remember_expanded,
    seconds_of,
    shortened,
)


def test_error_message_is_one_line_of_bounded_length():
    assert one_line(ValueError("first\n\n  second\tthird")) == "first second third"
    assert one_line(ValueError("word " * 1000)) == ("word " * 60)
    assert one_line(ValueError()) == ""


def test_a_value_is_shown_in_at_most_300_characters():
    assert shortened(["a", 1]) == "['a', 1]"
    assert shortened("a" * 298) == f"'{'a' * 298}'"
    assert shortened("a" * 299) == f"'{'a' * 298}…"


def test_nearest_name_is_shown_with_all_names_if_there_are_few():
    assert did_you_mean("tain", ["train", "test"]) == "Did you mean 'train'? Valid: test, train."
    assert did_you_mean("x", []) == "There are no valid names."
    assert "Valid" not in did_you_mean("x1", [f"x{number}" for number in range(20)])


def test_a_far_name_is_not_suggested():
    assert did_you_mean("zzz", ["train", "test"]) == "Valid: test, train."
    assert did_you_mean("zzz", ["train"]) == "Valid: train."
    assert did_you_mean("tain", ["train"]) == "Did you mean 'train'?"
    assert did_you_mean("zzz", [f"x{number}" for number in range(20)]) == "None of the 20 valid names is similar."


def test_values_from_the_environment_are_replaced_by_their_variable():
    remember_expanded("qqvalue-7", "${A}")
    remember_expanded("qqvalue-7/and-more", "${B}")
    remember_expanded("a 'quoted'\n\"value\"", "${C}")
    remember_expanded("short", "${D}")
    assert conceal("at qqvalue-7/x and qqvalue-7/and-more/x: short") == "at ${A}/x and ${B}/x: short"
    assert conceal(repr("a 'quoted'\n\"value\"")) == "'${C}'"
    assert one_line(ValueError("a 'quoted'\n\"value\" x")) == "${C} x"
    assert one_line(ValueError("x" * 298 + "qqvalue-7")) == "x" * 298 + "${"
    assert str(MtlNlpError("no file qqvalue-7/x")) == "no file ${A}/x"


def test_json_has_null_for_numbers_that_are_not_finite():
    nan, infinite = float("nan"), float("inf")
    content = {"a": [1.5, nan, (infinite, -infinite)], "b": {"c": nan, "d": "NaN"}, "e": 3, "é": None}
    text = json_text(content)
    assert json.loads(text) == {"a": [1.5, None, [None, None]], "b": {"c": None, "d": "NaN"}, "e": 3, "é": None}
    assert "é" in text
    assert json_text({"b": 1.0, "a": nan}, sort_keys=True) == '{"a": null, "b": 1.0}'
    assert [is_finite(value) for value in (1.0, 1, "nan", None, nan, -infinite)] == [True] * 4 + [False] * 2


def test_paths_from_the_environment_are_replaced_in_their_absolute_form_too(tmp_path):
    (tmp_path / "qqreal").mkdir()
    (tmp_path / "qqlink").symlink_to("qqreal")
    remember_expanded(f"{tmp_path}/x/..//qqlink/", "${DATA}")
    assert conceal(f"at {tmp_path}/qqlink and {tmp_path}/qqreal/y") == "at ${DATA} and ${DATA}/y"


class Sharp(Shown):
    def __repr__(self) -> str:
        return "<b> & 'c'"


def test_a_shown_object_is_escaped_in_a_notebook():
    assert Sharp()._repr_html_() == "<pre>&lt;b&gt; &amp; &#x27;c&#x27;</pre>"


def test_words_agree_with_their_number():
    assert [counted(n, "row has", "rows have") for n in (0, 1, 2)] == ["0 rows have", "1 row has", "2 rows have"]
    assert [counted(n, "step") for n in (1, 20)] == ["1 step", "20 steps"]


def test_times_are_read_in_seconds():
    assert [seconds_of(text) for text in ("90s", "1.5m", "2h")] == [90.0, 90.0, 7200.0]
    assert [seconds_of(text) for text in ("0s", "-1m", "5", "m", "1e3s", "9" * 5000 + "s")] == [None] * 6
