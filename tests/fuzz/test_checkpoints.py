"""A run with a damaged checkpoint resumes or is refused in one line."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st


@given(data=st.data())
def test_a_run_with_a_damaged_checkpoint_resumes_or_is_refused_in_one_line(data, violations):
    assert not violations(data, "checkpoint")
