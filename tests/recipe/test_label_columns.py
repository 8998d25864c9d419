from __future__ import annotations

import pytest
from small_datasets import TYPES

from mtl_nlp.modeling.tasks_multitask import task_from_dict
from mtl_nlp.recipe.label_columns import LabelSource, check_label_columns, columns_of

TASKS = {name: task_from_dict({"name": name, **options}) for name, options in TYPES.items()}


def test_columns_are_named_alone_in_a_list_or_with_options():
    labels = {"topic": "a", "tags": ["x", "y"], "ner": {"column": "spans", "alignment_mode": "expand"}, "more": "a"}
    assert columns_of(labels) == ["a", "x", "y", "spans"]
    assert LabelSource.of(labels["ner"]).alignment_mode == "expand"
    assert [LabelSource.of(labels[task]).place for task in ("topic", "tags")] == ["column 'a'", "columns 'x', 'y'"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (3, r"should be a column, a list of columns .*Found 3"),
        ([], "should be a column, a list of columns"),
        (["x", "x"], "each column should be named once"),
        ({"delimiter": ";"}, "an object with a `column`"),
        ({"column": "x", "delimeter": ";"}, "unknown key 'delimeter'. Did you mean 'delimiter'"),
        ({"column": "x", "delimiter": ""}, "`delimiter` should be a text"),
        ({"column": "x", "alignment_mode": "loose"}, "should be one of strict, contract, expand. Found 'loose'"),
    ],
)
def test_columns_of_a_different_form_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        LabelSource.of(given)


@pytest.mark.parametrize(
    ("inputs", "labels", "label_map", "message"),
    [
        (
            ["text"],
            {"pos": "y"},
            {},
            "^labels.pos: a token-classification task needs the input `tokens`, or a `scheme`",
        ),
        (["text", "text_pair"], {"ner": "y"}, {}, "needs the input `tokens`. This dataset has only text, text_pair"),
        (["text"], {"topic": ["a", "b"]}, {}, "^labels.topic: a list of columns is for tasks with a set of classes"),
        (["text"], {"topic": {"column": "a", "delimiter": ";"}}, {}, "a `delimiter` is for tasks with a set"),
        (["tokens"], {"ner": {"column": "a", "alignment_mode": "strict"}}, {}, "needs the input `text`"),
        (["text"], {"topic": 3}, {}, "^labels.topic: should be a column"),
        (["text"], {"topic": "a"}, {"topics": {}}, "^label_map.topics: no such task under `labels`. .*'topic'"),
        (["text"], {"score": "a"}, {"score": {"a": "b"}}, "^label_map.score: a regression task has no label names"),
    ],
)
def test_columns_that_do_not_fit_the_task_are_refused(inputs, labels, label_map, message):
    with pytest.raises(ValueError, match=message):
        check_label_columns(inputs, labels, label_map, TASKS)


def test_spans_of_one_text_and_sets_in_columns_are_accepted():
    check_label_columns(["text"], {"ner": "spans", "tags": ["a", "b"]}, {"ner": {"PERSON": "PER"}}, TASKS)
