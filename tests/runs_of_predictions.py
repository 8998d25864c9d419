"""Predictions of runs without a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mtl_nlp.evaluation.predictions import Prediction


def run_of(predictions: Sequence[Any], golds: Sequence[Any], dataset: str = "d", **columns: Any) -> list[Prediction]:
    """Return predictions, one per text; a column is a list with one entry per text."""
    return [
        Prediction(
            "t",
            dataset,
            "test",
            row,
            gold,
            prediction,
            **{"text": f"text {row}", **{name: values[row] for name, values in columns.items()}},
        )
        for row, (prediction, gold) in enumerate(zip(predictions, golds, strict=True))
    ]
