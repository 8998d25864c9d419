from __future__ import annotations

import os
import subprocess
import sys
import warnings
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics
from scipy import stats
from seqeval import scheme as schemes
from seqeval.metrics import f1_score as seqeval_f1
from seqeval.metrics import precision_score, recall_score
from sklearn.metrics import accuracy_score, f1_score
from sklearn.preprocessing import MultiLabelBinarizer

from mtl_nlp.evaluation.metrics import METRICS, compute
from mtl_nlp.modeling.scores_multitask import ERRORS, SCORES, ChosenScores
from mtl_nlp.modeling.spans_multitask import as_bioes, repair_tags
from mtl_nlp.modeling.tasks_multitask import TASK_TYPES, TokenClassification

RNG = np.random.default_rng(0)
WORDS = [RNG.choice(["NOUN", "VERB", "ADJ"], size=n).tolist() for n in (5, 1, 9, 4)]
GUESSED_WORDS = [RNG.choice(["NOUN", "VERB", "ADJ"], size=len(words)).tolist() for words in WORDS]
CLASSES, GUESSED_CLASSES = (RNG.choice(["a", "b", "c"], size=50).tolist() for _ in range(2))
SETS, GUESSED_SETS = ([sorted({*RNG.choice(["x", "y", "z"], size=n % 3)}) for n in range(30)] for _ in range(2))
NUMBERS, GUESSED_NUMBERS = (RNG.normal(size=40).tolist() for _ in range(2))
SCHEMES = {
    "iob2": schemes.IOB2,
    "iob1": schemes.IOB1,
    "bioes": schemes.IOBES,
    "bilou": schemes.BILOU,
    "bmes": schemes.IOBES,  # seqeval has no BMES, so its tags are written as BIOES for seqeval
}


def random_tags(scheme: str, seed: int) -> list[list[str]]:
    rng = np.random.default_rng(seed)
    return [repair_tags(rng.choice(["O", "B-X", "I-X", "B-Y", "I-Y"], size=n).tolist(), scheme) for n in (12, 7, 1, 20)]


def test_word_accuracy_is_sklearns_over_all_words():
    flat = list(chain(*WORDS)), list(chain(*GUESSED_WORDS))
    assert compute("accuracy", GUESSED_WORDS, WORDS) == {"accuracy": pytest.approx(accuracy_score(*flat))}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_span_scores_are_seqevals_strict_micro_average(scheme):
    truth, guess = random_tags(scheme, 1), random_tags(scheme, 2)
    strict = {"mode": "strict", "scheme": SCHEMES[scheme]}
    scores = compute(f"span_f1_{scheme}", guess, truth)
    assert compute(f"span_f1_{scheme}", truth, truth)["f1"] == 1.0
    if scheme == "bmes":
        truth, guess = ([as_bioes(tags) for tags in rows] for rows in (truth, guess))
    assert 0 < scores["f1"] < 1
    assert scores == {
        "f1": pytest.approx(seqeval_f1(truth, guess, **strict)),
        "precision": pytest.approx(precision_score(truth, guess, **strict)),
        "recall": pytest.approx(recall_score(truth, guess, **strict)),
    }


@pytest.mark.parametrize(
    "guess", [["B-X", "O", "O"], ["B-Y", "I-Y", "O"], ["I-X", "I-X", "O"], ["B-X", "B-X", "O"], ["O", "O", "O"]]
)
def test_span_counts_only_with_correct_label_correct_borders_and_legal_tags(guess):
    assert compute("span_f1_iob2", [guess], [["B-X", "I-X", "O"]])["f1"] == 0.0


def test_classification_scores_are_sklearns():
    assert compute("classification", GUESSED_CLASSES, CLASSES) == {
        "accuracy": pytest.approx(accuracy_score(CLASSES, GUESSED_CLASSES)),
        "macro_f1": pytest.approx(f1_score(CLASSES, GUESSED_CLASSES, average="macro")),
    }


def test_multi_label_scores_are_sklearns():
    truth, guess = (MultiLabelBinarizer(classes=["x", "y", "z"]).fit_transform(rows) for rows in (SETS, GUESSED_SETS))
    assert compute("multi_label", GUESSED_SETS, SETS) == {
        "micro_f1": pytest.approx(f1_score(truth, guess, average="micro")),
        "macro_f1": pytest.approx(f1_score(truth, guess, average="macro")),
    }


def test_single_class_f1_is_that_of_its_own_decisions():
    scores = compute("multi_label", [["x"], [], []], [["x"], ["x"], []])
    assert scores == {"micro_f1": pytest.approx(2 / 3), "macro_f1": pytest.approx(2 / 3)}


def test_correlations_and_error_are_scipys_and_numpys():
    assert compute("correlation", GUESSED_NUMBERS, NUMBERS) == {
        "pearson": pytest.approx(stats.pearsonr(GUESSED_NUMBERS, NUMBERS)[0]),
        "spearman": pytest.approx(stats.spearmanr(GUESSED_NUMBERS, NUMBERS)[0]),
        "mse": pytest.approx(np.mean(np.subtract(GUESSED_NUMBERS, NUMBERS) ** 2)),
    }


@pytest.mark.parametrize(
    ("metric", "guess", "truth", "right"),
    [
        ("accuracy", [["NOUN", "VERB"]], [["NOUN", "NEW"]], ("accuracy", 0.5)),
        ("span_f1_iob2", [["B-X", "O"]], [["B-NEW", "O"]], ("f1", 0.0)),
        ("span_f1_iob2", [["B-X", "O"]], [["B-X", "B-NEW"]], ("recall", 0.5)),
        ("classification", ["a", "b"], ["a", "new"], ("accuracy", 0.5)),
        ("multi_label", [["x"]], [["new", "x"]], ("micro_f1", 2 / 3)),
        ("multi_label", [["x"]], [["new", "x"]], ("macro_f1", 0.5)),
    ],
)
def test_labels_outside_the_label_space_count_as_errors(metric, guess, truth, right):
    name, value = right
    assert compute(metric, guess, truth)[name] == pytest.approx(value)


@pytest.mark.parametrize(
    ("guess", "truth"), [([0.5] * 4, [1.0, 2.0, 3.0, 4.0]), ([1.0, 2.0], [3.0, 3.0]), ([1.0], [2.0])]
)
def test_constant_predictions_have_zero_correlation_without_warnings(guess, truth):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = compute("correlation", guess, truth)
    assert scores["pearson"] == scores["spearman"] == 0.0
    assert scores["mse"] == pytest.approx(np.mean(np.subtract(guess, truth) ** 2))


@pytest.mark.parametrize(
    ("metric", "rows"),
    [("accuracy", [[]]), ("span_f1_iob2", [["O", "O"]]), ("multi_label", [[]]), ("classification", ["a"])],
)
def test_rows_without_words_spans_or_classes_are_scored_without_warnings(metric, rows):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = compute(metric, rows, rows)
    assert all(0.0 <= value <= 1.0 for value in scores.values())


def test_scores_are_plain_floats():
    scores = {
        **compute("span_f1_iob2", random_tags("iob2", 3), random_tags("iob2", 4)),
        **compute("accuracy", WORDS, WORDS),
    }
    assert {type(value) for value in scores.values()} == {float}


@pytest.mark.parametrize("metric", METRICS)
def test_scoring_nothing_is_an_error(metric):
    with pytest.raises(ValueError, match="no labelled row"):
        compute(metric, [], [])


def test_every_task_type_and_scheme_names_a_metric_and_one_of_its_scores():
    tasks = [task_type(name="t") for task_type in TASK_TYPES.values()]
    tasks += [TokenClassification(name="t", scheme=scheme) for scheme in SCHEMES]
    rows = {"accuracy": WORDS, "classification": CLASSES, "multi_label": SETS, "correlation": NUMBERS}
    for task in tasks:
        truth = rows.get(task.kind.metric) or random_tags("iob2", 0)
        assert task.kind.primary_score in compute(task.kind.metric, truth, truth)
    assert {task.kind.metric for task in tasks} == set(METRICS)


@pytest.fixture(scope="module")
def fresh_process(tmp_path_factory) -> tuple[list[str], Path]:
    """Return the output of an offline process that imports mtl_nlp and scores, and the cache folder of the process."""
    code = (
        "import sys, mtl_nlp\n"
        "print(sorted({'evaluate', 'seqeval', 'sklearn'} & set(sys.modules)))\n"
        "from mtl_nlp.evaluation.metrics import compute\n"
        "print(compute('span_f1_iob2', [['B-X', 'O']], [['B-X', 'O']])['f1'], compute('accuracy', [['a']], [['b']]))"
    )
    home = tmp_path_factory.mktemp("home")
    closed = {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **closed}, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), home


def test_importing_the_package_does_not_import_the_scoring_libraries(fresh_process):
    assert fresh_process[0][0] == "[]"


def test_scoring_needs_no_network_and_writes_no_file(fresh_process):
    lines, home = fresh_process
    assert lines[1] == "1.0 {'accuracy': 0.0}"
    assert not [path for path in home.rglob("*") if path.is_file()]


REFERENCES = {
    "accuracy": (GUESSED_WORDS, WORDS),
    "classification": (GUESSED_CLASSES, CLASSES),
    "multi_label": (GUESSED_SETS, SETS),
    "correlation": (GUESSED_NUMBERS, NUMBERS),
    "span_f1_iob2": (random_tags("iob2", 2), random_tags("iob2", 1)),
}


@pytest.mark.parametrize("metric", REFERENCES)
def test_every_score_is_a_number_that_is_best_for_right_answers(metric):
    guess, truth = REFERENCES[metric]
    names = SCORES[metric]
    found, best = (compute(ChosenScores(metric, names), each, truth) for each in (guess, truth))
    assert [*found] == [*names]
    for name in names:
        assert best[name] == pytest.approx(0.0 if name in ERRORS else 1.0)
        assert found[name] > best[name] if name in ERRORS else found[name] < best[name]
    known = compute(metric, guess, truth)
    assert {name: found[name] for name in known} == known


def test_further_scores_equal_scikit_learns_and_seqevals():
    found = compute(ChosenScores("classification", SCORES["classification"]), GUESSED_CLASSES, CLASSES)
    assert found["mcc"] == pytest.approx(sklearn.metrics.matthews_corrcoef(CLASSES, GUESSED_CLASSES))
    assert found["balanced_accuracy"] == pytest.approx(
        sklearn.metrics.balanced_accuracy_score(CLASSES, GUESSED_CLASSES)
    )
    assert found["weighted_f1"] == pytest.approx(f1_score(CLASSES, GUESSED_CLASSES, average="weighted"))
    binarizer = MultiLabelBinarizer().fit(SETS)
    sets = binarizer.transform(SETS), binarizer.transform(GUESSED_SETS)
    found = compute(ChosenScores("multi_label", SCORES["multi_label"]), GUESSED_SETS, SETS)
    assert found["weighted_f1"] == pytest.approx(f1_score(*sets, average="weighted"))
    assert found["micro_precision"] == pytest.approx(sklearn.metrics.precision_score(*sets, average="micro"))
    assert found["exact_match"] == pytest.approx(accuracy_score(*sets))
    truth, guess = random_tags("iob2", 1), random_tags("iob2", 2)
    found = compute(ChosenScores("span_f1_iob2", ("macro_f1", "f1")), guess, truth)
    assert found["macro_f1"] == pytest.approx(
        seqeval_f1(truth, guess, average="macro", mode="strict", scheme=schemes.IOB2)
    )
    found = compute(ChosenScores("correlation", ("rmse", "mae", "r2")), GUESSED_NUMBERS, NUMBERS)
    assert found["rmse"] ** 2 == pytest.approx(compute("correlation", GUESSED_NUMBERS, NUMBERS)["mse"])
    assert found["r2"] == pytest.approx(sklearn.metrics.r2_score(NUMBERS, GUESSED_NUMBERS))


def test_degenerate_answers_have_every_score():
    for metric, row in (("classification", "a"), ("accuracy", ["a"]), ("multi_label", []), ("correlation", 1.0)):
        other = "b" if metric == "classification" else ["b"] if metric == "accuracy" else row
        assert all(np.isfinite([*compute(ChosenScores(metric, SCORES[metric]), [other], [row]).values()]))
    assert compute(ChosenScores("span_f1_iob2", SCORES["span_f1_iob2"]), [["O"]], [["O"]])["macro_f1"] == 0.0
