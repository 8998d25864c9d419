"""The schema of the recipe, a YAML file that defines which tasks are trained on which data. Imports no torch.

See `recipes/` for examples. Paths are relative to the recipe's folder, `${VAR}` and `${VAR:-default}` are read from
the environment, and `--set a.b.c=value` overrides one key. Secrets belong in the environment: a variable is expanded in
memory alone, and stays as it is in all that is written, printed or sent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PrivateAttr, ValidationError, ValidationInfo, field_validator, model_validator

from mtl_nlp.errors import RecipeError
from mtl_nlp.messages import Shown, did_you_mean
from mtl_nlp.modeling.tasks_multitask import TASK_TYPES, Task, task_from_dict
from mtl_nlp.recipe.checks import check_weight_is_left
from mtl_nlp.recipe.distill import DistillRecipe, check_distill
from mtl_nlp.recipe.file import read_yaml
from mtl_nlp.recipe.files import is_local
from mtl_nlp.recipe.label_columns import check_label_columns
from mtl_nlp.recipe.local_paths import relative_paths
from mtl_nlp.recipe.loss import LossRecipe
from mtl_nlp.recipe.own_code import import_code, located, located_function
from mtl_nlp.recipe.plain_yaml import dump_yaml
from mtl_nlp.recipe.problems import explain, texts_wanted
from mtl_nlp.recipe.resume import OnResume
from mtl_nlp.recipe.sampling import check_sampling
from mtl_nlp.recipe.searching import SearchRecipe, check_objectives
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
from mtl_nlp.recipe.variables import Place, expand, put_texts, texts_of_typed, texts_with_variables, with_texts

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
        freeze: parts that are not trained: `encoder` (everything that tasks share), `embeddings`, `layers A-B` or
            `layers N` of the encoder (from layer 0, the lowest; layer B is included), or tasks (their heads and
            adapters). The adapters in frozen embeddings and layers are trained.
        max_length: number of sub-words that the encoder reads at once; by default the encoder's limit.
        stride: number of sub-words that neighbouring windows of a long text share; a quarter of a window by default.
        model_init_kwargs: arguments of `AutoModel.from_pretrained`, such as `attn_implementation`.
        training: fields of `MultitaskTrainingArguments`, which extend those of `transformers.TrainingArguments`.
        distill: teaching by trained models, such as the single-task runs of a comparison; no teaching by default.
        analysis: measurements in training that do not change it.
        card: facts for the model card that cannot be computed.
        baselines: training arguments of the single-task runs of a comparison, without effect on the recipe's own run.
        search: the keys and values that `mtl-nlp search` tries, without effect on the recipe's own run.
        imports: modules that register task types, heads or metrics, or change anything else: names of modules beside
            the recipe or on Python's path, or paths that end with `.py`. The recipe is loaded only with `allow_code`.
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
    distill: DistillRecipe | None = None
    analysis: AnalysisRecipe = AnalysisRecipe()
    card: CardRecipe = CardRecipe()
    baselines: BaselinesRecipe = BaselinesRecipe()
    search: SearchRecipe = SearchRecipe()
    imports: Annotated[list[str], OnResume.TAKES_EFFECT] = Field(default_factory=list)

    _own_code: dict[str, str] = PrivateAttr(default_factory=dict)

    _texts: dict[Place, str] = PrivateAttr(default_factory=dict)
    """The texts with variables, by the place of the expanded value."""

    _typed: dict[Place, str] = PrivateAttr(default_factory=dict)
    """The texts of the environment that became numbers or booleans in training arguments, by place."""

    @field_validator("tasks")
    @classmethod
    def _tasks_are_valid(cls, tasks: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name, options in tasks.items():
            if "labels" in options or "name" in options:
                raise ValueError(f"task {name!r}: leave out `labels` (taken from the data) and `name` (the task's key)")
            task_type = TASK_TYPES.get(str(options.get("type")), Task)
            for key in (*task_type.learned, *task_type.tuned):
                if key in options:
                    raise ValueError(f"task {name!r}: leave out `{key}` (computed from the data)")
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
            try:
                tasks = {task: self.task(task) for task in dataset.labels}
                check_label_columns(dataset.inputs, dataset.labels, dataset.label_map, tasks)
            except ValueError as error:
                raise ValueError(f"datasets.{name}.{error}") from error
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
        if self.distill is not None:
            check_distill(self.distill, self.tasks, self.datasets)
        for name in {"encoder", "shared"} & self.tasks.keys():
            if self.freeze or self.adapters is not None:
                raise ValueError(
                    f"tasks.{name}: with `adapters` or `freeze`, {name!r} is the name of a model part. Rename the task"
                )
        return self

    @model_validator(mode="after")
    def _objectives_exist(self) -> Recipe:
        try:
            check_objectives(self.search.objectives, self.tasks)
        except ValueError as error:
            raise ValueError(f"search.objective: {error}") from error
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

    @property
    def own_code(self) -> dict[str, str]:
        """The SHA-256 of the source of each module that the recipe has imported, by the name of the module."""
        return dict(self._own_code)

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

    def text_of(self, *place: str) -> str | None:
        """Return the text of the environment that became a number or boolean in a training argument, or None.

        Args:
            place: the keys that lead to the value, such as `("training", "run_name")`.
        """
        return self._typed.get(place)

    def as_written(self) -> dict[str, Any]:
        """Return the resolved recipe as plain data, in which variables such as `${DATA}` stay as they are."""
        data = self.model_dump(exclude_defaults=True)
        put_texts(data, self._texts)
        return data

    def to_yaml(self) -> str:
        """Return the resolved recipe as YAML, the content of `output_dir/recipe.yaml`.

        Overrides are applied, relative paths are absolute, and variables such as `${DATA}` stay as they are.
        """
        return dump_yaml(self.as_written())

    def sha256(self) -> str:
        """Return the recipe's fingerprint, which does not depend on the location of the recipe, its data or its output.

        The fingerprint covers the values of variables, the source of the recipe's own code, and only those parts of
        local paths that `relative_paths` keeps. `output_dir`, `baselines` and `search` have no effect on the run, so
        the fingerprint does not cover them.
        """
        data = relative_paths(self.model_dump(exclude_defaults=True, exclude={"baselines", "search"}))
        del data["output_dir"]
        if self._own_code:
            data["own_code"] = self._own_code
        return hashlib.sha256(dump_yaml(data).encode()).hexdigest()

    @classmethod
    def read(cls, recipe: Recipe | str | Path | Mapping[str, Any], *, allow_code: bool = False) -> Recipe:
        """Return a recipe that is given as such, as a file, or as plain data, whose paths the current folder resolves.

        Args:
            recipe: the recipe, the path of its file, or its keys and values, with variables such as `${DATA}`.
            allow_code: whether to run the Python code that the recipe names, see [`load`].

        Raises:
            RecipeError: if the file cannot be read, a variable is not set, a key is not valid, the recipe names code
                that is not allowed or cannot be imported, or the value has a different type.
        """
        if isinstance(recipe, Recipe):
            return recipe
        if isinstance(recipe, str | Path):
            return cls.load(recipe, allow_code=allow_code)
        if not isinstance(recipe, Mapping):
            raise RecipeError(
                f"A recipe should be a Recipe, the path of a file, or a dict. Found {type(recipe).__name__}."
            )
        return cls.from_written(recipe, allow_code=allow_code)

    @classmethod
    def load(cls, path: str | Path, overrides: Sequence[str] = (), *, allow_code: bool = False) -> Recipe:
        """Read a recipe file, and read its variables from the environment.

        Args:
            path: the YAML file.
            overrides: `key.path=value` strings; values are read as YAML.
            allow_code: whether to run the Python code that the recipe names: `imports`, and the `filter` and `map` of
                datasets.

        Raises:
            RecipeError: if the file cannot be read, a variable is not set, a key is not valid, or the recipe names code
                that is not allowed or cannot be imported.
        """
        return cls.from_written(read_yaml(Path(path), overrides), Path(path).parent, allow_code=allow_code)

    @classmethod
    def from_written(cls, data: Mapping[str, Any], folder: str | Path = ".", *, allow_code: bool = False) -> Recipe:
        """Check a recipe that is given as plain data, and read its variables from the environment.

        Args:
            data: the recipe's keys and values, with variables such as `${DATA}`.
            folder: the folder against which relative paths are resolved.
            allow_code: whether to run the Python code that the recipe names, see [`load`].

        Raises:
            RecipeError: if a variable is not set, a key is not valid, or the recipe names code that is not allowed or
                cannot be imported.
        """
        expanded = expand(data)
        recipe = cls._checked(expanded, data, Path(folder), allow_code=allow_code)
        recipe._texts = texts_with_variables(data, recipe.model_dump(), expanded, Path(folder))
        recipe._typed = texts_of_typed(data, expanded)
        return recipe

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], folder: str | Path = ".", *, allow_code: bool = False) -> Recipe:
        """Check a recipe that is given as plain data. Variables such as `${DATA}` are not expanded.

        Args:
            data: the recipe's keys and values.
            folder: the folder against which relative paths are resolved.
            allow_code: whether to run the Python code that the recipe names, see [`load`].

        Raises:
            RecipeError: if a key is not valid, or the recipe names code that is not allowed or cannot be imported.
        """
        return cls._checked(data, data, Path(folder), allow_code=allow_code)

    @classmethod
    def _checked(cls, data: Mapping[str, Any], written: Mapping[str, Any], folder: Path, *, allow_code: bool) -> Recipe:
        # The code registers the task types and heads that the check of the recipe looks up.
        own_code = import_code(data, folder, allow_code=allow_code)
        recipe = _with_absolute_paths(cls._validated(data, written), folder)
        recipe._own_code = own_code
        return recipe

    @classmethod
    def _validated(cls, data: Mapping[str, Any], written: Mapping[str, Any]) -> Recipe:
        try:
            return cls.model_validate(data, context=written)
        except ValidationError as error:
            # The value of a variable may look like a number and be a name, such as that of a column.
            if names := texts_wanted(error, data, written):
                return cls._validated(with_texts(data, written, names), written)
            raise RecipeError(explain(error, written, cls)) from error


def _with_absolute_paths(recipe: Recipe, folder: Path) -> Recipe:
    """Resolve all files and folders, a local encoder and code against the recipe's folder."""

    def resolve(path: str) -> str:
        return _resolved(path, folder)

    datasets = {name: _with_absolute_files(dataset, folder) for name, dataset in recipe.datasets.items()}
    encoder = resolve(recipe.encoder) if (folder / recipe.encoder).is_dir() else recipe.encoder
    mixture = recipe.mixture
    if isinstance(mixture.headroom, str):
        mixture = mixture.model_copy(update={"headroom": resolve(mixture.headroom)})
    distill = recipe.distill
    if distill is not None:
        given = distill.teachers
        found = resolve(given) if isinstance(given, str) else {task: resolve(path) for task, path in given.items()}
        distill = distill.model_copy(update={"teachers": found})
    output_dir = str((folder / recipe.output_dir).resolve())
    return recipe.model_copy(
        update={
            "datasets": datasets,
            "encoder": encoder,
            "mixture": mixture,
            "distill": distill,
            "output_dir": output_dir,
            "imports": [located(module, folder) for module in recipe.imports],
        }
    )


def _with_absolute_files(dataset: DatasetRecipe, folder: Path) -> DatasetRecipe:
    """Resolve the path or the data files of a dataset and its functions against the recipe's folder."""
    functions = {key: text for key, text in (("filter", dataset.filter), ("map", dataset.map)) if text is not None}
    code = {key: located_function(text, folder) for key, text in functions.items()}
    dataset, files = dataset.model_copy(update=code), dataset.data_files
    if files is None or "/" in dataset.path:
        is_here = is_local(dataset.path, folder)
        return dataset.model_copy(update={"path": _resolved(dataset.path, folder)}) if is_here else dataset

    def resolve(paths: str | list[str]) -> list[str]:
        return [_resolved(path, folder) for path in ([paths] if isinstance(paths, str) else paths)]

    found = {split: resolve(paths) for split, paths in files.items()} if isinstance(files, dict) else resolve(files)
    return dataset.model_copy(update={"data_files": found})


def _resolved(path: str, folder: Path) -> str:
    """Return an absolute path, in which the name of a file that is a link stays, since it has the file's ending."""
    if "://" in path:
        return path
    full = folder / path
    return str(full.parent.resolve() / full.name if full.is_symlink() and not full.is_dir() else full.resolve())
