"""The recipe's sections: schemas of datasets, mixture, loss, adapters and card; no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mtl_nlp.messages import did_you_mean

SPLITS = ("train", "validation", "test")

INPUTS = ("tokens", "text", "text_pair")


class Section(BaseModel):
    """A part of a recipe: no unknown keys, no changes."""

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


class MixtureRecipe(Section):
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


class LossRecipe(Section):
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


class AdapterRecipe(Section):
    """Soft sharing: a LoRA on the encoder for each task, see `MultitaskModel.add_adapter`.

    Attributes:
        r: rank.
        alpha: the low-rank change is scaled by alpha / r.
        dropout: share of an adapter's input that is dropped in training.
        target_modules: names of linear layers, or `all-linear`; PEFT's for the encoder's family by default.
        tasks: the tasks that have an adapter of their own; the others read the plain (or the shared adapter's) encoder.
        shared: whether all tasks go through an adapter too, one for all.
        train_encoder: whether the encoder is trained as well; without, only adapters and heads are.
        pull: λ of λ · Σ_t ‖ΔW_t − mean ΔW‖²_F in the loss, which draws the tasks' adapters to their mean; also those
            that a trained model brings, unless they are frozen.
        use_rslora: scale by alpha / √r (Kalajdzievski 2023).
        use_dora: DoRA (Liu et al. 2024) in place of LoRA; a pass for each adapter, and neither `shared` nor `pull`.
    """

    r: int = Field(default=8, ge=1)
    alpha: int = Field(default=16, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: Annotated[list[str], Field(min_length=1)] | Literal["all-linear"] | None = None
    tasks: list[str] | Literal["all"] = "all"
    shared: bool = False
    train_encoder: bool = True
    pull: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    use_rslora: bool = False
    use_dora: bool = False

    @model_validator(mode="after")
    def _go_together(self) -> AdapterRecipe:
        if not self.tasks and not self.shared:
            raise ValueError("`tasks` is empty and `shared` false: there would be no adapter")
        if len(set(self.tasks)) < len(self.tasks) and self.tasks != "all":
            raise ValueError(f"`tasks` should name each task once. Found {self.tasks}")
        if self.use_dora and (self.shared or self.pull):
            raise ValueError("DoRA adapters do not add up: `use_dora` goes without `shared` and `pull`")
        return self


class CardRecipe(Section):
    """What the model card says that no data tells; see the Hub's documentation of model cards.

    Attributes:
        license: the model's licence, such as `apache-2.0`.
        language: the texts' language or languages, such as `en`.
        base_model: the encoder's Hub id, where `encoder` is a local folder.
    """

    license: str | None = None
    language: str | list[str] | None = None
    base_model: str | None = None
