from __future__ import annotations

import pytest
from pydantic import ValidationError

from mtl_nlp.recipe.problems import explain
from mtl_nlp.recipe.schema import Recipe


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"max_length": "x"}, "max_length: should be an integer. Found 'x'"),
        ({"mixture": {"bathing": "mixed"}}, "mixture.bathing: unknown key. Did you mean 'batching'?"),
        ({"mixture": {"batching": "mixd"}}, "mixture.batching: should be 'mixed' or 'homogeneous'. Found 'mixd'"),
        ({"loss": 3}, "loss: should be a section with the keys "),
    ],
)
def test_first_problem_is_one_line_with_key_rule_and_value(data, message):
    with pytest.raises(ValidationError) as caught:
        Recipe.model_validate({"encoder": "e", "output_dir": "o", "tasks": {}, "datasets": {}, **data})
    others = {"tasks", "datasets"}
    found = [
        explain(ValidationError.from_exception_data("Recipe", [each]), data, Recipe)
        for each in lines_of(caught.value, others)
    ]
    assert found[0].startswith(message)


def lines_of(error: ValidationError, without: set[str]) -> list:
    return [{**each, "ctx": each.get("ctx", {})} for each in error.errors() if each["loc"][0] not in without]
