"""Predictions of runs without a model, and the simulation of runs."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from toys import REPOSITORY

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


def simulation() -> ModuleType:
    """Return the module of `scripts/check_intervals.py`."""
    spec = importlib.util.spec_from_file_location("check_intervals", REPOSITORY / "scripts" / "check_intervals.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up their module
    spec.loader.exec_module(module)
    return module
