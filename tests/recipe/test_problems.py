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
def test_first_problem_is_one_line_with_key_rule_and_value(quick_recipe, data, message):
    with pytest.raises(ValidationError) as caught:
        Recipe.model_validate({**quick_recipe, **data})
    assert explain(caught.value, data, Recipe).startswith(message)
