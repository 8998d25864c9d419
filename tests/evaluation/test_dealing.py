from __future__ import annotations

import itertools

import numpy as np
import pytest
from toy_splits import build_split

from mtl_nlp import EncodedDataset
from mtl_nlp.evaluation.dealing import deal_batches, text_groups, windows_by_length


@pytest.fixture(scope="module")
def split(tokenizers) -> EncodedDataset:
    """Return 17 texts of up to 150 words in windows of 48 sub-words."""
    lengths = [9, 150, 1, 60, 30, 2, 70, 5, 5, 8, 20, 3, 12, 7, 90, 4, 6]
    return build_split(tokenizers["wordpiece"], 1, lengths, {"pos": lambda n: True})


@pytest.mark.parametrize("rows_per_batch", [1, 4, 1000])
def test_batches_cover_every_window_once_and_start_with_the_longest(split, rows_per_batch):
    batches = windows_by_length(split.lengths, rows_per_batch)
    order = [index for batch in batches for index in batch]
    assert sorted(order) == list(range(len(split.windows)))
    assert max(map(len, batches)) <= rows_per_batch
    assert (np.diff(split.lengths[order]) <= 0).all()


@pytest.mark.parametrize("rows_per_batch", [1, 3, 8, 1000])
@pytest.mark.parametrize("processes", [1, 2, 3, 30])
def test_every_window_is_read_once_and_all_windows_of_a_text_by_one_process(split, processes, rows_per_batch):
    assert split.num_windows > split.num_rows
    shares = deal_batches(split, rows_per_batch, processes)
    assert len(shares) == processes
    read = [[window for batch in share.batches for window in batch] for share in shares]
    assert sorted(itertools.chain(*read)) == list(range(split.num_windows))
    texts = [set(np.asarray(split.windows["row"])[windows].tolist()) for windows in read]
    assert sum(map(len, texts)) == split.num_rows
    assert max(len(batch) for share in shares for batch in share.batches) <= rows_per_batch
    assert all(share.repeated == 0 for share in shares)


@pytest.mark.parametrize("processes", [2, 3, 30])
def test_batches_do_not_depend_on_the_number_of_processes(split, processes):
    (alone,) = deal_batches(split, 3)
    shares = deal_batches(split, 3, processes)
    assert sorted(itertools.chain(*(share.batches for share in shares))) == sorted(alone.batches)


@pytest.mark.parametrize("processes", [2, 3, 30])
def test_equal_passes_give_every_process_equally_many_batches_with_repeats_last(split, processes):
    plain, equal = (deal_batches(split, 2, processes, equal_passes=equal) for equal in (False, True))
    assert len({len(share.batches) for share in plain}) > 1
    assert len({len(share.batches) for share in equal}) == 1
    assert min(len(batch) for share in equal for batch in share.batches) > 0
    for share, own in zip(equal, plain, strict=True):
        assert share.batches[: len(share.batches) - share.repeated] == own.batches


def test_processes_have_about_equally_many_positions(tokenizers):
    lengths = np.random.default_rng(0).integers(1, 40, size=300).tolist()
    split = build_split(tokenizers["wordpiece"], 1, lengths, {"pos": lambda n: True})
    loads = [
        sum(len(batch) * split.lengths[batch].max() for batch in share.batches) for share in deal_batches(split, 8, 3)
    ]
    assert max(loads) < 1.15 * min(loads)


def test_short_last_windows_of_long_texts_share_batches():
    rows, lengths = np.repeat(np.arange(4), 2), np.array([48, 5] * 4)
    (group,) = text_groups(rows, lengths, 4)
    assert [lengths[group][batch].tolist() for batch in windows_by_length(lengths[group], 4)] == [[48] * 4, [5] * 4]


def test_text_with_more_windows_than_a_group_forms_its_own_group():
    rows = np.array([0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2])
    assert text_groups(rows, np.full(11, 7), 2) == [list(range(1, 10)), [0, 10]]


def test_split_without_windows_has_no_groups():
    assert text_groups(np.array([], dtype=int), np.array([], dtype=int), 4) == []
