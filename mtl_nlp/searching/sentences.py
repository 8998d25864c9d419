"""The three sentences on a search: the keys that mattered, those that did not, and the gain that is left."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

FEWEST_TRIALS = 8
"""The number of complete trials from which on sentences on single keys are more than guesses."""

_LARGE, _SMALL = 0.15, 0.05
"""The share of the importance above which a key mattered, and below which it did not."""

_NEAR_AN_END = 0.1
"""The part of a range, from one of its ends, that counts as the end."""


def sentences(content: Mapping[str, Any]) -> list[str]:
    """Return three sentences: the keys that mattered, the keys that did not, and the gain that is left.

    Args:
        content: the content of `search.json`, without its sentences.
    """
    best = content["best"]
    if best is None:
        return ["No trial is complete.", "Nothing is known about the keys.", "Repeat the command with a larger budget."]
    return [_mattered(content), _did_not_matter(content), _left_to_gain(content)]


def gain_text(content: Mapping[str, Any]) -> str:
    """Return a sentence on the best trial: its score in the search, with fresh seeds, and the recipe's as shipped."""
    best, name = content["best"], content["objectives"][0]
    who = f"Trial {best['number']}" if not _is_shipped(content, best["number"]) else "The recipe as shipped"
    if not best["fresh"]:
        return f"{who} is best: {name} {best['value']:.4g}. No time was left to run it again with fresh seeds."
    seeds = len(best["fresh"])
    text = (
        f"{who} is best: {name} {best['value']:.4g} in the search and {best['mean']:.4g} with {seeds} fresh "
        f"seed{'s' if seeds > 1 else ''} (shrinkage {best['shrinkage']:.2g})"
    )
    if best["shipped"] is None or who != f"Trial {best['number']}":
        return f"{text}."
    return f"{text}; the recipe as shipped has {best['shipped']:.4g} with the same seeds."


def _mattered(content: Mapping[str, Any]) -> str:
    done = len(_complete(content))
    keys = [key for key, share in content["importances"].items() if share >= _LARGE]
    if done < FEWEST_TRIALS or not keys:
        reason = f"only {done} trials are complete" if done < FEWEST_TRIALS else "no key stands out"
        return f"Keys that mattered: unknown, since {reason}. {gain_text(content)}"
    shown = ", ".join(f"{key} ({content['importances'][key]:.0%}; best: {_best_values(content, key)})" for key in keys)
    return f"Keys that mattered: {shown}. {gain_text(content)}"


def _did_not_matter(content: Mapping[str, Any]) -> str:
    done = len(_complete(content))
    keys = [key for key, share in content["importances"].items() if share < _SMALL]
    if done < FEWEST_TRIALS:
        return "Keys that did not matter: unknown yet."
    lowest = _lowest_weight(content)
    text = f"Keys that did not matter: {', '.join(keys)}." if keys else "Keys that did not matter: no such key."
    return f"{text} {lowest}".rstrip()


def _left_to_gain(content: Mapping[str, Any]) -> str:
    done = _complete(content)
    sign = -1.0 if content["directions"][0] == "minimize" else 1.0
    half = max(1, len(done) // 2)
    early = max(sign * each["values"][0] for each in done[:half])
    late = max((sign * each["values"][0] for each in done[half:]), default=early)
    ends = [*_at_the_ends(content)]
    more = f" The best trials lie at the end of the range of {', '.join(ends)}: widen it." if ends else ""
    if len(done) < FEWEST_TRIALS:
        return f"Left to gain: unknown after {len(done)} complete trials; run more.{more}"
    if late > early:
        return (
            f"Left to gain: the second half of the trials improved {content['objectives'][0]} by "
            f"{late - early:.2g}, so that more trials may help.{more}"
        )
    return f"Left to gain: little by more trials; the second half of the trials found nothing better.{more}"


def _complete(content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [each for each in content["trials"] if each["state"] == "complete"]


def best_trials(content: Mapping[str, Any], number: int = 5) -> list[Mapping[str, Any]]:
    """Return the trials with the best values of the first objective."""
    sign = -1.0 if content["directions"][0] == "minimize" else 1.0
    return sorted(_complete(content), key=lambda each: -sign * each["values"][0])[:number]


def _is_shipped(content: Mapping[str, Any], number: int) -> bool:
    return any(each["number"] == number and each["shipped"] for each in content["trials"])


def _values(trials: Sequence[Mapping[str, Any]], key: str) -> list[Any]:
    return [each["settings"][key] for each in trials if key in each["settings"]]


def _best_values(content: Mapping[str, Any], key: str) -> str:
    """Return the values of a key in the best trials: a range of numbers, or the most frequent value."""
    values = _values(best_trials(content), key)
    if isinstance(content["space"][key], list):
        return f"{statistics.mode(map(str, values))}"
    low, high = min(values), max(values)
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"


def _at_the_ends(content: Mapping[str, Any]) -> Iterator[str]:
    """Yield the numeric keys that mattered and whose best values lie at an end of their range."""
    import math

    for key, share in content["importances"].items():
        space = content["space"][key]
        if isinstance(space, list) or share < _LARGE:
            continue
        scale = math.log if space.get("log") else float
        low, high = scale(space["low"]), scale(space["high"])
        values = [scale(value) for value in _values(best_trials(content), key)]
        place = (statistics.median(values) - low) / (high - low)
        if place < _NEAR_AN_END or place > 1 - _NEAR_AN_END:
            yield f"{key} ({space['low'] if place < 0.5 else space['high']})"


def _lowest_weight(content: Mapping[str, Any]) -> str:
    """Return a sentence on the task whose loss weight is lowest in the best trials, relative to the others."""
    prefix = "loss.weights."
    found = {
        key.removeprefix(prefix): statistics.median(values)
        for key in content["space"]
        if key.startswith(prefix)
        and (values := _values(best_trials(content), key))
        and all(isinstance(value, int | float) for value in values)
    }
    if len(found) < 2:
        return ""
    task = min(found, key=lambda name: found[name])
    return f"The best trials give {task} the lowest loss weight ({found[task]:.2g})."
