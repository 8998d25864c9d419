"""Buckets of lengths: batches are padded to few lengths, for which kernels are compiled and kept."""

from __future__ import annotations


def bucketed(length: int, limit: int) -> int:
    """Return the smallest of eight lengths per doubling (…, 16, 18, …, 32, 36, …) that is at least a given length.

    The padding is below an eighth of the length. Up to 512 sub-words there are about 50 lengths.

    Args:
        length: the number of sub-words of the longest row in a batch.
        limit: the largest length to which rows are padded, which an encoder may not exceed. A longer row is not padded.
    """
    step = 1 << max(0, length.bit_length() - 4)
    return max(length, min(-(-length // step) * step, limit))
