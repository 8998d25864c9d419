"""The base of the schemas of a recipe's sections. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator


class Section(BaseModel):
    """A section of a recipe, which refuses unknown keys and cannot be changed."""

    # The text of pydantic's own errors, which a traceback shows, would contain the values of variables.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_boolean_is_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse `true` instead of a number. Pydantic alone would read it as 1."""
        kinds = set(_kinds_in(cls.model_fields[str(info.field_name)].annotation))
        if kinds & {int, float} and not kinds & {bool, Any}:
            for each in value if isinstance(value, list) else [value]:
                without_boolean(each)
        return value


def without_boolean(value: Any) -> Any:
    """Return a value that is not a boolean.

    Raises:
        ValueError: if the value is a boolean.
    """
    if isinstance(value, bool):
        raise ValueError(f"should be a number. Found {value}")
    return value


def _kinds_in(annotation: Any) -> Iterator[Any]:
    """Yield the plain types in an annotation; `bool` for a literal that is a boolean."""
    if get_origin(annotation) is Literal:
        yield from map(type, get_args(annotation))
    elif get_args(annotation):
        for each in get_args(annotation):
            yield from _kinds_in(each)
    else:
        yield annotation
