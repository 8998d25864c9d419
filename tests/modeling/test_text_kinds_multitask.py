"""Kinds of text tasks: the text shown for an answer."""

from __future__ import annotations

import numpy as np
import pytest

from mtl_nlp.modeling.label_kinds_multitask import PREDICTED
from mtl_nlp.modeling.text_kinds_multitask import ClassesPerText, ClassPerText, NumberPerText

TOPIC = ClassPerText("topic", ["news", "sport"])
TAGS = ClassesPerText("tags", ["urgent", "angry"])
SCORE = NumberPerText("score")


@pytest.mark.parametrize(
    ("kind", "logits", "strings"),
    [
        (TOPIC, [0.0, 1.0], ["sport"]),
        (TAGS, [1.0, 2.0], ["angry", "urgent"]),
        (TAGS, [-1.0, -2.0], []),
        (SCORE, [0.12345], ["0.1235"]),
    ],
)
def test_column_file_has_the_prediction(kind, logits, strings):
    entries = kind.answer(np.array(logits), [], "", PREDICTED)
    assert kind.as_strings(entries, []) == strings


def test_outputs_are_named_by_the_labels_or_by_the_task():
    assert TOPIC.output_names == ("news", "sport")
    assert SCORE.output_names == ("score",)
    assert (TOPIC.has_label_space, SCORE.has_label_space) == (True, False)
    assert (TOPIC.num_outcomes, TAGS.num_outcomes, SCORE.num_outcomes) == (2, 2, None)


def test_page_displays_a_class_a_set_of_classes_or_a_number():
    assert [kind.display for kind in (TOPIC, TAGS, SCORE)] == ["class", "classes", "number"]


def test_confidence_is_a_probability_per_class_or_none_for_numbers():
    logits = np.array([0.0, 2.0], dtype=np.float32)
    one = ClassPerText("topic", ["a", "b"])
    assert one.confidence(logits, one.decode(logits)) == pytest.approx(1.0 / (1.0 + np.exp(-2.0)))
    several = ClassesPerText("tags", ["b", "a"])
    assert several.decode(logits) == ["a", "b"]
    assert several.confidence(logits, ["a", "b"]) == {"b": 0.5, "a": pytest.approx(1.0 / (1.0 + np.exp(-2.0)))}
    assert NumberPerText("score").confidence(logits[:1], 0.0) is None
