from __future__ import annotations

import pytest

from mtl_nlp.errors import DataError
from mtl_nlp.evaluation.predictions import Prediction, read_predictions, write_predictions


def test_predictions_are_read_as_they_were_written(tmp_path):
    ner = Prediction("ner", "ewt", "test", 3, ["O"], ["B-X"], tokens=["Ada"], score=[0.5], seen=[True])
    size = Prediction("size", "ewt", "test", 3, 1.5, 2.0, text="a", text_pair="b")
    write_predictions(tmp_path / "predictions.jsonl", {"ner": [ner], "size": [size]})
    assert read_predictions(tmp_path / "predictions.jsonl") == {"ner": [ner], "size": [size]}


@pytest.mark.parametrize("line", ["{", "[]", '{"task": "ner"}'])
def test_a_bad_line_is_named(tmp_path, line):
    (tmp_path / "p.jsonl").write_text(line)
    with pytest.raises(DataError, match=r"p\.jsonl, line 1: "):
        read_predictions(tmp_path / "p.jsonl")
