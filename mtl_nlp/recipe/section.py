"""The base of the schemas of a recipe's sections. Imports no torch."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A section of a recipe, which refuses unknown keys and cannot be changed."""

    # The text of pydantic's own errors, which a traceback shows, would contain the values of variables.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)
