"""The check of parameters that a recipe gives a method of balancing."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from mtl_nlp.messages import did_you_mean


def check_known(method: str, given: Iterable[str], valid: Collection[str], section: str) -> None:
    """Check that a method has the parameters that a recipe gives it.

    Args:
        method: the name of the method.
        given: the names of the given parameters.
        valid: the names of the method's own parameters.
        section: the section of the recipe, with which the message starts.

    Raises:
        ValueError: if the method lacks a parameter.
    """
    for key in given:
        if key not in valid:
            hint = did_you_mean(key, valid) if valid else f"{method} has no parameters."
            raise ValueError(f"{section}.{key}: {method} has no such parameter. {hint}")
