"""Damaged folders of models and encoders are used or refused in one line."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

EXAMPLES = settings().max_examples


@settings(max_examples=3 * EXAMPLES)
@given(data=st.data())
def test_a_damaged_model_is_used_or_refused_in_one_line(data, violations):
    assert not violations(data, "model")


@given(data=st.data())
def test_a_damaged_encoder_is_used_or_refused_in_one_line(data, violations):
    assert not violations(data, "encoder")


@given(data=st.data())
def test_a_damaged_inspection_or_conflict_is_drawn_or_refused_in_one_line(data, violations):
    assert not violations(data, "insight")
