"""The scores of teachers on disk, and their layout in a batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toy_splits import TASKS, build_split

from mtl_nlp import MultitaskDataCollator, TaskMixture
from mtl_nlp.data.teachers import TEACHERS, with_scores, with_teachers, write_scores


@pytest.fixture(scope="module")
def encoded(tokenizers):
    """Texts of which some have several windows, and some lack the label of a task."""
    has = {"pos": lambda n: n != 5, "topic": lambda n: n > 3, "score": lambda n: True}
    return build_split(tokenizers["wordpiece"], 1, [3, 5, 90, 1, 7], has)


def scores_for(encoded, task, number):
    """Scores that tell the window, the word and the output apart: `window + word / 100 + output / 10`."""
    found = []
    for index, window in enumerate(encoded.windows):
        if window[f"label:{task}"] is None:
            found.append(None)
        elif TASKS[task].kind.labels_words:
            words = np.arange(len(window["words"]))[:, None] / 100
            found.append(index + words + np.arange(number) / 10)
        else:
            found.append(index + np.arange(number) / 10)
    return found


def test_scores_are_read_from_disk_and_lie_on_the_first_sub_words(encoded, tokenizers, tmp_path):
    numbers = {"pos": 3, "topic": 2, "score": 1}
    for task, number in numbers.items():
        write_scores(tmp_path / task, TASKS[task], scores_for(encoded, task, number))
    taught = with_scores(encoded, [tmp_path / task for task in numbers])
    assert str(tmp_path / "pos") in {file["filename"] for file in taught.windows.cache_files}, "memory-mapped"
    mixture = TaskMixture({"plain": encoded, "d": taught})
    collator = MultitaskDataCollator(tokenizers["wordpiece"], TASKS)
    start = len(encoded)
    rows = mixture.__getitems__([start + index for index in (3, 0, 2, 1)])
    for features in (rows, [*rows]):  # as columns, and as the dicts of a stream or of a worker
        batch = with_teachers(collator, mixture.datasets.values(), TASKS)(features)
        assert {name: values.shape[-1] for name, values in batch[TEACHERS].items()} == numbers
        for task, number in numbers.items():
            expected = [scores_for(encoded, task, number)[index] for index in (3, 0, 2, 1)]
            expected = [each for each in expected if each is not None]
            for place, (row, values) in enumerate(zip(batch["rows"][task], batch[TEACHERS][task], strict=True)):
                if TASKS[task].kind.labels_words:
                    positions = rows[int(row)]["positions"]
                    assert np.allclose(values[positions], expected[place], atol=2e-3)
                    assert values.count_nonzero() <= expected[place].size
                else:
                    assert np.allclose(values, expected[place], atol=2e-3)
    assert batch[TEACHERS]["topic"].dtype in {torch.float16, torch.float64}
    assert with_teachers(collator, [encoded], TASKS) is collator
    assert len(with_teachers(collator, [taught], TASKS)(mixture.__getitems__([start + 1]))[TEACHERS]["pos"]) == 0


def test_numbers_above_half_precision_keep_their_size(encoded, tmp_path):
    write_scores(tmp_path / "score", TASKS["score"], [np.array([250_000.5])] * len(encoded))
    taught = with_scores(encoded, [tmp_path / "score"])
    assert taught.windows[0]["teacher:score"] == [250_000.5]
