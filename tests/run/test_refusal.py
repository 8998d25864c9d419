from __future__ import annotations

import pytest

from mtl_nlp.errors import DataError, RecipeError
from mtl_nlp.run.refusal import REFUSALS, is_of_own_code, refused


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("no\nsuch optimizer"), "training: no such optimizer"),
        (ValueError("--tf32 requires Ampere"), "training.tf32: requires Ampere"),
        (RuntimeError("XCallback requires x. Run `pip`."), "training.report_to: XCallback requires x. Run `pip`."),
        (
            KeyError("eval_x"),
            "training: KeyError: 'eval_x'. The libraries may not accept these arguments; `mtl-nlp --debug` shows where "
            "the error comes from.",
        ),
        (
            AssertionError(),
            "training: AssertionError: no reason given. The libraries may not accept these arguments; `mtl-nlp "
            "--debug` shows where the error comes from.",
        ),
        (DataError("d: row 3"), "d: row 3"),
    ],
)
def test_errors_of_the_libraries_are_one_line(error, message):
    assert isinstance(error, REFUSALS)
    assert str(refused(error)) == message
    assert isinstance(refused(error), RecipeError | DataError)


def test_an_error_of_own_code_is_known_by_its_modules():
    with pytest.raises(KeyError) as caught:
        {}["x"]
    assert is_of_own_code(caught.value, {__name__}) and is_of_own_code(caught.value, {__file__})
    assert not is_of_own_code(caught.value, {"mine"})
