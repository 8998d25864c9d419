"""The tables of an inspection for a terminal."""

from __future__ import annotations

from insight_folder import inspection

from mtl_nlp.transfer.inspection_tables import change_text, describe_inspection, heads_text

TASKS, METRICS = ["ner", "genre", "rating"], ["f1", "accuracy", "pearson"]


def test_every_part_has_a_table():
    text = describe_inspection(inspection(TASKS, METRICS))
    for line in (
        "Inspected on validation: 300 texts of ewt.",
        "layer       weights moved (ner)  1 − CKA (ner)",
        "The probes learned from the training split (2,000 texts for ner, 2,000 texts for genre, 2,000 texts for "
        "rating) and were scored on validation.",
        "score of a probe on  ner f1 (%)  genre accuracy (%)  rating pearson",
        "own head             80.00       80.00               0.8000",
        "change without  ner f1 (points)  genre accuracy (points)  rating pearson",
        "layer 0         −20.00           −20.00                   −0.2000",
        "Changes by a few answers are chance: the scores are from 300 texts for ner, 300 texts for genre",
        "needed most by several tasks: layer 0 head 2 (ner, genre)",
        "norm of ΔW  ner    genre  rating  shared",
    ):
        assert line in text, text


def test_missing_parts_have_a_reason():
    content = inspection(TASKS[:1], METRICS[:1], adapters=False)
    content["movement"][0]["weights"] = None
    text = describe_inspection({**content, "need": None, "ablation": None, "left_out": ["ablation: unknown heads."]})
    assert text.endswith("left out: ablation: unknown heads.")
    assert "weights moved" not in text
    assert "layer       1 − CKA" in text


def test_changes_have_a_sign_and_heads_are_shortened():
    assert (change_text("accuracy", -0.0123), change_text("pearson", 0.0123)) == ("−1.23", "+0.0123")
    assert change_text("accuracy", -0.00001) == "0.00"
    assert heads_text([]) == "none"
    assert heads_text([[1, 8]]) == "layer 1 head 8"
    assert heads_text([[0, head] for head in range(9)]).endswith("layer 0 head 5, 3 more")
