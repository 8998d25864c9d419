from __future__ import annotations

import pytest

from mtl_nlp.modeling.hints_multitask import hint


@pytest.mark.parametrize(
    ("valid", "text"),
    [
        (["news", "sport"], "Did you mean 'news'?"),
        (["travel", "email"], "Valid: travel, email."),
        ([f"far {n}" for n in range(13)], f"Valid: {', '.join(f'far {n}' for n in range(12))}, …"),
        ([], ""),
    ],
)
def test_only_a_near_name_is_suggested(valid, text):
    assert hint("new", valid) == text
