from __future__ import annotations

import pytest
from pydantic import ValidationError

from mtl_nlp.recipe.section import Section


class Named(Section):
    name: str = "x"


def test_section_refuses_unknown_keys_and_changes_and_shows_no_values():
    with pytest.raises(ValidationError) as caught:
        Named(name=["secret"])
    assert "secret" not in str(caught.value)
    with pytest.raises(ValidationError, match="frozen"):
        Named().name = "y"
    with pytest.raises(ValidationError, match="Extra inputs"):
        Named(other=1)


class Numbers(Section):
    one: int | None = None
    many: float | list[float] = 1.0
    either: bool | str | float = 1.0


@pytest.mark.parametrize("given", [{"one": True}, {"many": False}, {"many": [1.0, True]}])
def test_a_boolean_is_not_a_number(given):
    with pytest.raises(ValidationError, match=r"should be a number\. Found (True|False)"):
        Numbers(**given)


def test_a_field_for_booleans_has_them_and_numbers_may_be_texts():
    assert Numbers(either=True, one="3", many=["2", 1]) == Numbers(either=True, one=3, many=[2.0, 1.0])
