from __future__ import annotations

import pytest

from mtl_nlp.modeling.spans_multitask import SCHEMES
from mtl_nlp.run.draft_columns import guess_columns

TEXTS = [f"a longer text with the number {n}" for n in range(12)]


def tagged(*tags: str) -> list[dict[str, list[str]]]:
    """Return sentences of distinct words with these tags."""
    return [{"tokens": [f"w{n}-{i}" for i in range(len(tags))], "tags": list(tags)} for n in range(4)]


@pytest.mark.parametrize(
    ("tags", "scheme"),
    [
        (("B-A", "I-A", "O", "B-B"), "iob2"),
        (("I-A", "I-A", "B-A", "I-B"), "iob1"),
        (("B-A", "E-A", "O", "S-B"), "bioes"),
        (("B-A", "L-A", "O", "U-B"), "bilou"),
        (("B-A", "M-A", "E-A", "O"), "bmes"),
        (("NOUN", "VERB", "O", "X"), None),
        (("A-B", "B-A", "O", "O"), None),
    ],
)
def test_the_scheme_follows_from_the_tags(tags, scheme):
    rows = [{**row, "pos": ["X", "Y", "X", "Y"]} for row in tagged(*tags)]
    found = guess_columns("d", rows, "json")
    if scheme is not None and scheme not in SCHEMES:
        assert "which this version does not read" in found.left_out["tags"]
        return
    assert found.tasks["tags"].options.get("scheme") == scheme
    assert found.inputs == {"tokens": "tokens"}


@pytest.mark.parametrize(
    ("values", "options"),
    [
        ([0, 1] * 6, {"type": "text-classification"}),
        ([1, 2, 3] * 4, {"type": "regression"}),
        ([0.5, 1, 2.25] * 4, {"type": "regression"}),
        ([True, False] * 6, {"type": "text-classification"}),
        (["a", "b", None] * 4, {"type": "text-classification"}),
        ([["a"], ["a", "b"], []] * 4, {"type": "multi-label-classification"}),
        (["x"] * 12, None),
        ([f"id-{n}" for n in range(12)], None),
        ([[1.5, 2.5]] * 12, None),
        (["a;b", "b", "a"] * 4, {"type": "multi-label-classification"}),
        (["a|c", "b|c", "a", "c"] * 3, {"type": "multi-label-classification"}),
        (["a;b", "c;d", "e"] * 4, {"type": "text-classification"}),
        ([[[0, 1, "X"]], [], [[2, 8, "Y"]]] * 4, {"type": "token-classification", "scheme": "iob2"}),
        ([[[0, 99, "X"]]] * 12, None),
    ],
)
def test_the_type_follows_from_the_values(values, options):
    rows = [{"text": text, "y": value, "z": n % 2} for n, (text, value) in enumerate(zip(TEXTS, values, strict=True))]
    found = guess_columns("d", rows, "json")
    assert found.inputs == {"text": "text"}
    assert (found.tasks["y"].options if "y" in found.tasks else None) == options
    assert ("y" in found.left_out) == (options is None)


def test_a_number_column_with_the_name_of_classes_has_classes():
    rows = [{"text": text, "label": n % 3} for n, text in enumerate(TEXTS)]
    guess = guess_columns("d", rows, "json").tasks["label"]
    assert guess.options == {"type": "text-classification"}
    assert "for a number to predict, write regression" in guess.why


def test_words_are_found_beside_lists_of_tags_under_any_name():
    rows = [{"w": row["tokens"], "t": row["tags"]} for row in tagged("B-A", "O", "O", "B-A")]
    assert guess_columns("d", rows, "json").inputs == {"tokens": "w"}


def test_three_columns_of_zero_and_one_are_the_classes_of_one_task():
    rows = [{"text": text, "a": n % 2, "b": n % 3 // 2, "c": n % 4 // 3, "d": 0} for n, text in enumerate(TEXTS)]
    found = guess_columns("d", rows, "csv")
    assert list(found.tasks) == ["labels"]
    assert found.tasks["labels"].columns == ["a", "b", "c"]
    assert found.left_out == {"d": "always 0"}
    two = guess_columns("d", [{key: row[key] for key in ("text", "a", "b")} for row in rows], "csv")
    assert [task.columns for task in two.tasks.values()] == ["a", "b"]
