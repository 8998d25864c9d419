"""The parts of the page as data."""

from __future__ import annotations

from mtl_nlp.report.blocks import Section, Table, short


def test_columns_of_numbers_are_aligned_to_the_right_and_the_first_never():
    table = Table("t", ["row", "number", "text", "mixed"], [["1", "−1.5 ± 2", "a", 3], ["2", "not defined", "b", "x"]])
    assert table.columns == [("row", False), ("number", True), ("text", False), ("mixed", False)]
    assert table.cells[0][1] == ("−1.5 ± 2", True, 0.0)
    assert Table("t", ["a", "b"], []).columns == [("a", False), ("b", False)]


def test_shades_belong_to_the_columns_after_the_first():
    table = Table("t", ["gold", "a", "b"], [["a", 3, 1]], [[0.75, 0.25]])
    assert [shade for _, _, shade in table.cells[0]] == [0.0, 0.75, 0.25]


def test_long_cells_are_shortened():
    assert Table("t", ["a"], [["x" * 2_000_000]]).cells[0][0][0] == "x" * 199 + "…"
    assert short("abc", 3) == "abc"


def test_sections_do_not_share_their_blocks():
    first, second = Section("a", "A"), Section("b", "B")
    first.blocks.append("block")
    assert second.blocks == []
