from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

import pytest

from mtl_nlp.run.argument_types import convert


class Strategy(StrEnum):
    NO = "no"


@pytest.mark.parametrize(
    ("value", "hint", "converted"),
    [
        ("2e-4", float, 2e-4),
        (3, float, 3),
        ("3", int | None, 3),
        (None, int | None, None),
        *(
            (text, bool, value)
            for text, value in (("yes", True), ("off", False), ("False", False), (1, True), (0, False))
        ),
        (None, bool | None, None),
        ("no", Strategy | str, "no"),
        (2026, str | None, "2026"),
        (["a"], str | list[str] | None, ["a"]),
        ({"a": 1}, dict | str | None, {"a": 1}),
        (True, str | bool, True),
        (False, str | None | Literal[False], False),
        (object, type | None, object),
    ],
)
def test_value_gets_the_type_of_its_field(value, hint, converted):
    found = convert(value, hint)
    assert found == converted
    assert type(found) is type(converted)


@pytest.mark.parametrize(
    ("value", "hint", "message"),
    [
        ("fast", float, "should be a number. Found 'fast'."),
        (True, float, "should be a number. Found True."),
        (1.5, int, "should be an integer. Found 1.5."),
        (None, int, "should be an integer. Found None."),
        ("maybe", bool, "should be true or false. Found 'maybe'."),
        (2, bool | None, "should be true or false. Found 2."),
        (None, bool, "should be true or false. Found None."),
        ([1], str | None, "should be a text. Found [1]."),
        (True, str | None, "should be a text. Found True."),
        ([1], str | list[str], "should be a text or a list of texts. Found [1]."),
        ("x", dict[str, bool] | None, "should be a section with keys and values. Found 'x'."),
        ([], dict[str, Any] | str | None, "should be a text or a section with keys and values. Found []."),
    ],
)
def test_value_of_a_different_type_is_refused(value, hint, message):
    with pytest.raises(ValueError) as caught:
        convert(value, hint)
    assert str(caught.value) == message
