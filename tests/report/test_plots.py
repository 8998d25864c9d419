"""The plots: their content for screen readers, extreme values, and no warning."""

from __future__ import annotations

import pytest

from mtl_nlp.report.plots import (
    Dot,
    Point,
    Series,
    bar_plot,
    calibration_plot,
    dot_plot,
    key_plot,
    line_plot,
    scatter_plot,
    thinned,
)


def test_differences_are_described_in_words():
    svg = dot_plot("d", "Change", [Dot("ner", 1, -1.7, -2.7, -0.7), Dot("ner", 2, 0.5, None, None)], "points")
    assert "ner −1.70" in svg.replace("-1.70", "−1.70")
    assert "var(--c1)" in svg
    assert "var(--c2)" in svg


@pytest.mark.parametrize("names", [1, 60])
def test_any_number_of_tasks_fits(names):
    svg = dot_plot("d", "Change", [Dot(f"task-{n}" * 9, 1, 0.0, 0.0, 0.0) for n in range(names)], "points")
    assert len(svg) < 1500 * names + 8000


def test_curves_are_thinned_and_keep_their_ends():
    points = [(float(n), 1.0 / (n + 1)) for n in range(5000)]
    kept = thinned(points)
    assert len(kept) == 120
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert thinned(points[:5]) == points[:5]
    assert len(line_plot("l", "loss", [Series("run", 1, points)], "epoch", 1.0)) < 20_000


@pytest.mark.parametrize("values", [[(0.0, 0.0)], [(0.0, 1e30), (1.0, -1e30)], [(0.0, 1.0), (0.0, 1.0)]])
def test_extreme_curves_give_a_plot(values):
    assert line_plot("l", "loss", [Series("run", 1, values)], "epoch").endswith("</svg>\n")


def test_cost_and_quality_are_labelled():
    svg = scatter_plot("s", "Cost", [Point("single", 0, 3.0, 80.1), Point("hard", 1, 1.0, 80.1)], "passes", "score")
    assert ">single</text>" in svg
    assert ">hard</text>" in svg


def test_bars_calibration_and_keys_are_plots_with_a_title():
    plots = [
        bar_plot("b", "Sampling", [("ewt", 60.0, 59.0)], ("planned", "drawn")),
        calibration_plot("c", "ner", [Series("hard", 1, [(0.5, 0.4), (0.9, 0.8)])]),
        key_plot("k", "hard", 9),
    ]
    for svg in plots:
        assert 'role="img"' in svg
        assert "<title " in svg
