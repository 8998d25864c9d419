"""The schema of the section `distill` of a recipe. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated

from pydantic import Field

from mtl_nlp.messages import did_you_mean
from mtl_nlp.recipe.resume import OnResume
from mtl_nlp.recipe.section import Section
from mtl_nlp.recipe.sections import DatasetRecipe


class DistillRecipe(Section):
    """Teaching by trained models: knowledge distillation with teacher annealing (Clark et al. 2019, BAM!).

    The target of each labelled word or text of a taught task is λ · label + (1 - λ) · prediction of the teacher. The
    share λ = step / total steps grows from 0 to 1 over the training, so that the teacher starts it and the labels end
    it. Rows without a label are not taught. See `mtl_nlp/training/distilling.py` for the loss of each type of task.

    Attributes:
        teachers: the folder of a comparison, whose single-task runs are the teachers of all tasks: those with the seed
            of the training, or else with the first seed. Or task -> folder of a trained model that has the task with
            the same labels; tasks that are not named are not taught.
    """

    teachers: Annotated[str | Annotated[dict[str, str], Field(min_length=1)], OnResume.TAKES_EFFECT]

    def of(self, tasks: Collection[str]) -> list[str]:
        """Return the tasks that are taught."""
        return [task for task in tasks if isinstance(self.teachers, str) or task in self.teachers]


def check_distill(distill: DistillRecipe, tasks: Collection[str], datasets: Mapping[str, DatasetRecipe]) -> None:
    """Check that taught tasks exist, and that their rows can be read before training.

    Args:
        distill: the section.
        tasks: the names of all tasks.
        datasets: the datasets by name.

    Raises:
        ValueError: if there is no such task, or a dataset of a taught task is streamed.
    """
    for task in () if isinstance(distill.teachers, str) else distill.teachers:
        if task not in tasks:
            raise ValueError(f"distill.teachers.{task}: no such task. {did_you_mean(task, tasks)}")
    for name, dataset in datasets.items():
        taught = [task for task in distill.of(tasks) if task in dataset.labels]
        if dataset.streaming and taught:
            raise ValueError(
                f"distill.teachers: datasets.{name} is streamed, and the teacher of {taught[0]!r} reads the rows "
                f"before training. Leave out `streaming`, or name teachers of other tasks only"
            )
