from __future__ import annotations

from mtl_nlp.data.buckets import bucketed


def test_lengths_are_padded_by_less_than_an_eighth_to_few_lengths():
    found = [bucketed(length, 512) for length in range(1, 513)]
    assert all(length <= padded < 9 / 8 * length + 1e-9 for length, padded in zip(range(1, 513), found, strict=True))
    assert found == sorted(found)
    assert len(set(found)) == 56
    assert {bucketed(length, 512) for length in range(17, 33)} == {18, 20, 22, 24, 26, 28, 30, 32}


def test_no_row_is_padded_beyond_the_limit():
    assert [bucketed(length, 49) for length in (47, 48, 49, 50, 77)] == [48, 48, 49, 50, 77]
