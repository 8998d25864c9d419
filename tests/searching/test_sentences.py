from __future__ import annotations

from searches import content, entry

from mtl_nlp.searching.sentences import gain_text, sentences


def test_three_sentences_say_what_mattered_what_did_not_and_what_is_left():
    mattered, not_mattered, left = sentences(content())
    assert mattered.startswith("Keys that mattered: training.learning_rate (80%; best: 0.000187 to 0.001).")
    assert "mtl_score 0.61 in the search and 0.6 with 2 fresh seeds (shrinkage 0.01)" in mattered
    assert "the recipe as shipped has 0.49 with the same seeds" in mattered
    assert not_mattered.startswith("Keys that did not matter: adapters.")
    assert "The best trials give noise the lowest loss weight (0.29)." in not_mattered
    assert left.startswith("Left to gain: the second half of the trials improved mtl_score by 0.06")


def test_a_best_value_at_the_end_of_its_range_asks_for_a_wider_range():
    trials = [entry(number, 0.6 - number / 100) for number in range(12)]
    for each in trials[:5]:
        each["settings"]["training.learning_rate"] = 0.00099
    _, _, left = sentences(content(trials=trials))
    assert "little by more trials" in left
    assert left.endswith("The best trials lie at the end of the range of training.learning_rate (0.001): widen it.")


def test_few_trials_say_nothing_about_keys():
    mattered, not_mattered, left = sentences(content(trials=content()["trials"][:3]))
    assert "unknown, since only 3 trials are complete" in mattered
    assert not_mattered == "Keys that did not matter: unknown yet."
    assert "unknown after 3 complete trials" in left
    assert len(sentences(content(best=None))) == 3


def test_a_recipe_that_is_best_as_shipped_is_named():
    best = content()["best"] | {"number": 0, "value": 0.5, "shrinkage": 0.01, "mean": 0.49}
    assert gain_text(content(best=best)).startswith("The recipe as shipped is best: mtl_score 0.5 in the search")
    alone = best | {"fresh": {}, "number": 3}
    assert "No time was left to run it again" in gain_text(content(best=alone))
