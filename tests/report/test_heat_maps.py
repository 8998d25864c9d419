"""Heat maps: their colours, their texts, and tables with shades."""

from __future__ import annotations

import pytest

from mtl_nlp.report.heat_maps import heat_map, matrix_plot, rows_plot, shaded_table, signed, without_diagonal


def test_colours_are_those_of_the_page_and_diverge_around_zero():
    svg = heat_map("h", "Cosines", ["a"], ["x", "y", "z"], [[0.4, -0.2, None]])
    assert "fill: var(--c1); fill-opacity: 0.5" in svg
    assert "fill: var(--c2); fill-opacity: 0.25" in svg
    assert svg.count("fill: var(--c") == 2  # the third cell has no colour
    assert "a and x: +0.4; a and y: -0.2." in svg


def test_texts_are_in_the_cells_unless_there_are_many_columns():
    assert ">one</text>" in heat_map("h", "t", ["a"], ["x"], [[1.0]], texts=[["one"]])
    columns = [str(number) for number in range(12)]
    assert "a and x: one." in heat_map("h", "t", ["a"], ["x"], [[1.0]], texts=[["one"]])
    assert ">one</text>" not in heat_map("h", "t", ["a"], columns, [[1.0] * 12], texts=[["one"] * 12])


@pytest.mark.parametrize("values", [[[0.0]], [[None]], [[1e30]]])
def test_extreme_values_give_a_map(values):
    assert heat_map("h", "t", ["$a_{"], ["<b>"], values, labels=("head", "layer")).endswith("</svg>\n")


def test_a_matrix_has_no_diagonal_and_a_table():
    plot = matrix_plot("m", "Cosine", ["a", "b"], [[1.0, -0.5], [-0.5, 1.0]])
    assert [list(row) for row in plot.table.rows] == [["a", "", "−0.50"], ["b", "−0.50", ""]]
    assert without_diagonal([[1.0, 2.0], [3.0, 4.0]]) == [[None, 2.0], [3.0, None]]
    assert signed(None) == ""


def test_rows_have_their_texts_in_a_table():
    plot = rows_plot("r", "Change", ["layer 0"], ["pos"], [[-0.1]], [["−10"]])
    assert plot.table.rows == [["layer 0", "−10"]]
    assert ">−10</text>" in plot.svg


def test_shades_are_relative_to_the_largest_cell_of_a_column():
    table = shaded_table("Norm", ["layer", "a", "b"], ["0", "1"], [[1.0, 2.0], [None, 0.0]], str)
    assert table.rows == [["0", "1.0", ""], ["1", "2.0", "0.0"]]
    assert table.heat == [[0.5, 0.0], [1.0, 0.0]]
