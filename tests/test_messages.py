"""Parts of one-line messages."""

from __future__ import annotations

from mtl_nlp.messages import did_you_mean, one_line


def test_error_message_is_one_line_of_bounded_length():
    assert one_line(ValueError("first\n\n  second\tthird")) == "first second third"
    assert one_line(ValueError("word " * 1000)) == ("word " * 60)
    assert one_line(ValueError()) == ""


def test_nearest_name_is_shown_with_all_names_if_there_are_few():
    assert did_you_mean("tain", ["train", "test"]) == "Did you mean 'train'? Valid: test, train."
    assert did_you_mean("x", []) == "There are no valid names."
    assert "Valid" not in did_you_mean("x1", [f"x{number}" for number in range(20)])
