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
