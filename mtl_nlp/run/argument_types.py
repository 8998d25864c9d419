"""The types of training arguments in a recipe: `TrainingArguments` accepts values of any type, and fails much later."""

from __future__ import annotations

from enum import Enum
from types import NoneType
from typing import Any, get_args, get_origin

from mtl_nlp.recipe.schema import Recipe

_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}

_WORDS = {str: "a text", bool: "true or false", list: "a list of texts", dict: "a section with keys and values"}


def convert(value: Any, hint: Any, text: str | None = None) -> Any:
    """Return the value of a training argument in the type of its field.

    A text from the environment may stand for a boolean or a number, `2e4` is a text in YAML, and a number may stand for
    a text, such as the name of a run. The text `1.10` of the environment is then not `1.1`.

    Args:
        value: the value of the recipe.
        hint: the type of the field.
        text: the text of the environment from which the value was made, if there is one.

    Raises:
        ValueError: if the value is of a different type. The message continues the name of the argument.
    """
    kinds = _kinds_of(hint)
    if NoneType in kinds and value is None:
        return None
    wanted = kinds - {NoneType}
    if wanted in ({int}, {float}):
        return _number(value, int if wanted == {int} else float)
    if wanted == {bool}:
        return _boolean(value)
    if not wanted <= _WORDS.keys():  # objects of other libraries, which only Python has
        return value
    if isinstance(value, int | float) and str in wanted and bool not in wanted and text is not None:
        return text
    if isinstance(value, int | float) and not isinstance(value, bool) and str in wanted:
        return str(value)
    is_list = isinstance(value, list | tuple) and list in wanted and all(isinstance(each, str) for each in value)
    if is_list or isinstance(value, tuple(wanted - {list})):
        return value
    raise ValueError(
        f"should be {' or '.join(words for kind, words in _WORDS.items() if kind in wanted)}. {_found(value)}"
    )


def enumerated(hint: Any) -> tuple[str, ...] | None:
    """Return the texts that a training argument can have, such as the names of the optimizers; None for any text."""
    kinds = [kind for kind in get_args(hint) or (hint,) if isinstance(kind, type) and issubclass(kind, Enum)]
    return tuple(str(each.value) for kind in kinds for each in kind) or None


def seed_of(recipe: Recipe) -> int:
    """Return the seed of the training of a recipe.

    Raises:
        ValueError: if the seed is not an integer.
    """
    return int(convert(recipe.training.get("seed", 42), int))


def _kinds_of(hint: Any) -> set[Any]:
    """Return the types that a hint allows: the members of a union, without their own arguments."""
    origin = get_origin(hint)
    if origin is None:
        return {str if isinstance(hint, type) and issubclass(hint, Enum) else hint}
    if origin in {list, dict}:
        return {origin}
    return set().union(*({type(each)} if isinstance(each, bool) else _kinds_of(each) for each in get_args(hint)))


def _number(value: Any, kind: type[int] | type[float]) -> int | float:
    try:
        number = kind(value) if isinstance(value, str) else value
    except ValueError:
        raise ValueError(f"should be a number. {_found(value)}") from None
    if isinstance(number, bool) or not isinstance(number, int | kind):
        raise ValueError(f"should be {'an integer' if kind is int else 'a number'}. {_found(value)}")
    return number


def _boolean(value: Any) -> bool:
    found = _BOOLEANS.get(str(value).lower()) if isinstance(value, str | int) else None
    if found is None:
        raise ValueError(f"should be true or false. {_found(value)}")
    return found


def _found(value: Any) -> str:
    return f"Found {value!r:.80}."
