"""The contract of label kinds: columns, padding, units, weights, cutting."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import mtl_nlp
from mtl_nlp.modeling.label_kinds_multitask import IGNORED, LabelKind, TextKind, WordKind, has_target
from mtl_nlp.modeling.text_kinds_multitask import ClassesPerText, ClassPerText, NumberPerText
from mtl_nlp.modeling.word_kinds_multitask import ClassPerWord, SpansOfWords

POS = ClassPerWord("pos", ["a", "b", "c"])
NER = SpansOfWords("ner", ["O", "B-X", "I-X"], "iob2")
TOPIC = ClassPerText("topic", ["a", "b", "c"])
TAGS = ClassesPerText("tags", ["a", "b", "c"])
SCORE = NumberPerText("score")
ALL = [POS, NER, TOPIC, TAGS, SCORE]
LABELS = {"pos": ["a", "c"], "ner": ["B-X", "I-X"], "topic": "b", "tags": ["a", "c"], "score": 1.5}
TARGETS = {"pos": [0, 2], "ner": [1, 2], "topic": 1, "tags": [1.0, 0.0, 1.0], "score": 1.5}


def by_name(kind: LabelKind) -> str:
    return kind.name


def test_tasks_and_kinds_are_imported_without_torch_and_transformers():
    code = "import sys, modeling.tasks_multitask; print({'torch', 'transformers', 'peft'} & set(sys.modules))"
    folder = Path(mtl_nlp.__file__).parent  # imported from here, since the package's __init__ may import them
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("kind", ALL, ids=by_name)
def test_names_of_transformers_and_peft_match_the_level(kind):
    around = (kind.auto_class, kind.pipeline_task, kind.peft_task_type, kind.labels_words)
    if kind.level == "token":
        assert around == ("AutoModelForTokenClassification", "token-classification", "TOKEN_CLS", True)
    else:
        assert around == ("AutoModelForSequenceClassification", "text-classification", "SEQ_CLS", False)


@pytest.mark.parametrize("kind", ALL, ids=by_name)
def test_label_becomes_a_target_with_names_from_the_label_space(kind):
    label = kind.check(LABELS[kind.name])
    assert kind.target_of(label) == TARGETS[kind.name]
    assert set(kind.names_in(label)) <= set(kind.labels)
    assert bool(list(kind.names_in(label))) is kind.has_label_space
    assert kind.count_repairs(label, label) == 0


@pytest.mark.parametrize("kind", ALL, ids=by_name)
def test_labels_and_targets_have_the_types_of_their_columns(kind):
    types = {"string": str, "float64": float, "float32": float, "int32": int}
    for feature, value in ((kind.label_feature, LABELS[kind.name]), (kind.target_feature, TARGETS[kind.name])):
        assert isinstance(value, list) is feature.is_list
        assert {type(one) for one in (value if feature.is_list else [value])} == {types[feature.dtype]}


def test_word_targets_are_at_the_first_sub_words():
    padded = POS.pad([[0, 2], [], [1]], [[1, 3], [], [2]], 5)
    assert padded.dtype == np.int64
    assert padded.tolist() == [
        [IGNORED, 0, IGNORED, 2, IGNORED],
        [IGNORED] * 5,
        [IGNORED, IGNORED, 1, IGNORED, IGNORED],
    ]


def test_row_with_more_targets_than_words_is_refused():
    with pytest.raises(
        ValueError,
        match=r"Task 'pos': each row should have one target per word\. Found \[2, 1\] targets for \[1, 2\] words\.",
    ):
        POS.pad([[0, 2], [1]], [[1], [1, 2]], 5)


@pytest.mark.parametrize(
    ("kind", "targets", "dtype", "padded"),
    [
        (TOPIC, [2, IGNORED], np.int64, [2, IGNORED]),
        (TAGS, [[1.0, 0.0, 1.0]], np.float32, [[1.0, 0.0, 1.0]]),
        (SCORE, [0.5, -1.0], np.float32, [0.5, -1.0]),
    ],
    ids=["topic", "tags", "score"],
)
def test_text_targets_are_stacked(kind, targets, dtype, padded):
    found = kind.pad(targets, [[]] * len(targets), 5)
    assert (found.dtype, found.tolist()) == (dtype, padded)


@pytest.mark.parametrize(
    ("kind", "shape"), [(POS, (0, 5)), (NER, (0, 5)), (TOPIC, (0,)), (TAGS, (0, 3)), (SCORE, (0,))]
)
def test_padding_of_no_rows_has_the_same_shape_except_for_the_rows(kind, shape):
    empty, one = kind.pad([], [], 5), kind.pad([TARGETS[kind.name]], [[1, 2]], 5)
    assert empty.shape == shape
    assert (one.shape[1:], one.dtype) == (shape[1:], empty.dtype)


def test_word_targets_that_are_numbers_are_padded_with_nan():
    class NumberPerWord(ClassPerWord):
        target_feature = SCORE.target_feature

    padded = NumberPerWord("n").pad([[0.5]], [[1]], 3)
    assert padded.dtype == np.float32
    assert [math.isnan(value) for value in padded[0]] == [True, False, True]


@pytest.mark.parametrize(
    ("kind", "targets", "units"),
    [
        (POS, torch.tensor([[1, -100], [0, 2]]), 3),
        (TOPIC, torch.tensor([1, -100]), 1),
        (TAGS, torch.zeros(2, 3), 6),
        (SCORE, torch.zeros(4), 4),
        (SCORE, torch.tensor([1.0, math.nan]), 1),
        (TOPIC, torch.zeros(0, dtype=torch.long), 0),
        (POS, torch.tensor([[[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]]), 1),
        (TOPIC, torch.tensor([[0.2, 0.8, 0.0], [0.0, 0.0, 1.0]]), 2),
    ],
)
def test_mean_loss_is_divided_by_the_units(kind, targets, units):
    count = kind.count_units(targets)
    assert int(count) == units
    assert not count.is_floating_point()
    assert int(kind.count_units(targets, torch.tensor(0.5)) * 2) == units


def test_labelled_units_are_counted_by_weight():
    weights = torch.tensor([[0.5, 9.0], [2.0, 0.25]])
    assert POS.count_units(torch.tensor([[1, -100], [0, 2]]), weights).item() == 2.75
    assert TOPIC.count_units(torch.tensor([1, -100]), torch.tensor([0.5, 9.0])).item() == 0.5
    rows = torch.tensor([2.0, 0.5])  # one weight per row, which applies to all three decisions of the row
    assert TAGS.count_units(torch.zeros(2, 3), rows[:, None]).item() == 7.5


CASES = [
    (POS, (2, 4, 3), torch.tensor([[1, -100, 0, 2], [-100, 2, -100, 1]]), (2, 4)),
    (NER, (2, 4, 3), torch.tensor([[1, -100, 0, 2], [-100, 2, -100, 1]]), (2, 4)),
    (TOPIC, (3, 3), torch.tensor([2, -100, 1]), (3,)),
    (TAGS, (2, 3), torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]]), (2, 3)),
    (SCORE, (3, 1), torch.tensor([0.5, -1.0, 2.0]), (3,)),
]


@pytest.mark.parametrize(("kind", "shape", "targets", "units"), CASES, ids=[case[0].name for case in CASES])
def test_weight_of_two_counts_a_unit_twice_in_loss_and_count(kind, shape, targets, units):
    torch.manual_seed(0)
    logits = torch.randn(shape)
    weights = torch.randint(0, 3, units)
    repeated = [
        (kind.loss_sum(logits, one), int(kind.count_units(one)))
        for index in range(1, 3)
        for one in [targets.masked_fill(weights < index, math.nan if targets.is_floating_point() else IGNORED)]
    ]
    loss, count = kind.loss_sum(logits, targets, weights.float()), kind.count_units(targets, weights)
    torch.testing.assert_close(loss, repeated[0][0] + repeated[1][0], rtol=0, atol=1e-5)
    assert int(count) == repeated[0][1] + repeated[1][1]


@pytest.mark.parametrize(("kind", "shape", "targets", "units"), CASES, ids=[case[0].name for case in CASES])
def test_weights_of_one_change_nothing(kind, shape, targets, units):
    torch.manual_seed(0)
    logits = torch.randn(shape)
    plain, weighted = kind.loss_sum(logits, targets), kind.loss_sum(logits, targets, torch.ones(units))
    torch.testing.assert_close(weighted, plain, rtol=0, atol=1e-6)
    assert kind.count_units(targets, torch.ones(units)) == kind.count_units(targets)


@pytest.mark.parametrize("kind", [TAGS, SCORE], ids=by_name)
def test_label_smoothing_changes_only_cross_entropy(kind):
    torch.manual_seed(0)
    logits, targets = (torch.randn(2, 3), torch.ones(2, 3)) if kind is TAGS else (torch.randn(2, 1), torch.ones(2))
    assert torch.equal(kind.loss_sum(logits, targets), kind.loss_sum(logits, targets, label_smoothing=0.3))


def test_units_are_labelled_unless_ignored_or_nan():
    assert has_target(torch.tensor([IGNORED, 0, 3])).tolist() == [False, True, True]
    assert has_target(torch.tensor([-100.0, math.nan, 0.0])).tolist() == [True, False, True]


def test_word_logits_are_cut_out_of_a_batch_and_joined():
    batch = np.arange(20.0).reshape(2, 5, 2)
    first, second = POS.cut(batch[0], [1, 2]), POS.cut(batch[1], [3])
    assert first.tolist() == [[2.0, 3.0], [4.0, 5.0]]
    assert POS.join([first, second]).tolist() == [[2.0, 3.0], [4.0, 5.0], [16.0, 17.0]]
    assert POS.cut(batch[0], []).shape == (0, 2)


def test_text_logits_are_those_of_the_first_window():
    batch = np.arange(6.0).reshape(2, 3)
    windows = [TOPIC.cut(row, [1, 2]) for row in batch]
    assert TOPIC.join(windows).tolist() == [0.0, 1.0, 2.0]


@pytest.mark.parametrize(("kind", "logits"), [(POS, np.zeros((2, 5, 3))), (TOPIC, np.zeros((2, 3)))])
def test_cut_logits_do_not_share_memory_with_the_batch(kind, logits):
    cut = kind.cut(logits[0], [1])
    assert cut.base is None or cut.base.size < logits.size


@pytest.mark.parametrize(("kind", "shape"), [(POS, (7, 3)), (NER, (7, 3)), (TOPIC, (3,)), (TAGS, (3,)), (SCORE, (1,))])
def test_row_logits_have_one_number_per_output(kind, shape):
    assert kind.logits_shape(7) == shape


def test_words_have_targets_in_every_window_and_texts_in_the_first_only():
    label = ["a", "b", "c", "a"]
    assert [POS.target_of_window(label, words, number) for number, words in enumerate(([0, 1], [2, 3]))] == [
        [0, 1],
        [2, 0],
    ]
    assert [TOPIC.target_of_window("c", [], number) for number in range(3)] == [2, None, None]


@pytest.mark.parametrize("level", [WordKind, TextKind])
def test_kind_with_abstract_methods_cannot_be_instantiated(level):
    with pytest.raises(TypeError, match=r"abstract methods? .*loss_sum"):
        level("t")


def test_kind_names_all_attributes_that_it_lacks():
    class Unfinished(TextKind):
        metric = "correlation"

        def check(self, value):
            return value

        target_of = decode = answer = loss_sum = check

    message = (
        "The label kind Unfinished should define display, label_feature, primary_score, problem_type, target_feature"
    )
    with pytest.raises(ValueError, match=message):
        Unfinished("x").check_definition()
