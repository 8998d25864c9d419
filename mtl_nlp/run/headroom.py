"""The reference scores of `mixture.headroom`, read from a comparison."""

from __future__ import annotations

import statistics
from pathlib import Path

from mtl_nlp.errors import DataError, RecipeError
from mtl_nlp.hub.comparison import SINGLE, read_comparison
from mtl_nlp.messages import conceal
from mtl_nlp.recipe.schema import Recipe


def headroom_of(recipe: Recipe) -> bool | dict[str, float]:
    """Return the value of `TaskMixture.headroom` for a recipe.

    Returns:
        Whether the best scores so far are the references; or, for the path of a comparison, the mean of the primary
        score of each task over the single-task runs, on the split of the comparison.

    Raises:
        RecipeError: if the comparison cannot be read, or has no single-task score above 0 for a task of the recipe.
    """
    given = recipe.mixture.headroom
    if isinstance(given, bool):
        return given
    shown = conceal(given)
    if not Path(given).is_file():
        raise RecipeError(f"mixture.headroom: there is no file {shown}. Name a comparison.json, or set true or false.")
    try:
        tasks = read_comparison(Path(given))["tasks"]
    except DataError as error:
        raise RecipeError(f"mixture.headroom: {error}") from error
    found = {}
    for name in recipe.tasks:
        score = recipe.task(name).kind.primary_score
        entry = tasks.get(name, {})
        values = entry.get("values", {}) if entry.get("metric") == score else entry.get("scores", {}).get(score, {})
        known = [value for value in values.get(SINGLE, []) if value is not None]
        if not known or statistics.fmean(known) <= 0.0:
            raise RecipeError(
                f"mixture.headroom: {shown} has no score above 0 ({score}) of single-task runs for the task {name!r}. "
                f"Compare with single-task runs of this task, or set `headroom: true`."
            )
        found[name] = statistics.fmean(known)
    return found
