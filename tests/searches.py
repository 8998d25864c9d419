"""The content of a search for the tests of its result, its sentences and its page; and settings of short searches."""

from __future__ import annotations

from typing import Any

SPACE = {
    "training.learning_rate": {"low": 1e-5, "high": 1e-3, "log": True},
    "loss.weights.pos": {"low": 0.1, "high": 3.0},
    "loss.weights.noise": {"low": 0.1, "high": 3.0},
    "adapters": [None, {"r": 8}],
}


def entry(number: int, value: float | None, state: str = "complete", **changes: Any) -> dict[str, Any]:
    """Return a trial of `search.json`."""
    settings = {
        "training.learning_rate": 1e-5 * 10 ** (2 * number / 11),
        "loss.weights.pos": 1.0 + number / 20,
        "loss.weights.noise": 0.2 + number / 100,
        "adapters": None if number % 2 else {"r": 8},
    }
    found = {
        "number": number,
        "state": state,
        "shipped": number == 0,
        "values": None if value is None else [value],
        "settings": settings,
        "changes": {} if number == 0 else settings,
        "scores": {} if value is None else {"pos": {"accuracy": value}},
        "costs": {},
        "steps": {},
        "seconds": 1.5,
        "reason": "Training has diverged: <b>" if state == "failed" else "",
        "again": {},
    }
    return found | changes


def content(**changes: Any) -> dict[str, Any]:
    """Return the content of `search.json` of a search with 12 complete trials, of which the last one is best."""
    trials = [entry(number, 0.5 + number / 100) for number in range(12)]
    for number in (0, 10, 11):
        trials[number]["again"] = {"101": 0.5 + number / 100 - 0.02, "102": 0.5 + number / 100}
    trials += [entry(12, None, "ended early"), entry(13, None, "failed")]
    best = {
        "number": 11,
        "value": 0.61,
        "fresh": trials[11]["again"],
        "mean": 0.6,
        "shrinkage": 0.01,
        "first": 11,
        "first_shrinkage": 0.01,
        "shipped": 0.49,
    }
    importances = {"training.learning_rate": 0.8, "loss.weights.pos": 0.1, "loss.weights.noise": 0.08, "adapters": 0.02}
    return {
        "recipe": "tasks.yaml",
        "command": "mtl-nlp search tasks.yaml --trials 14",
        "objectives": ["mtl_score"],
        "directions": ["maximize"],
        "space": SPACE,
        "trials": trials,
        "best": best,
        "front": [],
        "importances": importances,
        "reference": {},
        "single": {},
    } | changes
