"""Differences of two sides: intervals, words, degenerate data, and the coverage of the intervals."""

from __future__ import annotations

import time

import numpy as np
import pytest
from runs_of_predictions import run_of, simulation
from scipy import stats

from mtl_nlp import Regression, TextClassification, TokenClassification
from mtl_nlp.messages import json_text
from mtl_nlp.transfer.statistics import Difference, adjust, compare_sides, holm, spread_of

TASK = TextClassification(name="t", labels=["a", "b"])


def correct_runs(*shares: float, n: int = 200, seed: int = 0) -> list:
    """Return runs of `n` texts with class `a`; a text is correct by chance, independent of the other runs."""
    rng = np.random.default_rng(seed)
    return [run_of(np.where(rng.random(n) < share, "a", "b").tolist(), ["a"] * n) for share in shares]


def test_a_clear_difference_helped_and_its_mirror_image_hurt():
    a, b = correct_runs(0.9, 0.9, 0.9), correct_runs(0.6, 0.6, 0.6, seed=1)
    there, back = compare_sides(a, b, TASK), compare_sides(b, a, TASK)
    accuracy = [np.mean([text.prediction == text.gold for text in run]) for run in (*a, *b)]
    assert there.delta == pytest.approx(np.mean(accuracy[:3]) - np.mean(accuracy[3:]))
    assert there.word == "helped"
    assert back.word == "hurt"
    assert (back.delta, back.low, back.high) == pytest.approx((-there.delta, -there.high, -there.low))
    assert 0 < there.low < there.delta < there.high < 1
    assert there.p < 0.01
    assert there.smallest < there.delta


def test_equal_sides_have_no_clear_difference_and_the_entry_of_the_file():
    entry = compare_sides(correct_runs(0.8, 0.8), correct_runs(0.8, 0.8, seed=1), TASK).to_dict()
    assert entry["word"] == "no clear difference"
    assert [*entry] == ["delta", "low", "high", "p", "p_holm", "smallest", "df", "variance", "word"]
    assert [*entry["variance"]] == ["seeds", "texts"]
    assert "null" not in json_text(entry)
    assert entry == compare_sides(correct_runs(0.8, 0.8), correct_runs(0.8, 0.8, seed=1), TASK).to_dict()


def test_without_chance_from_texts_the_interval_is_welchs():
    scores = np.array([0.8, 0.85, 0.81, 0.7, 0.79, 0.75])
    spread = spread_of(scores, np.tile(scores, (10, 1)), 3, 100_000, floor=0.0)
    welch = stats.ttest_ind(scores[:3], scores[3:], equal_var=False)
    assert spread.texts == 0
    assert spread.df == pytest.approx(welch.df)
    assert spread.p_value(scores[:3].mean() - scores[3:].mean()) == pytest.approx(welch.pvalue)


def test_without_chance_from_seeds_the_variance_is_that_of_paired_texts():
    rng = np.random.default_rng(0)
    right = [rng.random(400) < share for share in (0.9, 0.6)]
    a, b = ([run_of(np.where(r, "a", "b").tolist(), ["a"] * 400)] * 3 for r in right)
    spread = compare_sides(a, b, TASK).spread
    assert spread.seeds == 0
    paired = (right[0].astype(float) - right[1]).var(ddof=1) / 400
    assert spread.texts == pytest.approx(paired, rel=0.1)
    assert spread.df == pytest.approx(399)


def test_disagreement_of_runs_at_random_is_counted_once():
    found = [
        compare_sides(
            correct_runs(*[0.8] * 3, seed=seed), correct_runs(*[0.8] * 3, seed=99 + seed), TASK, resamples=300
        )
        for seed in range(40)
    ]
    true_variance = 2 * 0.8 * 0.2 / 200 / 3
    assert np.mean([d.spread.se**2 for d in found]) == pytest.approx(true_variance, rel=0.3)
    assert np.mean([d.spread.texts for d in found]) < 0.1 * true_variance


def test_one_seed_gives_numbers_and_no_word():
    difference = compare_sides(correct_runs(0.9), correct_runs(0.6, 0.6), TASK)
    entry = difference.to_dict()
    assert entry.pop("delta") > 0
    assert set(entry.values()) == {None}
    assert "two seeds" in difference.reason


def test_one_text_gives_a_difference_and_no_interval():
    a, b = [run_of(["a"], ["a"])] * 3, [run_of(["b"], ["a"])] * 3
    difference = compare_sides(a, b, TASK)
    assert (difference.delta, difference.low, difference.word) == (1.0, None, None)
    assert difference.reason == "One text gives no interval."


def test_an_undefined_score_is_reported_and_not_averaged():
    def metric(predictions: list, references: list) -> dict[str, float]:
        return {"accuracy": float("nan") if "b" in predictions else 1.0}

    class Undefined(TextClassification):
        def make_kind(self):
            kind = super().make_kind()
            kind.metric = metric
            return kind

    runs = [run_of(["a", "a"], ["a", "a"]), run_of(["a", "b"], ["a", "a"])]
    difference = compare_sides(runs, runs, Undefined(name="t", labels=["a", "b"]))
    assert difference.reason == "The score is not defined for 2 of 4 runs."
    assert set(difference.to_dict().values()) == {None}
    defined = compare_sides(runs[:1] * 2, runs[:1] * 2, Undefined(name="t", labels=["a", "b"]))
    assert defined.delta == 0


def test_a_regression_that_diverged_is_reported():
    task = Regression(name="t")
    good, bad = ([run_of([1.0, 2.0, value], [1.0, 2.0, 4.0])] * 2 for value in (3.0, float("nan")))
    difference = compare_sides(good, bad, task)
    assert np.isnan(difference.delta)
    assert difference.word is None
    assert difference.to_dict()["delta"] is None


def test_equal_runs_with_constant_scores_give_an_interval_of_half_a_texts_share():
    a = b = [run_of(["a"] * 50, ["a"] * 50)] * 3
    difference = compare_sides(a, b, TASK)
    assert (difference.delta, difference.p, difference.word) == (0, 1, "no clear difference")
    assert difference.spread.se == pytest.approx(1 / 100)
    assert difference.high == pytest.approx(stats.t.ppf(0.975, 49) / 100)
    perfect = compare_sides(a, [run_of(["b"] * 50, ["a"] * 50)] * 3, TASK)
    assert perfect.word == "helped"
    two = compare_sides([run_of(["a"] * 2, ["a"] * 2)] * 2, [run_of(["b"] * 2, ["a"] * 2)] * 2, TASK)
    assert two.word == "no clear difference"


@pytest.mark.parametrize("value", [1.0, 2.0])
def test_constant_predictions_of_numbers_give_no_warning(value):
    runs = [run_of([value] * 5, [1.0, 2.0, 3.0, 4.0, 5.0])] * 2
    assert compare_sides(runs, runs, Regression(name="t")).delta == 0


def test_holm_adjusts_as_published():
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005, "none": None})
    assert adjusted == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02, "none": None})
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


def test_words_follow_the_adjusted_p():
    clear = compare_sides(correct_runs(0.9, 0.9, 0.9), correct_runs(0.6, 0.6, 0.6, seed=1), TASK)
    close = Difference(0.01, clear.spread, 0.03, 0.03)
    assert close.word == "helped"
    adjusted = adjust({"clear": clear, "close": close, "again": close, "unknown": Difference(0.1)})
    assert {name: difference.word for name, difference in adjusted.items()} == {
        "clear": "helped",
        "close": "no clear difference",
        "again": "no clear difference",
        "unknown": None,
    }
    assert adjusted["close"].p_holm == pytest.approx(0.06)
    assert adjusted["close"].low == close.low


def test_three_runs_of_2077_texts_take_less_than_two_seconds():
    task = TokenClassification(name="t", labels=["O", "B-X", "I-X"], scheme="iob2")
    rng = np.random.default_rng(0)
    golds = [rng.choice(["O", "B-X"], size=12).tolist() for _ in range(2077)]

    def run():
        guesses = [[tag if rng.random() < 0.9 else "O" for tag in tags] for tags in golds]
        return run_of(guesses, golds, tokens=golds)

    sides = [[run(), run(), run()] for _ in range(2)]
    started = time.process_time()
    assert compare_sides(*sides, task).low < 0
    assert time.process_time() - started < 2


def test_the_simulation_prints_a_table(capsys):
    simulation().main(["--draws", "20", "--resamples", "50", "--only", "accuracy 3 50 all"])
    lines = capsys.readouterr().out.splitlines()
    assert " ".join(lines[-4].split()) == "metric runs texts scenario coverage ± naive width bias false power"
    assert lines[-2].split()[:4] == ["accuracy", "3", "50", "all"]


@pytest.mark.parametrize("effects", ["seeds", "texts", "interaction", "all"])
def test_intervals_of_three_seeds_cover_the_true_difference_in_95_percent_of_draws(effects):
    check = simulation()
    scenario = check.Scenario(effects, 150, 3, **check.EFFECTS[effects])
    figures = check.measure(scenario, draws=400, resamples=300, with_power=False)
    # Two standard errors of 400 draws are 2 points beyond the range of 93 to 97 %.
    assert 0.91 <= figures["coverage"] <= 0.985
    assert abs(figures["bias"]) < 0.01
    if effects == "interaction":
        assert figures["naive"] > figures["coverage"]
