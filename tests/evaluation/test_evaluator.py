from __future__ import annotations

import numpy as np
import pytest
import torch
from datasets import Dataset

from mtl_nlp import Regression, TaskMixture, TextClassification, TokenClassification
from mtl_nlp.data.canonical import canonical_rows
from mtl_nlp.data.encoding import EncodedDataset, encode_dataset
from mtl_nlp.evaluation.evaluator import (
    Evaluation,
    Pieces,
    decode_pieces,
    labelled_words,
    pieces_of_batch,
    score,
    score_model,
)
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.run.arguments import training_arguments
from mtl_nlp.run.build import build_model, build_trainer
from mtl_nlp.run.prepare import prepare

POS = TokenClassification(name="pos", labels=["A", "B"])
NER = TokenClassification(name="ner", labels=["O", "B-X", "I-X"], scheme="iob2")
TOPIC = TextClassification(name="topic", labels=["news", "sport"])
SCORE = Regression(name="score")
TASKS = {task.name: task for task in (POS, NER, TOPIC, SCORE)}


def split(**references: list) -> EncodedDataset:
    """Return a split with these references and no windows."""
    columns = Dataset.from_dict(references)
    return EncodedDataset("d/test", Dataset.from_dict({}), {task: columns[task] for task in references}, 0, 0, "")


def test_frames_are_texts_whose_class_and_spans_are_all_right():
    gold = split(ner=[["O", "B-X"], ["O"], None, ["B-X"]], topic=["news", "sport", "news", "news"], pos=[["A"]] * 4)
    found = {
        "ner": [["O", "B-X"], ["B-X"], ["O"], ["B-X"]],
        "topic": ["news", "sport", "news", "sport"],
        "pos": [["B"]] * 4,
    }
    evaluation = score({"d": found}, {"d": gold}, TASKS)
    assert evaluation.frames == {"d": pytest.approx(1 / 3)}
    assert "frames" not in evaluation.flat()
    assert score({"d": found}, {"d": split(topic=["news"] * 4, pos=[["A"]] * 4)}, TASKS).frames == {}
    more = {**TASKS, "other": TextClassification(name="other", labels=["news", "sport"])}
    two = split(ner=[["O"]], topic=["news"], other=["news"])
    assert score({"d": {"ner": [["O"]], "topic": ["news"], "other": ["news"]}}, {"d": two}, more).frames == {}


def one_hot(tags: list[int], classes: int = 3) -> np.ndarray:
    return np.eye(classes, dtype=np.float32)[tags]


@pytest.fixture(scope="module")
def long_texts(tokenizers) -> EncodedDataset:
    """Return texts of 3, 200, 1 and 60 words; the third text has no label."""
    lengths = [3, 200, 1, 60]
    labels = [["A"] * 3, ["B"] * 200, None, ["A"] * 60]
    rows = Dataset.from_dict(
        {"tokens": [["dog"] * n for n in lengths], "pos": labels, "topic": ["news", None, None, "sport"]}
    )
    rows = canonical_rows(
        rows, "long", inputs={"tokens": "tokens"}, labels={"pos": "pos", "topic": "topic"}, tasks=TASKS
    )
    return encode_dataset("long", rows, TASKS, tokenizers["wordpiece"], reads_words=True, max_length=32, stride=8)


def piece(task, row, words, logits):
    """Return the logits of one window."""
    return Pieces(task, np.array([row]), np.array([*words, -1][:1]), [logits])


def test_windows_are_joined_in_word_order_regardless_of_reading_order(long_texts):
    windows = long_texts.windows.filter(lambda row: row["row"] == 1)
    assert len(windows) > 2
    pieces = [
        piece("pos", 1, window["words"], one_hot([word % 2 for word in window["words"]], 2))
        for window in reversed(list(windows))
    ]
    predicted = decode_pieces(pieces, long_texts, TASKS)["pos"][1]
    assert predicted == ["A", "B"] * 100


def test_span_can_cross_the_border_of_two_windows():
    pieces = [piece("ner", 0, [2, 3], one_hot([2, 0])), piece("ner", 0, [0, 1], one_hot([0, 1]))]
    predicted = decode_pieces(pieces, split(ner=[["O"] * 4]), TASKS)
    assert predicted == {"ner": [["O", "B-X", "I-X", "O"]]}


def test_words_without_a_label_are_not_scored():
    references = split(pos=[["A", None, "B"], ["A", "A", "A"]], ner=[["B-X", None, "B-X"], ["O", "O", "O"]])
    predictions = {"pos": [["A", "A", "A"], ["A"] * 3], "ner": [["B-X", "I-X", "O"], ["O"] * 3]}
    scores = score({"d": predictions}, {"d": references}, {"pos": POS, "ner": NER}).scores
    assert scores["pos"] == {"accuracy": 4 / 5}
    assert scores["ner"]["precision"] == 1.0
    assert scores["ner"]["recall"] == 0.5
    assert labelled_words("a", "b") == ("a", "b")


def test_predictions_are_in_row_order_and_none_for_unread_rows():
    pieces = [piece("topic", 2, [], np.array([0.0, 1.0])), piece("topic", 0, [], np.array([1.0, 0.0]))]
    predicted = decode_pieces(pieces, split(topic=["news", None, "news"]), TASKS)
    assert predicted == {"topic": ["news", None, "sport"]}


def test_piece_has_the_first_sub_word_logits_of_the_words_of_its_window():
    features = [
        {"row": 7, "words": [0, 1], "positions": [1, 3]},
        {"row": 8, "words": [4], "positions": [2]},
    ]
    logits = {"pos": torch.arange(8.0).reshape(1, 4, 2), "topic": torch.tensor([[1.0, 2.0], [3.0, 4.0]])}
    rows = {"pos": torch.tensor([1]), "topic": torch.tensor([0, 1])}
    pieces = pieces_of_batch(features, rows, logits, {"pos": POS, "topic": TOPIC})
    found = [(p.task, p.rows.tolist(), p.first_words.tolist(), [each.tolist() for each in p.logits]) for p in pieces]
    assert found == [("pos", [8], [4], [[[4.0, 5.0]]]), ("topic", [7, 8], [0, 4], [[1.0, 2.0], [3.0, 4.0]])]


def test_bfloat16_logits_are_split():
    rows, logits = {"topic": torch.tensor([0])}, {"topic": torch.tensor([[1.0, 2.0]], dtype=torch.bfloat16)}
    (pieces,) = pieces_of_batch([{"row": 0, "words": [], "positions": []}], rows, logits, {"topic": TOPIC})
    assert pieces.logits[0].dtype == np.float32


def test_text_without_words_has_an_empty_prediction():
    pieces = [piece("ner", 0, [], np.empty((0, 3), dtype=np.float32))]
    assert decode_pieces(pieces, split(ner=[[]]), TASKS) == {"ner": [[]]}


def test_rows_without_a_reference_are_not_scored():
    evaluation = score({"d": {"topic": ["news", "news", "sport"]}}, {"d": split(topic=["news", None, "news"])}, TASKS)
    assert evaluation.scores["topic"]["accuracy"] == 0.5


def test_task_is_scored_on_all_datasets_that_feed_it():
    datasets = {"one": split(topic=["news", "news", "news"]), "two": split(topic=["sport"], score=[1.0])}
    predictions = {"one": {"topic": ["news"] * 3}, "two": {"topic": ["news"], "score": [0.5]}}
    evaluation = score(predictions, datasets, TASKS)
    assert evaluation.scores["topic"]["accuracy"] == 0.75
    assert evaluation.scores["score"]["mse"] == 0.25


def test_task_without_labelled_rows_is_not_scored():
    datasets = {"d": split(topic=["news"], score=[None])}
    evaluation = score({"d": {"topic": ["news"], "score": [None]}}, datasets, TASKS)
    assert set(evaluation.scores) == {"topic"}
    assert evaluation.mtl_score == 1.0


def test_mtl_score_is_the_mean_of_the_primary_scores():
    datasets = {"d": split(topic=["news", "sport"], pos=[["A", "B"], ["A", "A"]], ner=[["B-X"], ["O"]])}
    predictions = {"d": {"topic": ["news", "news"], "pos": [["A", "B"], ["A", "B"]], "ner": [["B-X"], ["B-X"]]}}
    evaluation = score(predictions, datasets, TASKS)
    assert evaluation.scores["ner"]["precision"] == 0.5
    assert evaluation.mtl_score == pytest.approx((0.5 + 0.75 + 2 / 3) / 3)


def test_scores_are_flattened_to_the_names_in_trainer_logs():
    evaluation = Evaluation({"pos": {"accuracy": 0.5}, "ner": {"f1": 1.0, "recall": 0.25}}, 0.75)
    assert evaluation.flat() == {"pos_accuracy": 0.5, "ner_f1": 1.0, "ner_recall": 0.25, "mtl_score": 0.75}


@pytest.mark.parametrize("rows_per_batch", [7, 32])
def test_scores_with_and_without_a_trainer_are_equal(quick_recipe, rows_per_batch):
    recipe = Recipe.from_dict(quick_recipe)
    run = prepare(recipe)
    model = build_model(run)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.25)
    rows = run.splits["test"]
    assert rows["sample"].num_windows > rows["sample"].num_rows  # some texts are cut into windows
    expected = build_trainer(run, model, training_arguments(recipe)).score(rows)
    found = score_model(model.eval(), rows, run.tasks, run.tokenizer, rows_per_batch)
    assert list(found.scores) == list(run.tasks)
    assert found.flat() == pytest.approx(expected.flat(), abs=1e-9)


def test_an_evaluation_and_a_split_show_themselves_in_a_few_lines(long_texts):
    shown = repr(Evaluation({"pos": {"accuracy": 0.5}}, 0.5, {"d": 0.25}))
    assert [line.split() for line in shown.splitlines()[2:]] == [
        ["pos", "accuracy", "0.5000"], ["d", "frame", "accuracy", "0.2500"], ["all", "mtl_score", "0.5000"]
    ]  # fmt: skip
    assert len(long_texts) == long_texts.num_windows > 4
    assert long_texts[0] == long_texts.windows[0]
    assert repr(long_texts) == f"EncodedDataset(long: 4 rows, {len(long_texts)} windows; labels: pos 3, topic 2)"
    mixture = TaskMixture({"long": long_texts})
    assert repr(mixture).startswith(
        f"TaskMixture(mixed batches, {len(mixture)} windows)\ndataset  rows  probability  tasks"
    )
