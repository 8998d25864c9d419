"""The recipe: one YAML file that says what is trained on what. Schema, loading, overrides; no torch.

See `recipes/` for examples. Paths are relative to the recipe's folder, `${VAR}` and `${VAR:-default}` are read from
the environment, and `--set a.b.c=value` overrides one key.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from mtl_nlp.messages import did_you_mean
from mtl_nlp.modeling.tasks_multitask import Task, task_from_dict
from mtl_nlp.recipe_file import RecipeError, read_yaml, relative_paths
from mtl_nlp.sampling import check_sampling

SPLITS = ("train", "validation", "test")
INPUTS = ("tokens", "text", "text_pair")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DatasetRecipe(BaseModel):
    """One dataset. Keys beside these are handed to `datasets.load_dataset`.

    Attributes:
        path: a Hub id, a folder, or with `data_files` their format: `json`, `csv`, `parquet`, …, `conll` (columns) or
            `conllu` (Universal Dependencies).
        data_files: split -> file, glob or list of them; of a Hub id or folder: relative to that.
        columns: for `conll`: the names of the files' columns.
        inputs: `{tokens: column}`, or `{text: column}`, with `text_pair` for pairs.
        labels: task -> column.
        splits: this project's split -> the dataset's own, where they differ, such as `{validation: dev}`.
        streaming: read the training split while training, in place of before; it may be larger than memory and disk.
        num_rows: rows of a streamed training split; else it is read once to count them and to find its labels.
        buffer_size: rows of a stream that are shuffled at once.
        validation_size: share (or number) of training rows to set aside, if the dataset has no validation split.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    path: str
    data_files: dict[str, str | list[str]] | None = None
    columns: list[str] | None = None
    inputs: dict[str, str]
    labels: dict[str, str]
    splits: dict[str, str] = Field(default_factory=dict)
    streaming: bool = False
    num_rows: int | None = Field(default=None, ge=1)
    buffer_size: int = Field(default=1000, ge=1)
    validation_size: float | int | None = Field(default=None, gt=0)

    @field_validator("inputs")
    @classmethod
    def _one_first_input(cls, inputs: dict[str, str]) -> dict[str, str]:
        for key in inputs:
            if key not in INPUTS:
                raise ValueError(f"no such input {key!r}. {did_you_mean(key, INPUTS)}")
        if ("tokens" in inputs) == ("text" in inputs):
            raise ValueError("give either `tokens` or `text`")
        if "tokens" in inputs and "text_pair" in inputs:
            raise ValueError("`text_pair` goes with `text`")
        return inputs

    @field_validator("labels")
    @classmethod
    def _some_label(cls, labels: dict[str, str]) -> dict[str, str]:
        if not labels:
            raise ValueError("name at least one task and its column")
        return labels

    @field_validator("splits")
    @classmethod
    def _known_splits(cls, splits: dict[str, str]) -> dict[str, str]:
        for key in splits:
            if key not in SPLITS:
                raise ValueError(f"no such split {key!r}. {did_you_mean(key, SPLITS)}")
        return splits

    @model_validator(mode="after")
    def _columns_for_conll(self) -> DatasetRecipe:
        if self.path in {"conll", "conllu"}:
            for key in self.model_extra or {}:
                raise ValueError(f"unknown key {key!r}. {did_you_mean(key, type(self).model_fields)}")
            if self.data_files is None:
                raise ValueError(f"`path: {self.path}` needs `data_files`")
        if (self.path == "conll") != (self.columns is not None):
            raise ValueError("`columns` is needed for `path: conll`, and only there")
        return self

    @model_validator(mode="after")
    def _streams_are_read_once(self) -> DatasetRecipe:
        for key in {"num_rows", "buffer_size"} & self.model_fields_set:
            if not self.streaming:
                raise ValueError(f"`{key}` goes with `streaming: true`")
        if self.streaming and self.validation_size is not None:
            raise ValueError("no rows can be set aside of a stream: leave out `validation_size` or `streaming`")
        return self

    @model_validator(mode="after")
    def _files_of_known_splits(self) -> DatasetRecipe:
        for key in self.data_files or {}:
            if key not in SPLITS and key not in self.splits.values():
                raise ValueError(
                    f"`data_files` has no split {key!r}, unless `splits` maps one to it. {did_you_mean(key, SPLITS)}"
                )
        return self

    @property
    def reads_files(self) -> bool:
        """Whether `path` is the format of `data_files`, not a Hub id or a folder."""
        return self.data_files is not None and "/" not in self.path


class MixtureRecipe(_Section):
    """How datasets are mixed: p_d ∝ min(n_d, size_cap)^(1/temperature), see `TaskMixture`.

    Attributes:
        temperature: 1 is proportional to size, large (`.inf`) is uniform; `[5, 1]` moves from 5 to 1 over the training.
        size_cap: rows of a dataset that count at most.
        max_repeats: passes over a dataset in one epoch at most; the share it gives up goes to the others.
        probabilities: p_d of every dataset, in place of the above.
        batching: `mixed`, a batch holds rows of any dataset; `homogeneous`, of one, the same in all processes.
        length_window: batches inside which rows are grouped by length.
    """

    temperature: float | list[float] = 1.0
    size_cap: int | None = None
    max_repeats: float | None = None
    probabilities: dict[str, float] | None = None
    batching: Literal["mixed", "homogeneous"] = "mixed"
    length_window: int = Field(default=100, ge=1)


class LossRecipe(_Section):
    """How task losses are weighted.

    Attributes:
        weighting: `static`, the weights stay as given.
        weights: w_t of each task, 1 where it is not named.
        scale: `rows`, the share n_t / N of rows that carry the task's label scales its loss; `per_task`, it does not.
    """

    weighting: Literal["static"] = "static"
    weights: dict[str, float] = Field(default_factory=dict)
    scale: Literal["rows", "per_task"] = "rows"

    @field_validator("weights")
    @classmethod
    def _not_negative(cls, weights: dict[str, float]) -> dict[str, float]:
        for task, weight in weights.items():
            if not 0.0 <= weight < float("inf"):
                raise ValueError(f"the weight of {task!r} should be finite and at least 0, found {weight}")
        return weights


class CardRecipe(_Section):
    """What the model card says that no data tells; see the Hub's documentation of model cards.

    Attributes:
        license: the model's licence, such as `apache-2.0`.
        language: the texts' language or languages, such as `en`.
        base_model: the encoder's Hub id, where `encoder` is a local folder.
    """

    license: str | None = None
    language: str | list[str] | None = None
    base_model: str | None = None


class Recipe(_Section):
    """A whole recipe, checked.

    Attributes:
        encoder: a Hub id or folder that `AutoModel` loads.
        output_dir: where the trained model goes.
        tasks: task -> its type and options.
        datasets: dataset -> where it is and which tasks it feeds.
        mixture: how datasets are mixed.
        loss: how task losses are weighted.
        max_length: sub-words the encoder reads at once; by default what it can.
        stride: sub-words that neighbouring windows of a long text share; a quarter of a window by default.
        model_init_kwargs: arguments of `AutoModel.from_pretrained`, such as `attn_implementation`.
        training: fields of `MultitaskTrainingArguments`, which are those of `transformers.TrainingArguments` and a few.
        card: what the model card says beside what is known.
    """

    encoder: str
    output_dir: str
    tasks: dict[str, dict[str, Any]] = Field(min_length=1)
    datasets: dict[str, DatasetRecipe] = Field(min_length=1)
    mixture: MixtureRecipe = MixtureRecipe()
    loss: LossRecipe = LossRecipe()
    max_length: int | None = Field(default=None, ge=8)
    stride: int | None = Field(default=None, ge=0)
    model_init_kwargs: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)
    card: CardRecipe = CardRecipe()

    @field_validator("tasks")
    @classmethod
    def _tasks_are_valid(cls, tasks: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name, options in tasks.items():
            if "labels" in options or "name" in options:
                raise ValueError(f"task {name!r}: labels come from the data and the name is the key; leave them out")
            for key, value in options.items():
                if not isinstance(value, str | None):
                    raise ValueError(f"task {name!r}: `{key}` should be a string. Found {value!r:.80}")
            task_from_dict({**options, "name": name})
        return tasks

    @model_validator(mode="after")
    def _holds_no_secret(self) -> Recipe:
        sections: dict[str, Mapping[str, Any]] = {
            "model_init_kwargs": self.model_init_kwargs,
            "training": self.training,
            **{f"datasets.{name}": dataset.model_extra or {} for name, dataset in self.datasets.items()},
        }
        for section, values in sections.items():
            for key in values.keys() & {"token", "hub_token"}:
                raise ValueError(f"{section}.{key}: a recipe is saved with its model. Set HF_TOKEN in the environment")
        return self

    @model_validator(mode="after")
    def _tasks_and_datasets_meet(self) -> Recipe:
        for name, dataset in self.datasets.items():
            for task in dataset.labels:
                if task not in self.tasks:
                    raise ValueError(f"datasets.{name}.labels.{task}: no such task. {did_you_mean(task, self.tasks)}")
                if "tokens" not in dataset.inputs and self.task(task).level == "token":
                    raise ValueError(
                        f"datasets.{name}.labels.{task}: a {self.task(task).type} task needs the input `tokens`, "
                        f"this dataset has {', '.join(dataset.inputs)}"
                    )
        for task in self.tasks:
            if not any(task in dataset.labels for dataset in self.datasets.values()):
                raise ValueError(
                    f"tasks.{task}: no dataset feeds it. Name it under the `labels` of a dataset, or remove it"
                )
        for task in self.loss.weights:
            if task not in self.tasks:
                raise ValueError(f"loss.weights.{task}: no such task. {did_you_mean(task, self.tasks)}")
        return self

    @model_validator(mode="after")
    def _datasets_can_be_mixed(self) -> Recipe:
        mixture = self.mixture
        for name in mixture.probabilities or {}:
            if name not in self.datasets:
                raise ValueError(f"mixture.probabilities.{name}: no such dataset. {did_you_mean(name, self.datasets)}")
        try:
            check_sampling(
                self.datasets, mixture.temperature, mixture.size_cap, mixture.max_repeats, mixture.probabilities
            )
        except ValueError as error:
            raise ValueError(f"mixture: {error}") from error
        return self

    def task(self, name: str) -> Task:
        """The task as an object, its label space still empty."""
        return task_from_dict({**self.tasks[name], "name": name})

    def to_yaml(self) -> str:
        """The resolved recipe, as written to `output_dir/recipe.yaml`."""
        data = self.model_dump(exclude_defaults=True)
        return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)

    def without_local_paths(self) -> Recipe:
        """A copy for others, in which paths of this machine are relative to the recipe."""
        return Recipe.model_validate(relative_paths(self.model_dump(exclude_defaults=True)))

    def sha256(self) -> str:
        """Fingerprint of the resolved recipe."""
        return hashlib.sha256(self.to_yaml().encode()).hexdigest()

    @classmethod
    def load(cls, path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
        """Read a recipe file.

        Args:
            path: the YAML file.
            overrides: `key.path=value` strings; values are read as YAML.

        Raises:
            RecipeError: if the file cannot be read or a key is not valid.
        """
        path = Path(path)
        return cls.from_dict(read_yaml(path, overrides), folder=path.parent)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], folder: str | Path = ".") -> Recipe:
        """Check a recipe given as plain data; relative paths are taken from `folder`.

        Raises:
            RecipeError: if a key is not valid.
        """
        try:
            recipe = cls.model_validate(data)
        except ValidationError as error:
            raise RecipeError(_explain(error)) from error
        return _with_absolute_paths(recipe, Path(folder))


def _explain(error: ValidationError) -> str:
    """The first problem as one line: where, what, and the nearest valid key."""
    first = error.errors()[0]
    # pydantic adds the branch of a union that it tried last, such as `list[str]`, to the key's path.
    where = re.sub(r"\.(str|float|list\[.*)$", "", ".".join(str(part) for part in first["loc"]))
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        valid = _fields_at(first["loc"][:-1])
        message = f"unknown key. {did_you_mean(str(first['loc'][-1]), valid)}"
    elif first["type"] == "missing":
        message = "this key is missing"
    elif first["type"] not in {"value_error", "assertion_error"}:
        message = f"{message}. Found {first['input']!r:.80}"
    return f"{where}: {message}".removeprefix(": ")


def _fields_at(location: Sequence[int | str]) -> list[str]:
    """The valid keys of the recipe's section at a location of an unknown key."""
    sections: dict[tuple[int | str, ...], type[BaseModel]] = {
        (): Recipe,
        ("mixture",): MixtureRecipe,
        ("loss",): LossRecipe,
        ("card",): CardRecipe,
    }
    return list(sections[tuple(location)].model_fields)


def _with_absolute_paths(recipe: Recipe, folder: Path) -> Recipe:
    """Resolve data files, the output folder and a local encoder against the recipe's folder."""

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
    return recipe.model_copy(
        update={"datasets": datasets, "encoder": encoder, "output_dir": str((folder / recipe.output_dir).resolve())}
    )
