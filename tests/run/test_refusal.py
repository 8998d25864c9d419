from __future__ import annotations

import pytest

from mtl_nlp.errors import DataError, RecipeError
from mtl_nlp.run.refusal import REFUSALS, refused


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("no\nsuch optimizer"), "training: no such optimizer"),
        (KeyError("eval_x"), "training: the libraries do not accept these arguments (KeyError: 'eval_x')"),
        (AssertionError(), "training: the libraries do not accept these arguments (AssertionError: )"),
        (DataError("d: row 3"), "d: row 3"),
    ],
)
def test_errors_of_the_libraries_are_one_line(error, message):
    assert isinstance(error, REFUSALS)
    assert str(refused(error)) == message
    assert isinstance(refused(error), RecipeError | DataError)
