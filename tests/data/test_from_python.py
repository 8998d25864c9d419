"""Datasets from Python: columns, inferred label spaces, and labels on both sides."""

from __future__ import annotations

import dataclasses

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, IterableDataset, Value

from mtl_nlp import DataError, Regression, TaskMixture, TextClassification, TokenClassification, encode
from mtl_nlp.data.from_python import Columns, check_label_spaces, named_datasets

POS = TokenClassification("pos", ["NOUN", "VERB"])
TOPIC = TextClassification("topic", ["news", "sport"])
WORDS = Dataset.from_dict({"words": [["Dogs", "bark"], ["Birds", "sing"]], "tags": [["NOUN", "VERB"]] * 2})
TEXTS = Dataset.from_dict({"text": ["What a day!", "Never again.", "Yes."], "kind": ["sport", "news", None]})
BY_DATASET = {
    "inputs": {"words": {"tokens": "words"}, "texts": {"text": "text"}},
    "labels": {"words": {"pos": "tags"}, "texts": {"topic": "kind"}},
}


@pytest.fixture(scope="module")
def tokenizer(tokenizers):
    return tokenizers["wordpiece"]


def encoded(tokenizer, task=TOPIC, rows=TEXTS, **options):
    arguments = {"inputs": {"text": "text"}, "labels": {task.name: "kind"}, "tasks": [task], "tokenizer": tokenizer}
    return encode(rows, **{**arguments, **options})


def test_raw_datasets_become_a_mixture_whose_tasks_have_the_labels_of_the_training_rows(tokenizer):
    named = Features({"text": Value("string"), "kind": ClassLabel(names=["sport", "news", "travel"])})
    texts = Dataset.from_dict({"text": ["a", "b"], "kind": [1, 0]}, features=named)
    tasks = [TokenClassification("pos"), TextClassification("topic")]
    for second in (texts, DatasetDict({"train": texts, "test": texts})):
        mixture = TaskMixture({"words": WORDS, "texts": second}, 2.0, tasks=tasks, tokenizer=tokenizer, **BY_DATASET)
        assert [task.labels for task in mixture.tasks] == [("NOUN", "VERB"), ("sport", "news", "travel")]
        assert mixture.sizes.tolist() == [2, 2]
        assert mixture.datasets["texts"].references["topic"][:] == ["news", "sport"]
        assert mixture.datasets["texts"].label_spaces == {"topic": ("sport", "news", "travel")}


def test_given_labels_are_kept_and_one_dataset_needs_no_names(tokenizer):
    mixture = TaskMixture(
        TEXTS, inputs={"text": "text"}, labels={"topic": "kind"}, tasks=[POS, TOPIC], tokenizer=tokenizer
    )
    assert mixture.tasks == [POS, TOPIC]
    assert list(mixture.datasets) == ["data"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": None}, r"^words: a raw dataset needs `inputs=`, such as .*Found None\.$"),
        (
            {"labels": {"words": {"pos": "tags"}, "other": {}}},
            r"^`labels` should give the columns of each dataset, .*'texts'",
        ),
        ({"labels": {"words": {"poss": "tags"}, "texts": {}}}, r"^words: `labels` should name tasks .*'pos'\?"),
        ({"tasks": ()}, r"^words: a raw dataset needs `tasks=`"),
        ({"tokenizer": None}, r"^Raw datasets need a tokenizer\. Pass `tokenizer=`"),
        ({"tasks": [POS, TOPIC, TextClassification("x")]}, r"^Task 'x': no raw dataset has labels for the task"),
    ],
)
def test_missing_parts_of_raw_datasets_are_named_in_one_line(tokenizer, changes, message):
    arguments = {"tasks": [POS, TOPIC], "tokenizer": tokenizer, **BY_DATASET}
    with pytest.raises(DataError, match=message):
        TaskMixture({"words": WORDS, "texts": TEXTS}, **{**arguments, **changes})


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (IterableDataset.from_generator(lambda: iter([{"text": "a"}])), r"^d: an IterableDataset .*num_rows"),
        (DatasetDict({"dev": TEXTS}), r"^d: the DatasetDict has no split 'train'\. Found dev\.$"),
        ([{"text": "a"}], r"^d: a dataset should be an EncodedDataset .*Found list\.$"),
    ],
)
def test_values_that_are_no_datasets_are_refused_in_one_line(tokenizer, dataset, message):
    with pytest.raises(DataError, match=message):
        TaskMixture(
            {"d": dataset}, inputs={"text": "text"}, labels={"topic": "kind"}, tasks=[TOPIC], tokenizer=tokenizer
        )
    with pytest.raises(DataError, match=r"should be a dict from names to datasets\. Found list"):
        TaskMixture([dataset])


def test_labels_that_match_no_label_of_the_task_are_an_error_with_both(tokenizer):
    with pytest.raises(DataError, match="The task has 'News', 'Sport'; the rows have 'news', 'sport'"):
        encoded(tokenizer, TextClassification("topic", ["News", "Sport"]))
    spans = Dataset.from_dict({"text": [["a", "b"]], "kind": [["O", "B-PER"]]})
    task = TokenClassification("ner", ["O", "B-per", "I-per"], scheme="iob2")
    with pytest.raises(DataError, match="has no label of the rows"):
        encoded(tokenizer, task, spans, inputs={"tokens": "text"})
    with pytest.raises(DataError, match="task 'topic' has no labels, and the rows have 'news', 'sport'"):
        encoded(tokenizer, TextClassification("topic"))
    assert encoded(tokenizer, Regression("score"), TEXTS.remove_columns("kind").add_column("kind", [1.0, 2.0, 3.0]))


def test_labels_of_some_rows_outside_of_the_label_space_are_evaluated_but_not_trained(tokenizer):
    unknown = encoded(tokenizer, TextClassification("topic", ["news", "travel"]))
    assert unknown.unknown_labels == {"topic": ["sport"]}
    with pytest.raises(
        DataError, match=r"^d: the training rows have the labels 'sport', which task 'topic' does not have"
    ):
        TaskMixture({"d": unknown})


def test_data_for_a_different_label_space_or_task_is_refused(tokenizer):
    data = encoded(tokenizer)
    check_label_spaces("d", data, {"topic": TOPIC, "pos": POS})
    with pytest.raises(DataError, match="was encoded with 'news', 'sport'; the model has 'sport', 'news'"):
        check_label_spaces("d", data, {"topic": TextClassification("topic", ["sport", "news"])})
    with pytest.raises(DataError, match=r"^d: has labels for task 'topic', and the model has pos"):
        check_label_spaces("d", data, {"pos": POS})


def test_rows_without_text_are_skipped_as_in_a_recipe(tokenizer):
    rows = {"text": ["a", None, "c"], "kind": ["news", "sport", "sport"]}
    assert encoded(tokenizer, rows=Dataset.from_dict(rows)).references["topic"][:] == ["news", "sport"]
    stream = encoded(tokenizer, rows=Dataset.from_dict(rows).to_iterable_dataset(), num_rows=2)
    assert stream.num_rows == 2


def test_for_prediction_all_rows_have_all_windows(tokenizer):
    long = Dataset.from_dict({"text": ["a", "dog " * 60, "b"], "kind": ["news", None, None]})
    columns = Columns({"text": "text"}, {"topic": "kind"}, (POS, TOPIC), tokenizer, max_length=20)
    trained = columns.encode({"d": long}, "train")["d"]
    assert trained.num_windows == 1
    unlabelled = long.remove_columns("kind")
    for given, fed in ((trained, ["topic"]), (long, ["topic"]), (DatasetDict({"test": unlabelled}), [])):
        answered = columns.for_prediction(given, "d")
        assert (answered.num_rows, list(answered.references)) == (3, fed)
        rows = answered.windows["row"][:]
        assert set(rows) == {0, 1, 2} and rows.count(1) > 3
    with pytest.raises(DataError, match="does not hold its texts"):
        columns.for_prediction(dataclasses.replace(trained, inputs={}), "d")


def test_single_datasets_have_a_name(tokenizer):
    assert list(named_datasets(TEXTS)) == ["data"]
    assert list(named_datasets(encoded(tokenizer, name="mine"))) == ["mine"]
    assert named_datasets([TEXTS]) is None
