"""Metrics from outside of this package, by name. Importing this module costs nothing, unlike `metrics`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

OWN_METRICS: dict[str, Callable[[list[Any], list[Any]], Mapping[str, float]]] = {}
"""The registered metrics by name."""

_Function = TypeVar("_Function", bound=Callable[[list[Any], list[Any]], Mapping[str, float]])


def register_metric(name: str) -> Callable[[_Function], _Function]:
    """Return a decorator that registers a function as a metric, so that label kinds and recipes can name the metric.

    The function takes the predictions and the references of all labelled rows, two lists of the same length and order,
    in the form of the task's labels: a label or a number per text, or a list of labels per text. It returns the scores
    by name. A function that is defined again, as in a notebook, replaces its earlier definition.

    Args:
        name: the name of the metric.

    Raises:
        ValueError: if the name is not a text of letters, digits and `_`, or a different function has this name.

    Example:
        >>> from mtl_nlp import register_metric
        >>> @register_metric("share_of_yes")
        ... def share_of_yes(predictions, references):
        ...     return {"share_of_yes": sum(label == "yes" for label in predictions) / len(predictions)}
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"The name of a metric should consist of letters, digits and `_`. Found {name!r:.80}.")

    def register(function: _Function) -> _Function:
        known, place = OWN_METRICS.get(name, function), (function.__module__, function.__qualname__)
        if (known.__module__, known.__qualname__) != place:
            raise ValueError(
                f"The name of a metric should be unique. Found {name!r}, which belongs to "
                f"{known.__module__}.{known.__qualname__}. Give {function.__qualname__} a different name."
            )
        OWN_METRICS[name] = function
        return function

    return register
