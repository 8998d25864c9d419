"""The sentences on a comparison: losses first, intervals with the right sign, and no word without evidence."""

from __future__ import annotations

import pytest
from comparison_folder import TASKS, change, many_tasks, write_comparison

from mtl_nlp.hub.comparison import read_comparison
from mtl_nlp.hub.sharing_words import caveats, task_statements, whole_statement


def read(folder):
    return read_comparison(folder / "comparison.json")


@pytest.fixture
def comparison(tmp_path):
    return read(write_comparison(tmp_path / "c", runs=False))


def test_tasks_that_lost_come_first_with_the_size_of_the_loss(comparison):
    comparison["tasks"] = dict(reversed(comparison["tasks"].items()))
    found = task_statements(comparison, "hard")
    assert [statement.word for statement in found] == ["hurt", "helped", "no clear difference"]
    assert found[0].text == "ner lost 1.7 points (0.7 to 2.7) through sharing."
    assert found[1].text == "genre gained 1.2 points (0.2 to 2.2) from sharing."
    assert found[2].text == (
        "$rating_{ shows no clear difference: +0.001 pearson (−0.009 to +0.011), and three seeds can show only "
        "differences of about 0.013 or more."
    )


def test_the_whole_sentence_has_words_delta_m_and_cost(comparison):
    assert whole_statement(comparison, "hard") == (
        "Sharing hurt ner, helped genre and made no clear difference to $rating_{; Δm is −0.4 % (−1.1 to +0.3); "
        "one encoder instead of three: a third of the size, 3.0 × the speed."
    )


def test_a_reference_other_than_single_is_named(comparison):
    comparison |= {"reference": "adapters"}
    comparison["tasks"]["ner"]["differences"] = {
        "hard - adapters": comparison["tasks"]["ner"]["differences"]["hard - single"]
    }
    assert task_statements(comparison, "hard")[0].text.endswith("through the change from adapters.")
    assert whole_statement(comparison, "hard").startswith("Hard hurt ner and has no verdict for genre and $rating_{")


def test_one_seed_gives_numbers_and_no_word(tmp_path):
    comparison = read(write_comparison(tmp_path / "c", runs=False, seeds=(1,)))
    first = task_statements(comparison, "hard")[0]
    assert first.word is None
    assert first.text == "ner changed by −1.7 points; one seed cannot separate this from chance."
    assert any("One seed" in text for text in caveats(comparison))
    assert whole_statement(comparison, "hard").startswith("Sharing has no verdict for any of the three tasks")


def test_an_undefined_score_is_said_and_not_averaged_away(comparison):
    comparison["tasks"]["genre"]["differences"]["hard - single"] |= {"delta": None, "word": None}
    found = {each.task: each for each in task_statements(comparison, "hard")}["genre"]
    assert found.word is None
    assert found.text == "genre: accuracy is not defined in at least one run, so the sides cannot be compared."


def test_an_undefined_delta_m_and_scores_on_validation_are_said(comparison):
    comparison["delta_m"]["hard"] = {"value": None, "low": None, "high": None}
    assert "; Δm is not defined; one encoder" in whole_statement(comparison, "hard")
    comparison["split"] = "validation"
    assert any("scores flatter all sides" in text for text in caveats(comparison))


def test_many_tasks_are_counted_and_unknown_costs_left_out(tmp_path):
    comparison = read(write_comparison(tmp_path / "c", many_tasks(60), runs=False, cost=False, sides=("hard",)))
    assert whole_statement(comparison, "hard") == (
        "Sharing hurt 20 tasks, helped 20 tasks and made no clear difference to 20 tasks; Δm is −0.4 % (−1.1 to +0.3)."
    )


@pytest.mark.parametrize(("size", "shown"), [(660, "half the size"), (330, "a quarter of"), (1000, "0.76 × the size")])
def test_sizes_are_in_words_where_a_word_fits(comparison, size, shown):
    comparison["sides"]["hard"]["cost"]["bytes"] = size * 1e6
    comparison["sides"]["single"]["cost"]["bytes"] = 1320e6
    assert shown in whole_statement(comparison, "hard")


def test_the_best_side_is_not_picked_on_test(tmp_path, comparison):
    assert any("pick on validation" in text for text in caveats(comparison))
    one = read(change(write_comparison(tmp_path / "d", TASKS, runs=False, sides=("hard",)), warnings=[]))
    assert caveats(one) == []
