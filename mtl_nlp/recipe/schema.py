"""The schema of the recipe, a YAML file that defines which tasks are trained on which data. Imports no torch.

See `recipes/` for examples. Paths are relative to the recipe's folder, `${VAR}` and `${VAR:-default}` are read from
the environment, and `--set a.b.c=value` overrides one key. Secrets belong in the environment: a variable is expanded in
memory alone, and stays as it is in all that is written, printed or sent.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, get_origin

import yaml
from pydantic import BaseModel, Field, PrivateAttr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import ErrorDetails

from mtl_nlp.errors import RecipeError
from mtl_nlp.messages import Shown, conceal, did_you_mean
from mtl_nlp.modeling.tasks_multitask import Task, task_from_dict
from mtl_nlp.recipe.checks import check_weight_is_left
from mtl_nlp.recipe.file import read_yaml
from mtl_nlp.recipe.local_paths import relative_paths
from mtl_nlp.recipe.loss import LossRecipe
from mtl_nlp.recipe.resume import OnResume, section_of
from mtl_nlp.recipe.sampling import check_sampling
from mtl_nlp.recipe.secret_keys import check_has_no_secret
from mtl_nlp.recipe.section import Section
from mtl_nlp.recipe.sections import (
    AdapterRecipe,
    AnalysisRecipe,
    BaselinesRecipe,
    CardRecipe,
    DatasetRecipe,
    MixtureRecipe,
)
from mtl_nlp.recipe.variables import Place, expand, has_variable, put_texts, texts_with_variables, value_at

_MOST_LINES = 60
"""The number of lines of a recipe that are shown in Python."""


class Recipe(Shown, Section):
    """A complete recipe. Loading a recipe checks it.

    Attributes:
        encoder: a Hub id or folder that `AutoModel` loads. The tasks, heads and adapters of a trained multitask model
            are kept.
        output_dir: folder of the trained model.
        tasks: task -> its type and options.
        datasets: dataset -> its location and the tasks that it has labels for.
        mixture: the mixing of the datasets.
        loss: the weighting of the task losses.
        adapters: soft sharing by adapters; no adapters by default.
        freeze: parts that are not trained: `encoder` (everything that tasks share), or tasks (their heads and
            adapters).
        max_length: number of sub-words that the encoder reads at once; by default the encoder's limit.
        stride: number of sub-words that neighbouring windows of a long text share; a quarter of a window by default.
        model_init_kwargs: arguments of `AutoModel.from_pretrained`, such as `attn_implementation`.
        training: fields of `MultitaskTrainingArguments`, which extend those of `transformers.TrainingArguments`.
        analysis: measurements in training that do not change it.
        card: facts for the model card that cannot be computed.
        baselines: training arguments of the single-task runs of a comparison, without effect on the recipe's own run.
    """

    encoder: Annotated[str, OnResume.KEPT]
    output_dir: Annotated[str, OnResume.IRRELEVANT]
    tasks: Annotated[dict[str, dict[str, Any]], OnResume.COMPARED] = Field(min_length=1)
    datasets: Annotated[dict[str, DatasetRecipe], OnResume.REORDERS] = Field(min_length=1)
    mixture: MixtureRecipe = MixtureRecipe()
    loss: LossRecipe = LossRecipe()
    adapters: AdapterRecipe | None = None
    freeze: Annotated[list[str], OnResume.REFUSED] = Field(default_factory=list)
    max_length: Annotated[int | None, OnResume.REORDERS] = Field(default=None, ge=8)
    stride: Annotated[int | None, OnResume.REORDERS] = Field(default=None, ge=0)
    model_init_kwargs: Annotated[dict[str, Any], OnResume.TAKES_EFFECT] = Field(default_factory=dict)
    training: Annotated[dict[str, Any], OnResume.TAKES_EFFECT] = Field(default_factory=dict)
    analysis: AnalysisRecipe = AnalysisRecipe()
    card: CardRecipe = CardRecipe()
    baselines: BaselinesRecipe = BaselinesRecipe()

    _texts: dict[Place, str] = PrivateAttr(default_factory=dict)
    """The texts with variables, by the place of the expanded value."""

    @field_validator("tasks")
    @classmethod
    def _tasks_are_valid(cls, tasks: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name, options in tasks.items():
            if "labels" in options or "name" in options:
                raise ValueError(f"task {name!r}: leave out `labels` (taken from the data) and `name` (the task's key)")
            task_from_dict({**options, "name": name}).kind.check_definition()  # the kind checks the names of scores
        return tasks

    @model_validator(mode="before")
    @classmethod
    def _has_no_secret(cls, data: Any, info: ValidationInfo) -> Any:
        # The context of a recipe with variables is the recipe before their expansion.
        written = data if info.context is None else info.context
        if isinstance(written, dict):
            check_has_no_secret(written)
        return data

    @model_validator(mode="after")
    def _tasks_and_datasets_match(self) -> Recipe:
        for name, dataset in self.datasets.items():
            for task in dataset.labels:
                if task not in self.tasks:
                    raise ValueError(f"datasets.{name}.labels.{task}: no such task. {did_you_mean(task, self.tasks)}")
                if "tokens" not in dataset.inputs and self.task(task).kind.labels_words:
                    raise ValueError(
                        f"datasets.{name}.labels.{task}: a {self.task(task).type} task needs the input `tokens`. "
                        f"This dataset has only {', '.join(dataset.inputs)}"
                    )
        for task in self.tasks:
            if not any(task in dataset.labels for dataset in self.datasets.values()):
                raise ValueError(
                    f"tasks.{task}: no dataset has labels for this task. Name the task under the `labels` of a "
                    f"dataset, or remove the task"
                )
        for task in self.loss.weights:
            if task not in self.tasks:
                raise ValueError(f"loss.weights.{task}: no such task. {did_you_mean(task, self.tasks)}")
        try:
            check_weight_is_left(self.loss.weights, self.tasks)
        except ValueError as error:
            raise ValueError(f"loss.weights: {error}") from error
        if len(self.tasks) < 2 and self.loss.gradients is not None:
            raise ValueError("loss.gradients: a gradient method needs at least two tasks. Found one. Leave it out")
        if len(self.tasks) < 2 and self.analysis.conflict_every is not None:
            raise ValueError("analysis.conflict_every: a conflict needs at least two tasks. Found one. Leave it out")
        for task in self.adapted_tasks:
            if task not in self.tasks:
                raise ValueError(f"adapters.tasks: no such task {task!r}. {did_you_mean(task, self.tasks)}")
        for task in self.baselines.tasks:
            if task not in self.tasks:
                raise ValueError(f"baselines.tasks.{task}: no such task. {did_you_mean(task, self.tasks)}")
        for name in {"encoder", "shared"} & self.tasks.keys():
            if self.freeze or self.adapters is not None:
                raise ValueError(
                    f"tasks.{name}: with `adapters` or `freeze`, {name!r} is the name of a model part. Rename the task"
                )
        return self

    @model_validator(mode="after")
    def _datasets_can_be_mixed(self) -> Recipe:
        try:
            check_sampling(self.datasets, **dict(self.mixture))
        except ValueError as error:
            raise ValueError(f"mixture: {error}") from error
        return self

    @property
    def has_batches_of_one_task(self) -> bool:
        """Whether each batch has rows of one dataset, and each dataset has labels for one task."""
        most = max(len(dataset.labels) for dataset in self.datasets.values())
        return self.mixture.batching == "homogeneous" and most < 2

    @property
    def adapted_tasks(self) -> list[str]:
        """The tasks with an adapter of their own."""
        if self.adapters is None:
            return []
        return list(self.tasks) if self.adapters.tasks == "all" else list(self.adapters.tasks)

    def __repr__(self) -> str:
        lines = self.to_yaml().splitlines()
        rest = [f"… ({len(lines) - _MOST_LINES} more lines)"] if len(lines) > _MOST_LINES else []
        return "\n".join([*lines[:_MOST_LINES], *rest])

    def baseline_training(self, task: str) -> dict[str, Any]:
        """Return the training arguments with which a comparison trains a task alone.

        The recipe's `training` is overridden by `baselines.training`, and that by `baselines.tasks.<task>.training`.
        """
        own = self.baselines.tasks.get(task)
        return {**self.training, **self.baselines.training, **({} if own is None else own.training)}

    def task(self, name: str) -> Task:
        """Return a task as an object without a label space."""
        return task_from_dict({**self.tasks[name], "name": name})

    def as_written(self) -> dict[str, Any]:
        """Return the resolved recipe as plain data, in which variables such as `${DATA}` stay as they are."""
        data = self.model_dump(exclude_defaults=True)
        put_texts(data, self._texts)
        return data

    def to_yaml(self) -> str:
        """Return the resolved recipe as YAML, the content of `output_dir/recipe.yaml`.

        Overrides are applied, relative paths are absolute, and variables such as `${DATA}` stay as they are.
        """
        return yaml.safe_dump(self.as_written(), sort_keys=False, allow_unicode=True)

    def sha256(self) -> str:
        """Return the recipe's fingerprint, which does not depend on the location of the recipe, its data or its output.

        The fingerprint covers the values of variables, and only those parts of local paths that `relative_paths`
        keeps. `output_dir` and `baselines` have no effect on the run, so the fingerprint does not cover them.
        """
        data = relative_paths(self.model_dump(exclude_defaults=True, exclude={"baselines"}))
        del data["output_dir"]
        return hashlib.sha256(yaml.safe_dump(data, sort_keys=False, allow_unicode=True).encode()).hexdigest()

    @classmethod
    def load(cls, path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
        """Read a recipe file, and read its variables from the environment.

        Args:
            path: the YAML file.
            overrides: `key.path=value` strings; values are read as YAML.

        Raises:
            RecipeError: if the file cannot be read, a variable is not set, or a key is not valid.
        """
        return cls.from_written(read_yaml(Path(path), overrides), Path(path).parent)

    @classmethod
    def from_written(cls, data: Mapping[str, Any], folder: str | Path = ".") -> Recipe:
        """Check a recipe that is given as plain data, and read its variables from the environment.

        Args:
            data: the recipe's keys and values, with variables such as `${DATA}`.
            folder: the folder against which relative paths are resolved.

        Raises:
            RecipeError: if a variable is not set, or a key is not valid.
        """
        expanded = expand(data)
        recipe = cls._checked(expanded, data, Path(folder))
        recipe._texts = texts_with_variables(data, recipe.model_dump(), expanded, Path(folder))
        return recipe

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], folder: str | Path = ".") -> Recipe:
        """Check a recipe that is given as plain data. Variables such as `${DATA}` are not expanded.

        Args:
            data: the recipe's keys and values.
            folder: the folder against which relative paths are resolved.

        Raises:
            RecipeError: if a key is not valid.
        """
        return cls._checked(data, data, Path(folder))

    @classmethod
    def _checked(cls, data: Mapping[str, Any], written: Mapping[str, Any], folder: Path) -> Recipe:
        try:
            recipe = cls.model_validate(data, context=written)
        except ValidationError as error:
            raise RecipeError(explain(error, written)) from error
        return _with_absolute_paths(recipe, folder)


def explain(error: ValidationError, written: Mapping[str, Any]) -> str:
    """Return the first problem of a recipe as one line with the key, and with the nearest valid key for an unknown key.

    Args:
        error: the problems.
        written: the recipe as plain data with its variables, which are shown instead of their values.
    """
    problems = error.errors()
    # A misspelt key is also a missing key.
    first = next((each for each in problems if each["type"] == "extra_forbidden"), problems[0])
    where = _key_of(first)
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        valid = _fields_at(first["loc"][:-1])
        message = f"unknown key. {did_you_mean(str(first['loc'][-1]), valid)}"
    elif first["type"] == "missing":
        message = "this key is missing"
    elif first["type"] in {"model_type", "model_attributes_type"} and first["loc"]:
        keys = ", ".join(_fields_at(first["loc"]))
        message = f"should be a section with the keys {keys}. Found {conceal(repr(first['input'])):.80}"
    elif first["type"] not in {"value_error", "assertion_error"}:
        text = value_at(written, first["loc"])
        found = repr(text) if has_variable(text) else conceal(repr(first["input"]))
        # Each type that a key may have is a problem of its own.
        rules = dict.fromkeys(_rule_of(each) for each in problems if _key_of(each) == where)
        message = f"should be {' or '.join(rules)}. Found {found:.80}"
        if first["type"] == "literal_error" and (near := get_close_matches(str(first["input"]), _literals(first), 1)):
            message += f". Did you mean {near[0]!r}?"
    return f"{where}: {message}".removeprefix(": ")


def _key_of(problem: ErrorDetails) -> str:
    """Return the path of a key, without the type that pydantic tried last, such as `list[str]`."""
    return re.sub(r"\.(bool|str|int|float|(list|dict|literal)\[.*)$", "", ".".join(map(str, problem["loc"])))


_RULES = {
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "string": "a text",
    "list": "a list",
    "dict": "a section with keys and values",
    "finite_number": "a finite number",
    "greater_than_equal": "at least {ge:g}",
    "greater_than": "above {gt:g}",
    "less_than_equal": "at most {le:g}",
    "less_than": "below {lt:g}",
    "literal_error": "{expected}",
}
"""The start of the type of a problem -> the rule that the value breaks."""


def _rule_of(problem: ErrorDetails) -> str:
    """Return the rule that a value breaks, in words that follow `should be`."""
    for start, rule in _RULES.items():
        if problem["type"] == start or problem["type"].partition("_")[0] == start:
            return rule.format(**problem.get("ctx", {}))
    return problem["msg"].removeprefix("Input should be ")


def _literals(problem: ErrorDetails) -> list[str]:
    """Return the valid values of a key that has an invalid one."""
    return re.findall(r"'([^']+)'", problem["ctx"]["expected"])


def _fields_at(location: Sequence[int | str]) -> list[str]:
    """Return the valid keys of the section that has an unknown key."""
    section: type[BaseModel] = Recipe
    parts = iter(location)
    for part in parts:
        field = section.model_fields[str(part)]
        section = section_of(field) or section
        if get_origin(field.annotation) is dict:
            next(parts)  # a name, such as that of a task
    return list(section.model_fields)


def _with_absolute_paths(recipe: Recipe, folder: Path) -> Recipe:
    """Resolve data files, the output folder, a comparison and a local encoder against the recipe's folder."""

    def resolve(path: str) -> str:
        return path if "://" in path else str((folder / path).resolve())

    datasets = {}
    for name, dataset in recipe.datasets.items():
        if dataset.reads_files:
            files = {
                split: [resolve(path) for path in ([paths] if isinstance(paths, str) else paths)]
                for split, paths in (dataset.data_files or {}).items()
            }
            datasets[name] = dataset.model_copy(update={"data_files": files})
        else:
            path = resolve(dataset.path) if (folder / dataset.path).is_dir() else dataset.path
            datasets[name] = dataset.model_copy(update={"path": path})
    encoder = resolve(recipe.encoder) if (folder / recipe.encoder).is_dir() else recipe.encoder
    mixture = recipe.mixture
    if isinstance(mixture.headroom, str):
        mixture = mixture.model_copy(update={"headroom": resolve(mixture.headroom)})
    output_dir = str((folder / recipe.output_dir).resolve())
    return recipe.model_copy(
        update={"datasets": datasets, "encoder": encoder, "mixture": mixture, "output_dir": output_dir}
    )
