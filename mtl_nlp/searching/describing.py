"""The content of `search.json`: the trials of a side, the importances of its keys, and its best trial."""

from __future__ import annotations

import warnings
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from mtl_nlp.messages import is_finite
from mtl_nlp.searching.result import choose_best
from mtl_nlp.searching.rounds import Rounds
from mtl_nlp.searching.studies import REASON, SHIPPED, complete, finished, seconds_of

_STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "ended early", TrialState.FAIL: "failed"}


def describe(rounds: Rounds) -> dict[str, Any]:
    """Return the content of `search.json` for one side, without sentences.

    Args:
        rounds: the rounds, which have ended.
    """
    objectives = rounds.side.objectives
    again: dict[int, dict[str, list[float]]] = {}
    for each in complete(rounds.again):
        again.setdefault(each.user_attrs["of"], {})[str(each.user_attrs["seed"])] = each.values
    trials = [_entry(each, again.get(each.number, {})) for each in finished(rounds.study)]
    return {
        "objectives": list(objectives.names),
        "directions": objectives.directions,
        "space": rounds.side.space.describe(),
        "trials": trials,
        "best": choose_best(trials, is_minimized=objectives.directions[0] == "minimize"),
        "front": [] if objectives.is_single else [each.number for each in rounds.best(len(trials))],
        "importances": importances(rounds.study, list(rounds.side.space.describe())),
        "reference": dict(objectives.reference),
    }


def _entry(trial: FrozenTrial, again: dict[str, list[float]]) -> dict[str, Any]:
    attributes = trial.user_attrs
    return {
        "number": trial.number,
        "state": _STATES[trial.state],
        "shipped": SHIPPED in attributes,
        "values": trial.values if trial.state == TrialState.COMPLETE else None,
        "settings": attributes.get("settings", {}),
        "changes": attributes.get("values", {}),
        "scores": attributes.get("scores", {}),
        "costs": attributes.get("costs", {}),
        "steps": {str(step): value for step, value in trial.intermediate_values.items()},
        "seconds": round(seconds_of(trial), 1),
        "reason": attributes.get(REASON, ""),
        "again": {seed: values[0] for seed, values in again.items()},
    }


def importances(study: optuna.Study, keys: list[str]) -> dict[str, float]:
    """Return the share of each key in the differences between the trials' first values, the largest first.

    Optuna computes the shares (PED-ANOVA, Watanabe et al. 2023). The result is empty if there are too few trials, or
    all of their values are equal.

    Args:
        study: the study.
        keys: the keys.
    """
    done = complete(study)
    varied = [key for key in keys if len({repr(each.params[key]) for each in done if key in each.params}) > 1]
    if len(done) < 3 or not varied or len({each.values[0] for each in done}) < 2:
        return {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # on few trials, which the sentences state
            found = optuna.importance.get_param_importances(study, params=varied, target=lambda each: each.values[0])
    except (ValueError, RuntimeError):
        return {}
    return {key: float(share) for key, share in found.items() if is_finite(share)}
