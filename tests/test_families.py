"""The table of families in docs/families.md is what the tests find out."""

from __future__ import annotations

import pytest
from families import FAMILIES, exports_to_onnx, measure, row_of, written_rows


def test_the_table_has_a_row_for_each_family_that_is_tried():
    assert list(written_rows()) == sorted(FAMILIES)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_the_row_of_a_family_is_current(family):
    found = row_of(measure(family), exports_to_onnx(family))
    assert found == written_rows()[family], "python tests/families.py writes the table"
