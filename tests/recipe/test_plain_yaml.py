from __future__ import annotations

import pytest
import yaml

from mtl_nlp.recipe.plain_yaml import Unquoted, as_yaml, dump_yaml, is_same, load_yaml, typed


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no: 1\non: 2\nYES: 3\n1: 4", {"no": 1, "on": 2, "YES": 3, 1: 4}),
        ("a: no\nb: on\nc: off\nd: yes", {"a": False, "b": True, "c": False, "d": True}),
        ("[1e-4, 2E+3, 1.5e-05, -1e-4, .5, 3., .inf]", [1e-4, 2e3, 1.5e-5, -1e-4, 0.5, 3.0, float("inf")]),
        ("[1e4, 12e4567]", ["1e4", "12e4567"]),  # a short hash of a revision may have this form
        ("[2_000, 0, -7, 0x1F, 0b11]", [2000, 0, -7, 31, 3]),
        (
            "[010, 007, 12:30, 1:30.5, 2026-11-26, 2026-02-31]",
            ["010", "007", "12:30", "1:30.5", "2026-11-26", "2026-02-31"],
        ),
        ("a: &x {r: 1, s: 2}\nb: &y {<<: *x, s: 3}\nc: {<<: [*y, *x], t: 4}", None),
        ("a: ~\nb: null\nc:", {"a": None, "b": None, "c": None}),
    ],
)
def test_yaml_is_read_without_its_surprises(text, value):
    if value is None:
        value = {"a": {"r": 1, "s": 2}, "b": {"r": 1, "s": 3}, "c": {"r": 1, "s": 3, "t": 4}}
    read = load_yaml(text)
    assert read == value
    assert load_yaml(dump_yaml(read)) == read
    assert repr(read) == repr(value)


@pytest.mark.parametrize(
    "text", ["a: 1\nb: 2\na: 3", "x: {y: 1, 'y': 2}", "a: 1\n<<: {b: 1}\nb: 2\nb: 3", "no: 1\n'no': 2"]
)
def test_a_key_that_is_given_twice_is_refused(text):
    with pytest.raises(yaml.YAMLError, match=r"the key `\w+` of line \d is given again"):
        load_yaml(text)


def test_a_variable_keeps_its_quotes_or_their_absence():
    text = 'a: ${X:-no}\nb: "${X:-no}"\nc: ${X}/y\n'
    read = load_yaml(text)
    assert [type(value) for value in read.values()] == [Unquoted, str, str]
    assert dump_yaml(read) == text


def test_texts_are_quoted_if_any_reader_could_take_them_for_something_else():
    texts = ["no", "1e-4", "010", "2026-11-26", "12:30", "1", "null"]
    assert load_yaml(dump_yaml(texts)) == yaml.safe_load(dump_yaml(texts)) == texts


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("false", False), ("on", True), ("42", 42), ("2.5", 2.5), ("1e-4", 1e-4), ("", None), ("null", None)),
        *(("007", "007"), ("2026-11-26", "2026-11-26"), ("[1]", "[1]"), ("a b", "a b"), (" 42\n", 42), ("0x_", "0x_")),
    ],
)
def test_a_value_is_typed_like_yaml_if_it_is_a_boolean_a_number_or_null(text, value):
    assert typed(text) == value
    assert type(typed(text)) is type(value)


def test_values_in_messages_are_those_of_yaml():
    shown = [as_yaml(value) for value in (True, False, None, "no", "a b", 3, 1e-05, ["a", False], {"r": 8, "x": None})]
    assert shown == ["true", "false", "null", "no", "a b", "3", "1e-05", "[a, false]", "{r: 8, x: null}"]
    assert as_yaml(False, "training.save_strategy") == "no"  # as YAML 1.1 reads an unquoted `no`
    assert is_same(False, "no", "training.save_strategy") and not is_same(False, "no", "training.bf16")
    assert is_same(None, None, "seed") and not is_same(None, False, "training.eval_strategy")
