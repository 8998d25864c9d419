"""The schema of the section `loss` of a recipe. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from mtl_nlp.recipe.checks import LossWeight, check_loss_weight
from mtl_nlp.recipe.resume import OnResume
from mtl_nlp.recipe.section import Section

GradientMethodName = Literal[
    "pcgrad", "gradvac", "cagrad", "aligned-mtl", "upgrad", "nash-mtl", "imtl-g", "mgda", "graddrop"
]

Weighting = Literal[
    "static", "uncertainty", "dwa", "random", "gradnorm", "imtl-l", "famo", "stch", "log-classes", "equal-start"
]


def _without_booleans(weight: Any) -> Any:
    """Return a weight as it is given. Pydantic alone would read `true` as 1."""
    if any(isinstance(end, bool) for end in (weight if isinstance(weight, list) else [weight])):
        raise ValueError(f"should be a number or a pair of numbers. Found {weight!r:.80}")
    return weight


def _checked(weight: LossWeight) -> LossWeight:
    check_loss_weight(weight)
    return weight


_Weight = Annotated[float | list[float], AfterValidator(_checked), BeforeValidator(_without_booleans)]


class FreezeRecipe(Section):
    """The freezing of tasks whose validation scores fall.

    Attributes:
        patience: the number of evaluations in a row without a new best score after which a task has the weight 0.
    """

    patience: Annotated[int, OnResume.TAKES_EFFECT] = Field(ge=1)


class LossRecipe(Section):
    """The weighting of the task losses, and the combination of the tasks' gradients.

    Attributes:
        weighting: the method that chooses the weights, see `mtl_nlp/balancing`; `static` for weights that do not depend
            on the training.
        weighting_kwargs: the method's own parameters, such as `alpha` of `gradnorm`.
        weights: w_t of each task, for `static`; `[1.0, 0.2]` moves from 1 to 0.2 over the training. For a task that is
            not named, w_t is 0.6 if the task labels texts and a different task labels words, 3 if the task finds
            spans and a different task labels every word, and 1 otherwise.
        scale: with `rows`, a task's loss is scaled by n_t / N, the share of rows that have the task's label; with
            `per_task`, the loss is not scaled.
        on_nonfinite: with `stop`, a run ends if a loss or gradient is infinite or NaN; with `skip`, the task's share of
            the step is left out, and the run ends after ten such steps in a row.
        freeze_when_overfit: the freezing of tasks whose validation scores fall; no task is frozen by default.
        gradients: the method that combines the tasks' gradients of the parameters that they share; the plain sum
            without a method. Methods need the extra `balancing` (torchjd).
        gradients_kwargs: the parameters of the gradient method.
        every: the number of optimizer steps from one use of the gradient method to the next. The steps between have
            the plain sum.
    """

    weighting: Annotated[Weighting, OnResume.REFUSED] = "static"
    weighting_kwargs: Annotated[dict[str, Any], OnResume.REFUSED] = Field(default_factory=dict)
    weights: Annotated[dict[str, _Weight], OnResume.TAKES_EFFECT] = Field(default_factory=dict)
    scale: Annotated[Literal["rows", "per_task"], OnResume.TAKES_EFFECT] = "rows"
    on_nonfinite: Annotated[Literal["stop", "skip"], OnResume.TAKES_EFFECT] = "stop"
    freeze_when_overfit: FreezeRecipe | None = None
    gradients: Annotated[GradientMethodName | None, OnResume.TAKES_EFFECT] = None
    gradients_kwargs: Annotated[dict[str, Any], OnResume.TAKES_EFFECT] = Field(default_factory=dict)
    every: Annotated[int, OnResume.TAKES_EFFECT] = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _has_a_gradient_method(self) -> LossRecipe:
        for key in ("gradients_kwargs", "every"):
            if self.gradients is None and key in self.model_fields_set:
                raise ValueError(f"`{key}` needs `gradients`. Name a method, or leave out `{key}`")
        return self

    @model_validator(mode="after")
    def _weights_belong_to_static(self) -> LossRecipe:
        if self.weights and self.weighting != "static":
            raise ValueError(
                f"`weights` are for `weighting: static`, and `{self.weighting}` chooses the weights itself. Leave out "
                f"one of the two"
            )
        return self
