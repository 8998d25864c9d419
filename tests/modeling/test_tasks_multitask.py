"""The task types: their labels, predictions, answers and errors."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from mtl_nlp import (
    TASK_TYPES,
    MultiLabelClassification,
    Regression,
    TextClassification,
    TokenClassification,
    register_task_type,
)
from mtl_nlp.modeling.label_kinds_multitask import IGNORED, PREDICTED, sigmoid, softmax
from mtl_nlp.modeling.tasks_multitask import task_from_dict
from mtl_nlp.modeling.words_multitask import split_words

POS = TokenClassification(name="pos", labels=["NOUN", "VERB"])
NER = TokenClassification(name="ner", labels=["O", "B-PER", "I-PER"], scheme="iob2")
TOPIC = TextClassification(name="topic", labels=["news", "sport", "travel"])
TAGS = MultiLabelClassification(name="tags", labels=["urgent", "angry"])
SCORE = Regression(name="score")
ALL = [POS, NER, TOPIC, TAGS, SCORE]
TEXT = "Ada Lovelace sleeps"


@pytest.mark.parametrize("task", ALL, ids=lambda task: task.name)
def test_task_round_trips_through_plain_data(task):
    assert task_from_dict(task.to_dict()) == task


@pytest.mark.parametrize("task_type", TASK_TYPES.values(), ids=TASK_TYPES)
def test_every_task_type_answers_the_questions_of_the_package(task_type):
    task = task_type(name="t", labels=[] if task_type is Regression else ["a", "b"])
    assert task.num_labels == (1 if task_type is Regression else 2)
    assert task.kind.level in {"token", "sequence"}
    assert task.kind.metric
    assert task.kind.primary_score
    assert TASK_TYPES[task.type] is task_type


@pytest.mark.parametrize(
    ("task", "value", "message"),
    [
        (POS, "NOUN", "expected a list of label names, one per word; found 'NOUN'"),
        (POS, ["NOUN", 3], "expected a list of label names, one per word; found"),
        (
            NER,
            ["O", "X-PER"],
            "A span tag should be O, or B-, I-, E-, S-, L-, U- or M- followed by a label. Found 'X-PER'",
        ),
        (TOPIC, 1.5, "expected a class name or number; found 1.5"),
        (TOPIC, ["news"], "expected a class name or number; found"),
        (TAGS, "urgent", "expected a list of class names; found 'urgent'"),
        (TAGS, [1], "expected a list of class names; found"),
        (SCORE, "2", "expected a finite number; found '2'"),
        (SCORE, float("nan"), "expected a finite number; found nan"),
        (SCORE, True, "expected a finite number; found True"),
    ],
)
def test_wrong_label_is_refused_with_the_expected_and_found_value(task, value, message):
    with pytest.raises(ValueError, match=message):
        task.kind.check(value)


@pytest.mark.parametrize(
    ("task", "value", "canonical", "encoded"),
    [
        (POS, ["VERB", "ADJ"], ["VERB", "ADJ"], [1, IGNORED]),
        (NER, ["I-PER", "I-PER", "O"], ["B-PER", "I-PER", "O"], [1, 2, 0]),
        (TOPIC, "sport", "sport", 1),
        (TOPIC, "unseen", "unseen", IGNORED),
        (TextClassification(name="stars", labels=["1", "2"]), 2, "2", 1),
        (TAGS, ["urgent", "angry", "urgent"], ["angry", "urgent"], [1.0, 1.0]),
        (TAGS, ["unseen"], ["unseen"], [0.0, 0.0]),
        (SCORE, 3, 3.0, 3.0),
    ],
)
def test_labels_are_converted_to_canonical_form_and_to_targets(task, value, canonical, encoded):
    assert task.kind.check(value) == canonical
    assert task.kind.target_of(task.kind.check(value)) == encoded


@pytest.mark.parametrize(
    ("task", "logits", "predicted"),
    [
        (POS, [[0, 1], [2, 1], [0, 3]], ["VERB", "NOUN", "VERB"]),
        (NER, [[0, 1, 5], [0, 1, 2], [4, 0, 0]], ["B-PER", "I-PER", "O"]),
        (TOPIC, [0, 2, 1], "sport"),
        (TAGS, [0, -1], ["urgent"]),
        (SCORE, [1.5], 1.5),
    ],
)
def test_predictions_are_canonical_labels(task, logits, predicted):
    assert task.kind.decode(np.array(logits, dtype=np.float32)) == predicted
    assert task.kind.check(predicted) == predicted


def test_word_answers_have_offsets():
    answer = POS.kind.answer(np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 1.0]]), split_words(TEXT), TEXT, 1)
    assert [entry["label"] for entry in answer] == ["NOUN", "NOUN", "VERB"]
    assert [entry["index"] for entry in answer] == [1, 2, 3]
    assert answer[0] == {"word": "Ada", "label": "NOUN", "score": 0.5, "start": 0, "end": 3, "index": 1}


def test_span_answers_have_the_mean_probability():
    logits = np.array([[0.0, 3.0, 0.0], [0.0, 0.0, 3.0], [3.0, 0.0, 0.0]])
    (span,) = NER.kind.answer(logits, split_words(TEXT), TEXT, 1)
    assert span.pop("score") == pytest.approx(softmax(logits)[0, 1])
    assert span == {"entity_group": "PER", "word": "Ada Lovelace", "start": 0, "end": 12}


@pytest.mark.parametrize(
    ("top_k", "labels"), [(1, ["sport"]), (2, ["sport", "travel"]), (None, ["sport", "travel", "news"])]
)
def test_class_answers_are_ordered_best_first(top_k, labels):
    answer = TOPIC.kind.answer(np.array([0.0, 2.0, 1.0]), [], "", top_k)
    assert [entry["label"] for entry in answer] == labels
    assert answer[0].keys() == {"label", "score"}


def test_number_answer_has_the_name_of_the_task():
    assert SCORE.kind.answer(np.array([0.25]), [], "", None) == [{"label": "score", "score": 0.25}]


def test_every_class_of_a_multi_label_task_has_its_own_probability():
    answer = TAGS.kind.answer(np.array([-1.0, 1.0]), [], "", None)
    assert [entry["label"] for entry in answer] == ["angry", "urgent"]
    assert sum(entry["score"] for entry in answer) == pytest.approx(1.0)


@pytest.mark.parametrize("task", [POS, NER], ids=lambda task: task.name)
def test_text_without_words_has_no_labels(task):
    logits = np.zeros((0, task.num_labels), dtype=np.float32)
    assert task.kind.decode(logits) == []
    assert task.kind.answer(logits, [], "", 1) == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"name": "n", "type": "tagging"},
            "Task 'n': `type` .*one of token-classification, .*Found 'tagging'. tagging is called token-",
        ),
        ({"name": "n"}, "Task 'n': `type` should be one of .*Found None"),
        ({"name": "n", "type": "token-classification", "sheme": "iob2"}, "no option 'sheme'. Did you mean 'scheme'"),
        ({"name": "n", "type": "regression", "label": ["a"]}, "no option 'label'. Did you mean 'labels'"),
        (
            {"name": "n", "type": "token-classification", "scheme": "iob"},
            "Task 'n': `scheme` should be one of iob2, iob1, bioes, bilou, bmes. Found 'iob'. iob is called iob2",
        ),
        (
            {"name": "n", "type": "text-classification", "pooling": "max"},
            "Task 'n': `pooling` should be one of cls, mean, last. Found 'max'",
        ),
        ({"name": "n", "type": "text-classification", "labels": ["a", "a"]}, "labels must be unique. Found"),
    ],
)
def test_invalid_task_is_refused_with_the_nearest_valid_option(fields, message):
    with pytest.raises(ValueError, match=message):
        task_from_dict(fields)


def test_span_labels_are_completed_by_the_scheme():
    task = TokenClassification(name="ner", labels=["B-PER", "O"], scheme="bioes")
    assert task.labels == ("B-PER", "O", "I-PER", "E-PER", "S-PER")
    assert task.with_labels(["I-LOC"]).labels == ("O", "I-LOC", "B-LOC", "E-LOC", "S-LOC")


def test_probabilities_do_not_overflow():
    logits = np.array([-1e4, 0.0, 1e4], dtype=np.float32)
    with np.errstate(all="raise", under="ignore"):
        assert softmax(logits).tolist() == [0.0, 0.0, 1.0]
        assert sigmoid(logits).tolist() == [0.0, 0.5, 1.0]


def test_multi_label_answer_shows_the_predicted_classes_by_default():
    task = MultiLabelClassification(name="tags", labels=["a", "b", "c"])
    for logits in (np.array([2.0, -1.0, 3.0]), np.array([-2.0, -1.0, -3.0])):
        shown = [entry["label"] for entry in task.kind.answer(logits, [], "", PREDICTED)]
        assert sorted(shown) == task.kind.decode(logits)
    assert len(task.kind.answer(np.zeros(3), [], "", 2)) == 2
    assert len(task.kind.answer(np.zeros(3), [], "", None)) == 3


def test_plain_data_of_a_task_has_options_between_labels_and_type():
    assert list(NER.to_dict().items()) == [
        ("name", "ner"),
        ("labels", ["O", "B-PER", "I-PER"]),
        ("scheme", "iob2"),
        ("type", "token-classification"),
    ]
    assert [task.options for task in (POS, SCORE)] == [{}, {"normalize": True}]


def test_task_builds_its_kind_once_and_a_relabelled_copy_builds_a_new_one():
    assert TOPIC.kind is TOPIC.kind
    assert TOPIC.with_labels(["a"]).kind.labels == ("a",)


@pytest.fixture
def stars(monkeypatch):
    """Return a function that defines a class of the same name, as a notebook cell does; the table is restored."""
    monkeypatch.setattr("mtl_nlp.modeling.tasks_multitask.TASK_TYPES", TASK_TYPES.copy())

    def build() -> type[Regression]:
        @dataclass(frozen=True, kw_only=True)
        class Stars(Regression):
            type: ClassVar[str] = "stars"

        return Stars

    return build


def test_registered_type_round_trips_and_can_be_redefined(stars):
    first = register_task_type(stars())
    assert type(task_from_dict({"name": "s", "type": "stars"})) is first
    again = register_task_type(stars())
    assert type(task_from_dict({"name": "s", "type": "stars"})) is again is not first


def test_type_with_a_name_in_use_is_refused(stars):
    taken = stars()
    taken.type = "regression"
    message = (
        r"should be unique\. Found 'regression', which belongs to mtl_nlp.*\.Regression\. Give .*Stars a different"
    )
    with pytest.raises(ValueError, match=message):
        register_task_type(taken)
    assert type(task_from_dict({"name": "s", "type": "regression"})) is Regression


def test_name_and_labels_can_be_positional_and_options_cannot():
    task = TextClassification("topic", ["news", "sport"], pooling="mean")
    assert task == TextClassification(name="topic", labels=["news", "sport"], pooling="mean")
    assert Regression("score") == Regression(name="score")
    with pytest.raises(TypeError, match="positional"):
        TextClassification("topic", ["news", "sport"], "mean")
