from __future__ import annotations

import pytest
from runs_of_predictions import run_of

from mtl_nlp import MultiLabelClassification, Regression, TextClassification, TokenClassification
from mtl_nlp.transfer.examples import MOST_CHARACTERS, examples

CLASSES = TextClassification(name="t", labels=["a", "b"])
SPANS = TokenClassification(name="t", labels=["O", "B-X", "I-X"], scheme="iob2")
RIGHT = run_of([*"aaaa"], [*"aaaa"])


def test_the_surest_wrong_answers_come_first():
    wrong = run_of([*"abbb"], [*"aaaa"], score=[0.9, 0.6, 0.99, None])
    found, total = examples([RIGHT] * 3, [wrong] * 3, CLASSES)
    assert [(each.row, each.gold, each.right, each.wrong, each.sure) for each in found] == [
        (2, "a", "a", "b", pytest.approx(0.99)),
        (1, "a", "a", "b", pytest.approx(0.6)),
        (3, "a", "a", "b", None),
    ]
    assert total == 3
    assert examples([wrong], [RIGHT], CLASSES) == ([], 0)
    cut, total = examples([RIGHT], [wrong], CLASSES, most=1)
    assert (len(cut), total) == (1, 3)


def test_a_side_is_right_or_wrong_by_the_majority_of_its_runs():
    runs = [run_of([*"abbb"], [*"aaaa"]), run_of([*"aabb"], [*"aaaa"]), run_of([*"aaab"], [*"aaaa"])]
    assert [each.row for each in examples([RIGHT], runs, CLASSES)[0]] == [2, 3]
    # One of two runs is neither.
    assert [each.row for each in examples([RIGHT], runs[:2], CLASSES)[0]] == [2, 3]
    assert examples(runs[:2], [run_of([*"bbbb"], [*"aaaa"])], CLASSES)[1] == 1


def test_the_wrong_answer_is_that_of_the_runs_that_are_wrong():
    # The three answers are equally frequent, and the first one is correct.
    runs = [run_of([label], ["a"]) for label in "abc"]
    ((example,), _) = examples([run_of(["a"], ["a"])], runs, CLASSES)
    assert (example.right, example.wrong) == ("a", "b")


def test_words_of_an_example_are_those_that_are_wrong():
    tokens = [["Ada", "met", "Bo", "Li"]]
    gold = [["B-X", "O", "B-X", "I-X"]]
    right = run_of(gold, gold, tokens=tokens)
    wrong = run_of([["B-X", "O", "O", "O"]], gold, tokens=tokens, score=[[0.9, 0.9, 0.5, 0.7]])
    ((example,), _) = examples([right], [wrong], SPANS)
    assert example.text == "Ada met Bo Li"
    assert example.words == ["Bo", "Li"]
    assert (example.gold, example.right, example.wrong) == (["B-X", "I-X"], ["B-X", "I-X"], ["O", "O"])
    assert example.sure == 0.7
    assert example.to_dict()["row"] == 0


def test_long_texts_are_cut_around_the_error():
    tokens = [["word"] * 1000 + ["Ada"] + ["word"] * 1000]
    gold = [["O"] * 1000 + ["B-X"] + ["O"] * 1000]
    ((example,), _) = examples(
        [run_of(gold, gold, tokens=tokens)], [run_of([["O"] * 2001], gold, tokens=tokens)], SPANS
    )
    assert len(example.text) == MOST_CHARACTERS
    assert "Ada" in example.text
    assert example.text[0] == example.text[-1] == "…"


def test_a_text_or_word_of_megabytes_is_cut():
    long = ["x" * 2_000_000]
    ((example,), _) = examples([run_of(["a"], ["a"], text=long)], [run_of(["b"], ["a"], text=long)], CLASSES)
    assert len(example.text) == MOST_CHARACTERS
    pair = {"text": long, "text_pair": long}
    ((example,), _) = examples([run_of(["a"], ["a"], **pair)], [run_of(["b"], ["a"], **pair)], CLASSES)
    assert len(example.text) <= MOST_CHARACTERS
    assert " | " in example.text
    tokens = [long]
    sides = [[run_of([labels], [["B-X"]], tokens=tokens)] for labels in (["B-X"], ["O"])]
    ((example,), _) = examples(*sides, SPANS)
    assert max(map(len, [example.text, *example.words])) <= MOST_CHARACTERS


def test_numbers_have_the_largest_errors_first():
    gold = [1.0, 2.0, 3.0]
    right, wrong = run_of([1.1, 2.0, 5.0], gold), run_of([3.0, 5.0, 3.0], gold)
    found, _ = examples([right], [wrong, wrong], Regression(name="t"))
    assert [(each.row, each.sure, each.wrong) for each in found] == [(1, 3.0, 5.0), (0, 2.0, 3.0)]


def test_sets_of_classes_have_the_probability_of_the_wrong_decision():
    task = MultiLabelClassification(name="t", labels=["x", "y"])
    wrong = run_of([["x"]], [["x", "y"]], score=[{"x": 0.99, "y": 0.1}])
    ((example,), _) = examples([run_of([["x", "y"]], [["x", "y"]])], [wrong], task)
    assert (example.wrong, example.sure) == (["x"], 0.9)
