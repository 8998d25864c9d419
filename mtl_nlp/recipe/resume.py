"""The meaning of a changed recipe key for a run that resumes from a checkpoint.

Every field of the schema is annotated with an [`OnResume`]. Imports no torch.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo


class OnResume(Enum):
    """The meaning of a value that differs from the checkpoint's recipe for a resumed run."""

    KEPT = "kept from the checkpoint, so the new value has no effect"
    KEPT_IF_PRESENT = "kept from the checkpoint; refused if the value is added or removed"
    REORDERS = (
        "weights, optimizer and steps continue, but rows come in a different order, so some rows of the epoch may be "
        "repeated or skipped"
    )
    TAKES_EFFECT = "in effect from here on"
    REFUSED = "refused, since the checkpoint's state of the optimizer or loss weighting does not fit the new value"
    COMPARED = "part of the model; refused if it makes the model differ from the checkpoint's"
    IRRELEVANT = "not part of the run, such as the location of its files"


def meaning_in_schema(key: str, schema: type[BaseModel]) -> OnResume:
    """Return the meaning of a changed key for a resumed run.

    Args:
        key: the key's path, such as `mixture.temperature` or `datasets.ewt.path`.
        schema: the schema of the recipe.

    Returns:
        The annotation of the deepest field on the path. A key that is not a field, such as a training argument or an
        argument of `load_dataset`, has the annotation of the field that contains the key.

    Raises:
        KeyError: if the path has no annotated field.
    """
    found: OnResume | None = None
    section: type[BaseModel] | None = schema
    parts = iter(key.split("."))
    for part in parts:
        field = None if section is None else section.model_fields.get(part)
        if field is None:
            break
        found = annotation_of(field) or found
        section = section_of(field)
        if get_origin(field.annotation) is dict and section is not None:
            next(parts, None)  # a name, such as that of a dataset
    if found is None:
        raise KeyError(key)
    return found


def annotation_of(field: FieldInfo) -> OnResume | None:
    """Return the [`OnResume`] of a field, or None if the field has no such annotation."""
    return next((each for each in field.metadata if isinstance(each, OnResume)), None)


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """Return the schema of the section that a field holds, alone, optional or in a dict; None for a plain value."""
    return _section_in(field.annotation)


def _section_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for each in get_args(annotation) if (found := _section_in(each)) is not None), None)
