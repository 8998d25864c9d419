from __future__ import annotations

import dataclasses
import math
from typing import get_type_hints

import pytest

from mtl_nlp import MultitaskTrainingArguments
from mtl_nlp.training.ranges import RANGES, Range, check_ranges


def inside(allowed: Range) -> list[float]:
    """Return the numbers at both ends of a range, just inside."""
    least = math.nextafter(allowed.least, math.inf) if allowed.without_least else allowed.least
    most = math.nextafter(allowed.most, -math.inf) if allowed.without_most else allowed.most
    return [least, most, *([] if allowed.also is None else [allowed.also])]


def outside(allowed: Range) -> list[float]:
    """Return the numbers at both ends of a range, just outside, and numbers that are in no range."""
    least = allowed.least if allowed.without_least else math.nextafter(allowed.least, -math.inf)
    most = allowed.most if allowed.without_most else math.nextafter(allowed.most, math.inf)
    return [least, most, math.nan, math.inf, -math.inf, 10**400]


@pytest.mark.parametrize("name", RANGES)
def test_both_ends_of_each_range_are_tried(name):
    for value in inside(RANGES[name]):
        check_ranges({name: value})
    for value in outside(RANGES[name]):
        with pytest.raises(ValueError, match=rf"^`{name}` should be "):
            check_ranges({name: value})


def test_every_number_among_the_arguments_has_a_range():
    hints = get_type_hints(MultitaskTrainingArguments)
    numbers = {
        field.name
        for field in dataclasses.fields(MultitaskTrainingArguments)
        if field.init and hints[field.name] in (int, float, int | None, float | None)
    }
    assert numbers == RANGES.keys(), "a field of a new release of transformers needs a range, or has gone"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("learning_rate", True, "`learning_rate` should be a number. Found True."),
        ("learning_rate", "2e-4", "`learning_rate` should be a number. Found '2e-4'."),
        ("learning_rate", 10**400, "`learning_rate` should be finite and at least 0. Found inf."),
        ("learning_rate", -1, "`learning_rate` should be at least 0. Found -1."),
        ("adam_beta1", 1.0, "`adam_beta1` should be at least 0 and below 1. Found 1.0."),
        ("seed", 2**32, "`seed` should be at least 0 and at most 4294967295. Found 4294967296."),
        ("max_steps", 0, "`max_steps` should be at least 1, or -1. Found 0."),
        (
            "eval_steps",
            2.5,
            "`eval_steps` should be a whole number of steps, or a share of all steps below 1. Found 2.5.",
        ),
    ],
)
def test_message_names_the_rule_and_the_value(name, value, message):
    with pytest.raises(ValueError) as caught:
        check_ranges({name: value})
    assert str(caught.value) == message


def test_ranges_are_known_to_editors():
    assert Range(0, 1, without_most=True).json_schema() == {"minimum": 0, "exclusiveMaximum": 1}
    assert Range(0, without_least=True).json_schema() == {"exclusiveMinimum": 0}
    assert Range(1, 9, also=-1).json_schema() == {"minimum": -1, "maximum": 9}
