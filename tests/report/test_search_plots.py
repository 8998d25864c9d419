from __future__ import annotations

from searches import SPACE, content

from mtl_nlp.report.search_plots import history_plot, importance_plot, parallel_plot, slice_plot

DONE = [each for each in content()["trials"] if each["state"] == "complete"]


def test_the_best_value_so_far_follows_the_direction():
    up = history_plot("h", DONE, "mtl_score", is_minimized=False)
    assert "from 0.5 to 0.61 over 12 complete trials" in up
    down = history_plot("h", DONE, "seconds", is_minimized=True)
    assert "from 0.5 to 0.5 over" in down


def test_importances_are_bars_in_percent():
    assert "a 80%; b 20%." in importance_plot("i", {"a": 0.8, "b": 0.2})


def test_numbers_lie_on_their_scale_and_values_of_lists_beside_each_other():
    assert "mtl_score by training.learning_rate" in slice_plot(
        "s", "training.learning_rate", SPACE["training.learning_rate"], DONE, "mtl_score"
    )
    assert "null" in slice_plot("s", "adapters", SPACE["adapters"], DONE, "mtl_score")


def test_all_keys_of_a_trial_are_a_line():
    plot = parallel_plot("p", content(), DONE, DONE[-2:])
    assert "A line per trial over 4 keys. The best are the trials 10, 11." in plot
