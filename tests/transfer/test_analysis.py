"""The analysis of a task of every type, for one side and for two."""

from __future__ import annotations

import json

import numpy as np
import pytest
from runs_of_predictions import run_of

from mtl_nlp import MultiLabelClassification, Regression, TextClassification, TokenClassification
from mtl_nlp.errors import DataError
from mtl_nlp.messages import json_text
from mtl_nlp.modeling.tasks_multitask import Task
from mtl_nlp.modeling.text_kinds_multitask import ClassPerText
from mtl_nlp.modeling.word_kinds_multitask import ClassPerWord
from mtl_nlp.transfer.analysis import analyse
from mtl_nlp.transfer.statistics import compare_sides


class Outside(Task):
    """A task of a type from outside of the package: a class per text, or a number per word if there are no labels."""

    type = "outside"

    def make_kind(self):
        return (Graded if self.labels else NumberPerWord)(self.name, self.labels)


class Graded(ClassPerText):
    """Ordered classes, scored by the distance of the classes."""

    primary_score = "closeness"

    def metric(self, predictions: list, references: list) -> dict[str, float]:
        distance = [abs(self.label_ids[p] - self.label_ids[r]) for p, r in zip(predictions, references, strict=True)]
        return {"closeness": 1 - float(np.mean(distance)) / (len(self.labels) - 1)}


class NumberPerWord(ClassPerWord):
    """A number per word."""

    has_label_space = False
    primary_score = "closeness"

    def metric(self, predictions: list, references: list) -> dict[str, float]:
        return {"closeness": -float(np.abs(np.concatenate(predictions) - np.concatenate(references)).mean())}

    def names_in(self, label):
        return ()


TASKS: dict[str, tuple[Task, list]] = {
    "words": (TokenClassification(name="t", labels=["N", "V"]), [["N", "V"], ["V", "V"]]),
    "spans": (TokenClassification(name="t", labels=["O", "B-X", "I-X"], scheme="iob2"), [["B-X", "I-X"], ["O", "O"]]),
    "class": (TextClassification(name="t", labels=["a", "b"]), ["a", "b"]),
    "sets": (MultiLabelClassification(name="t", labels=["x", "y"]), [["x"], ["x", "y"]]),
    "numbers": (Regression(name="t"), [1.0, 2.5]),
    "outside": (Outside(name="t", labels=["low", "middle", "high"]), ["low", "high"]),
    "numbers of words": (Outside(name="t"), [[1.0, 2.0], [0.5, 2.0]]),
}


@pytest.mark.parametrize("name", TASKS)
def test_every_type_of_task_is_analysed_as_plain_data(name):
    task, labels = TASKS[name]
    rng = np.random.default_rng(0)
    golds = [labels[i] for i in rng.integers(2, size=30)]
    texts = {"tokens": [["Ada", "sleeps"]] * 30} if task.kind.labels_words else {}

    def run():
        return run_of([labels[i] for i in rng.integers(2, size=30)], golds, seen=[[True, False]] * 30, **texts)

    a, b = [run(), run(), run()], [run(), run()]
    found = analyse(a, b, task)
    content = json.loads(json_text(found.to_dict()))
    assert {"a", "b", "only_a", "only_b", "only_a_total", "only_b_total"} == content.keys()
    assert content["a"].keys() == {"labels", "confusion", "lengths", "seen", "calibration"}
    assert found.only_a and found.only_b
    assert bool(found.a.labels) == ("numbers" not in name)
    assert bool(found.a.confusion) == (name not in {"numbers", "numbers of words", "sets"})
    assert found.a.lengths[0].units == 30
    assert bool(found.a.seen) == (name != "numbers of words")
    assert compare_sides(a, b, task).low is not None
    alone = analyse(a, None, task)
    assert alone.a == found.a
    assert alone.b is alone.only_a is None


def test_the_order_of_rows_in_a_run_does_not_matter():
    task, _ = TASKS["class"]
    run = run_of([*"abab"], [*"aabb"], text=["u", "v w", "x y z", "u v w x"])
    assert analyse([run], [run[::-1]], task).b == analyse([run], None, task).a


def test_sides_with_different_texts_are_refused():
    task, _ = TASKS["class"]
    with pytest.raises(DataError, match="same texts"):
        analyse([run_of(["a"], ["a"])], [run_of(["a"], ["b"])], task)
