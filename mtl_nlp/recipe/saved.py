"""A recipe in the folder of a model, which is read as it stands. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mtl_nlp.errors import RecipeError
from mtl_nlp.recipe.file import read_yaml
from mtl_nlp.recipe.local_paths import relative_paths
from mtl_nlp.recipe.plain_yaml import dump_yaml
from mtl_nlp.recipe.problems import explain
from mtl_nlp.recipe.secret_keys import check_has_no_secret
from mtl_nlp.recipe.section import Section
from mtl_nlp.recipe.sections import CardRecipe


class SavedDataset(BaseModel):
    """A dataset of a saved recipe; see `DatasetRecipe`. The values of all other keys are not checked."""

    model_config = ConfigDict(extra="allow", frozen=True)

    path: str
    data_files: dict[str, Any] | list[str] | str | None = None
    inputs: dict[str, Any]
    labels: dict[str, Any]


class SavedRecipe(Section):
    """A recipe in the folder of a model, for the model card and for pushes.

    The recipe may come from a different machine, so its variables are never expanded, and its code is never run. Where
    a variable stands for a number, the recipe holds a text, so the sections are checked and their values are not. The
    keys are those of `Recipe`.
    """

    encoder: str
    output_dir: str = "."
    tasks: dict[str, dict[str, Any]]
    datasets: dict[str, SavedDataset]
    mixture: dict[str, Any] = Field(default_factory=dict)
    loss: dict[str, Any] = Field(default_factory=dict)
    adapters: dict[str, Any] | None = None
    freeze: list[str] = Field(default_factory=list)
    max_length: Any = None
    stride: Any = None
    model_init_kwargs: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)
    distill: dict[str, Any] | None = None
    analysis: dict[str, Any] = Field(default_factory=dict)
    card: CardRecipe = CardRecipe()
    baselines: dict[str, Any] = Field(default_factory=dict)
    search: dict[str, Any] | None = None
    imports: list[str] = Field(default_factory=list)

    @model_validator(mode="before")
    @classmethod
    def _has_no_secret(cls, data: Any) -> Any:
        if isinstance(data, dict):
            check_has_no_secret(data)
        return data

    @classmethod
    def read(cls, path: Path) -> SavedRecipe:
        """Read a recipe without expanding its variables.

        Args:
            path: the file.

        Raises:
            RecipeError: if the file cannot be read, has a different form than a recipe, or holds a secret.
        """
        data = read_yaml(path, ())
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise RecipeError(f"{path}: {explain(error, data, cls)}") from error

    def without_local_paths(self) -> SavedRecipe:
        """Return a copy for other machines, in which local paths are relative to the recipe."""
        return SavedRecipe.model_validate(relative_paths(self.model_dump(exclude_unset=True)))

    def to_yaml(self) -> str:
        """Return the recipe as YAML."""
        return dump_yaml(self.model_dump(exclude_unset=True))
