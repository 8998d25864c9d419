"""The schema of the section `loss` of a recipe. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from mtl_nlp.recipe.checks import check_loss_weights
from mtl_nlp.recipe.resume import OnResume
from mtl_nlp.recipe.section import Section

Weighting = Literal[
    "static", "uncertainty", "dwa", "random", "gradnorm", "imtl-l", "famo", "stch", "log-classes", "equal-start"
]


class LossRecipe(Section):
    """The weighting of the task losses.

    Attributes:
        weighting: the method that chooses the weights, see `mtl_nlp/balancing`; `static` for constant weights.
        weighting_kwargs: the method's own parameters, such as `alpha` of `gradnorm`.
        weights: w_t of each task, for `static`; 1 for a task that is not named.
        scale: with `rows`, a task's loss is scaled by n_t / N, the share of rows that have the task's label; with
            `per_task`, the loss is not scaled.
    """

    weighting: Annotated[Weighting, OnResume.REFUSED] = "static"
    weighting_kwargs: Annotated[dict[str, Any], OnResume.REFUSED] = Field(default_factory=dict)
    weights: Annotated[dict[str, float], OnResume.TAKES_EFFECT] = Field(default_factory=dict)
    scale: Annotated[Literal["rows", "per_task"], OnResume.TAKES_EFFECT] = "rows"

    @field_validator("weights")
    @classmethod
    def _not_negative(cls, weights: dict[str, float]) -> dict[str, float]:
        check_loss_weights(weights)
        return weights

    @model_validator(mode="after")
    def _weights_belong_to_static(self) -> LossRecipe:
        if self.weights and self.weighting != "static":
            raise ValueError(
                f"`weights` are for `weighting: static`, and `{self.weighting}` chooses the weights itself. Leave out "
                f"one of the two"
            )
        return self
