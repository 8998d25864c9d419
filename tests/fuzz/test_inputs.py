"""Damaged recipes and data do no harm."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

HARMFUL = {
    "hang",
    "crash",
    "memory",
    "large file",
    "ran code",
    "started a process",
    "wrote outside",
    "secret",
    "not finite",
}
"""The kinds of failures that no recipe and no data may cause. Tracebacks of recipes and data are not among them yet."""


@pytest.mark.parametrize("kind", ["recipe", "data", "texts"])
@given(data=st.data())
def test_a_damaged_input_does_no_harm(data, violations, kind):
    assert not [found for found in violations(data, kind) if found.kind in HARMFUL]
