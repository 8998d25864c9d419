"""Recipes, training arguments, data and texts of any kind are used or refused in one line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize("kind", ["recipe", "arguments", "data", "predict"])
@given(data=st.data())
def test_an_odd_input_is_used_or_refused_in_one_line(data, violations, kind):
    assert not violations(data, kind)
