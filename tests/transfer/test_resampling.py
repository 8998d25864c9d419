from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from runs_of_predictions import run_of

from mtl_nlp import MultiLabelClassification, Regression, TextClassification, TokenClassification
from mtl_nlp.errors import DataError
from mtl_nlp.evaluation.predictions import Prediction
from mtl_nlp.transfer.resampling import align_runs, draw_counts

TASK = TextClassification(name="t", labels=["a", "b"])
RUN = run_of(["a", "b", "a"], ["a", "a", "b"])


def test_texts_are_matched_by_dataset_and_row_whatever_their_order():
    aligned = align_runs([RUN], [RUN[::-1]], TASK)
    assert aligned.units == [("d", 0), ("d", 1), ("d", 2)]
    assert aligned.observed().tolist() == [1 / 3, 1 / 3]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ([], "at least one labelled text"),
        (RUN[:2], "Found 1 texts in one run only, such as dataset 'd', row 2"),
        ([*RUN, RUN[0]], "Found two of dataset 'd', row 0"),
        ([replace(RUN[0], gold="b"), *RUN[1:]], "Found 'a' and 'b' for dataset 'd', row 0"),
        ([replace(RUN[0], text="other"), *RUN[1:]], "Found two different texts for dataset 'd', row 0"),
    ],
)
def test_runs_with_different_texts_are_refused_in_one_line(other, message):
    with pytest.raises(DataError, match=message) as caught:
        align_runs([RUN], [other], TASK)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("Task 't': ")


def test_a_side_without_runs_is_refused():
    with pytest.raises(DataError, match="at least one run"):
        align_runs([], [RUN], TASK)


WORDS = Prediction("t", "d", "test", 0, ["B-X", "O"], ["O", "O"], tokens=["Ada", "sleeps"])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"prediction": ["O"]}, "dataset 'd', row 0: `prediction` should have one entry per gold label. Found 1 for 2"),
        ({"prediction": 3}, "`prediction` should be lists with one entry per word. Found 3"),
        ({"prediction": ["E-X", "O"]}, "should be labels of a token-classification task. Invalid token"),
        ({"score": [0.5]}, "`score` should have one entry"),
        ({"seen": [True] * 3}, "`seen` should have one entry"),
        ({"tokens": ["Ada"]}, "`tokens` should have one entry"),
    ],
)
def test_words_that_do_not_fit_the_task_are_refused(changed, message):
    bad = replace(WORDS, **changed)
    with pytest.raises(DataError, match=message):
        align_runs([[bad]], [[bad]], TokenClassification(name="t", labels=["O", "B-X", "I-X"], scheme="iob2"))


@pytest.mark.parametrize(
    ("task", "label", "message"),
    [
        (TASK, 1, "expected '1' for dataset 'd', row 0; found 1"),
        (TASK, ["a"], "expected a class name"),
        (MultiLabelClassification(name="t", labels=["a", "b"]), "a", "expected a list of class names"),
        (MultiLabelClassification(name="t", labels=["a", "b"]), ["b", "a"], "expected .'a', 'b'."),
        (Regression(name="t"), "high", "could not convert"),
    ],
)
def test_labels_that_do_not_fit_the_task_are_refused(task, label, message):
    run = run_of([label], [label])
    with pytest.raises(DataError, match=f"should be labels of a {task.type} task. {message}"):
        align_runs([run], [run], task)


def test_resamples_are_a_function_of_texts_and_seed_and_keep_the_size_of_every_dataset():
    units = [*(("a", row) for row in range(5)), *(("b", row) for row in range(3))]
    counts, again, other = (np.concatenate([*draw_counts(units, 100, seed)]) for seed in (1, 1, 2))
    assert (counts == again).all()
    assert (counts != other).any()
    assert set(counts[:, :5].sum(axis=1)) == {5}
    assert set(counts[:, 5:].sum(axis=1)) == {3}
    # Two tasks with the same texts of a dataset have the same resamples.
    assert (np.concatenate([*draw_counts(units[:5], 100, 1)]) == counts[:, :5]).all()


def test_resamples_of_many_texts_come_in_chunks_with_the_distribution_of_a_bootstrap():
    units = [("a", row) for row in range(50_000)]
    chunks = [*draw_counts(units, 200, 0)]
    assert [len(chunk) for chunk in chunks] == [80, 80, 40]
    every = np.concatenate(chunks)
    assert every.mean() == 1
    assert every.var() == pytest.approx(1, abs=0.01)
