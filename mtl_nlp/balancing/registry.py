"""The loss weightings by the names that a recipe gives them."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from typing import Any, get_type_hints

from mtl_nlp.balancing.comparing import ComparingWeighting
from mtl_nlp.balancing.dwa import DynamicWeightAverage
from mtl_nlp.balancing.equal_start import EqualStart
from mtl_nlp.balancing.famo import Famo
from mtl_nlp.balancing.gradnorm import GradNorm
from mtl_nlp.balancing.imtl_l import ImtlL
from mtl_nlp.balancing.log_classes import LogClasses
from mtl_nlp.balancing.parameters import check_known
from mtl_nlp.balancing.random_weights import RandomWeights
from mtl_nlp.balancing.static import Static
from mtl_nlp.balancing.stch import SmoothTchebycheff
from mtl_nlp.balancing.uncertainty import Uncertainty
from mtl_nlp.balancing.weighting import LossWeighting
from mtl_nlp.modeling.tasks_multitask import Task
from mtl_nlp.recipe.checks import LossWeight

WEIGHTINGS: dict[str, type[LossWeighting]] = {
    "static": Static,
    "uncertainty": Uncertainty,
    "dwa": DynamicWeightAverage,
    "random": RandomWeights,
    "gradnorm": GradNorm,
    "imtl-l": ImtlL,
    "famo": Famo,
    "stch": SmoothTchebycheff,
    "log-classes": LogClasses,
    "equal-start": EqualStart,
}
"""The weightings by name. Every class but `Static` is built from the tasks and its own parameters."""


def weighting_name(weighting: LossWeighting) -> str:
    """Return the name of a weighting in a recipe; the name of its class for a weighting from outside."""
    names = {method: name for name, method in WEIGHTINGS.items()}
    return names.get(type(weighting), type(weighting).__name__)


def own_parameters(name: str) -> dict[str, Any]:
    """Return the parameters of a weighting that a recipe can set, with their default values."""
    parameters = inspect.signature(WEIGHTINGS[name].__init__).parameters.values()
    return {each.name: each.default for each in parameters if each.name not in {"self", "tasks", "weights"}}


def build_weighting(
    name: str, tasks: Mapping[str, Task], weights: Mapping[str, LossWeight], kwargs: Mapping[str, Any]
) -> LossWeighting:
    """Build the loss weighting of a recipe.

    Args:
        name: the name of the weighting.
        tasks: the trained tasks by name, with their label spaces.
        weights: the weights of the tasks, for `static`.
        kwargs: the own parameters of the weighting. A number may be given as text, since YAML reads `1e-3` as text.

    Raises:
        ValueError: if a parameter is unknown or not valid, a task or package is missing, or weights are given to a
            weighting that chooses them. The message starts with the key of the section `loss`.
    """
    method = WEIGHTINGS[name]
    values = _checked(name, kwargs)
    if method is Static:
        return Static(weights)
    if weights:
        raise ValueError(f"weights: {name} chooses the weights of the tasks. Leave out `weights`, or set `static`.")
    if issubclass(method, ComparingWeighting) and len(tasks) < 2:
        raise ValueError(
            f"weighting: {name} compares tasks, and there is only {', '.join(map(repr, tasks))}. Set `static`."
        )
    try:
        return method(tasks, **values)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"weighting: {name} needs {error.name}, which is not installed: pip install 'mtl_nlp[balancing]'."
        ) from error
    except ValueError as error:
        raise ValueError(f"weighting_kwargs: {error}") from error


def _checked(name: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a weighting as numbers of their types."""
    check_known(name, kwargs, own_parameters(name), "weighting_kwargs")
    types = get_type_hints(WEIGHTINGS[name].__init__)
    return {key: _number(key, value, types[key]) for key, value in kwargs.items()}


def _number(key: str, value: Any, kind: type) -> Any:
    number = value
    if isinstance(value, str):
        try:
            number = kind(value)
        except ValueError:
            number = None
    is_number = isinstance(number, int | kind) and not isinstance(number, bool)
    # A comparison, since `math.isfinite` fails for an integer that no float can hold.
    if not is_number or (kind is float and not abs(number) <= sys.float_info.max):
        what = "an integer" if kind is int else "a finite number"
        raise ValueError(f"weighting_kwargs.{key}: should be {what}. Found {value!r:.80}.")
    return kind(number)
