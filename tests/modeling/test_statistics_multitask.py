from __future__ import annotations

import numpy as np
import pytest

from mtl_nlp.modeling.statistics_multitask import LabelStatistics
from mtl_nlp.modeling.text_kinds_multitask import ClassesPerText, ClassPerText, NumberPerText

SCORE = NumberPerText("score")


@pytest.mark.parametrize("cut", [0, 1, 3])
def test_mean_and_deviation_are_those_of_all_numbers(cut):
    numbers = [1.0, 2.0, None, 3.0, 1e6]
    found = LabelStatistics().add(SCORE, numbers[:cut]) + LabelStatistics().add(SCORE, numbers[cut:])
    known = [number for number in numbers if number is not None]
    assert (found.rows, found.mean) == (4, pytest.approx(np.mean(known)))
    assert found.sd == pytest.approx(np.std(known))


@pytest.mark.parametrize("numbers", [[], [3.0], [0.1] * 7, [1e9, 1e9 + 1.0], [1e-40, -1e-40]])
def test_numbers_that_are_equal_in_float32_have_a_deviation_of_one(numbers):
    assert LabelStatistics().add(SCORE, numbers).sd == 1.0


def test_balanced_weights_are_those_of_scikit_learn():
    found = LabelStatistics().add(ClassPerText("topic", ["a", "b", "c"]), ["a", "a", "a", "b", None, "unknown"])
    # compute_class_weight("balanced", classes=["a", "b"], y=["a", "a", "a", "b"]); no row has the class c
    assert found.class_weights(["a", "b", "c"]) == {"a": pytest.approx(2 / 3), "b": 2.0}


def test_factors_of_positive_decisions_are_negatives_per_positive():
    found = LabelStatistics().add(ClassesPerText("tags", ["a", "b", "c"]), [["a", "b"], ["b"], ["b"], ["b"]])
    assert found.pos_weight(["a", "b", "c"]) == {"a": 3.0}
