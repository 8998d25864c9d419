"""The schemas of a recipe's sections: datasets, mixture, adapters, analysis, card and baselines. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, field_validator, model_validator

from mtl_nlp.messages import did_you_mean
from mtl_nlp.recipe.checks import LARGEST
from mtl_nlp.recipe.files import columns_in, files_by_split, is_files, names_in
from mtl_nlp.recipe.label_columns import LabelColumns
from mtl_nlp.recipe.own_code import module_and_function
from mtl_nlp.recipe.resume import OnResume
from mtl_nlp.recipe.sampling import Batching
from mtl_nlp.recipe.section import Section, without_boolean
from mtl_nlp.recipe.variables import has_variable

SPLITS = ("train", "validation", "test")

INPUTS = ("tokens", "text", "text_pair")


def _text_of_integer(name: Any) -> Any:
    """Return a whole number as a text: the names of labels are texts, and YAML reads `1` as a number."""
    return str(name) if isinstance(name, int) and not isinstance(name, bool) else name


_LabelName = Annotated[str, BeforeValidator(_text_of_integer)]

# `check_sampling` checks the range, and names the rule for pairs.
_Temperature = Annotated[float, Field(json_schema_extra={"exclusiveMinimum": 0})]


class DatasetRecipe(Section):
    """A dataset. All keys except the attributes below are arguments of `datasets.load_dataset`.

    Attributes:
        path: a file or glob, such as `tickets.csv` or `data/*.jsonl`; a folder, also one that `Dataset.save_to_disk`
            wrote; a Hub id; or the format of `data_files`: `json`, `csv`, `tsv`, `parquet`, …,
            `conll` (columns) or `conllu` (Universal Dependencies). The ending of a file names its format.
        data_files: split -> file, glob, or list of files and globs; relative to `path` if `path` is a Hub id or folder.
            A single file, glob or list has the training rows, except files of a glob or folder whose names say a
            different split (`dev.conll`, `test-1.jsonl`).
        columns: names of the columns in the files, for a format without column names (`conll`).
        inputs: `{tokens: column}`, or `{text: column}`, with `text_pair` for pairs.
        labels: task -> column; for a set of classes also a list of columns with 0 and 1, or `{column: tags, delimiter:
            ";"}`; for character spans of a `text` also `{column: spans, alignment_mode: expand}`, see `LabelSource`.
        label_map: task -> name in the data -> new name; for spans a complete tag, or the label of the spans. The new
            name null means no label.
        weight: the column with the weight of each row in the mean loss of its tasks, a number of at least 0; 1 for a
            row without a weight, and for all rows of an evaluation split without the column.
        splits: split -> the dataset's own name for the split, if the name differs, such as `{validation: dev}`, or a
            slice of it as `datasets` writes it, such as `{train: "train[:80%]", validation: "train[80%:]"}`.
        streaming: whether to read the training split during training instead of before. A streamed split may be larger
            than memory and disk.
        num_rows: number of rows of a streamed training split. Without `num_rows` the split is read once to count the
            rows and to find the labels.
        buffer_size: number of rows of a stream that are shuffled at once.
        validation_size: share (or number) of the training rows to use for validation, if the dataset has no validation
            split. The rows are drawn with a fixed seed, and stratified by `stratify_by_column`. They depend on no other
            key than `splits`.
        test_size: share (or number) of the training rows to use as test rows, if the dataset has no test split. The
            rows are drawn like those of `validation_size`, and both sizes refer to all training rows.
        stratify_by_column: the column whose values keep their shares in the rows of `validation_size` and `test_size`,
            or `false` for rows that are drawn without regard to any column. By default the column of the first task in
            `labels` that gives each text one class.
        max_rows: split -> the largest number of rows to use. The rows of a larger split are drawn with a fixed seed,
            after `validation_size` and `test_size`, and keep their order; a smaller number draws a part of the rows of
            a larger number.
        map: `module:function`, a function from a row, a dict, to a dict of changed and new columns, for every split.
            The recipe is loaded only with `allow_code`, see `Recipe.imports`.
        filter: `module:function`, a function from a row to whether the row is kept, for every split. The function sees
            rows as `map` returns them. `validation_size`, `max_rows` and `num_rows` count the rows that are kept.
        on_missing_text: `skip` to leave out the rows without an input, which are counted, or `error` to refuse the
            rows. An input is missing if it is null, NaN, or a list without words; a pair needs both texts. An empty
            string is a text, but an empty cell of a CSV file is null.
    """

    model_config = ConfigDict(extra="allow")

    path: Annotated[str, OnResume.REORDERS]
    data_files: Annotated[str | list[str] | dict[str, str | list[str]] | None, OnResume.REORDERS] = None
    columns: Annotated[list[str] | None, OnResume.REORDERS] = None
    inputs: Annotated[dict[str, str], OnResume.REORDERS]
    labels: Annotated[dict[str, LabelColumns], OnResume.REORDERS]
    label_map: Annotated[dict[str, dict[_LabelName, _LabelName | None]], OnResume.REORDERS] = Field(
        default_factory=dict
    )
    weight: Annotated[str | None, OnResume.TAKES_EFFECT] = None
    splits: Annotated[dict[str, str], OnResume.REORDERS] = Field(default_factory=dict)
    streaming: Annotated[bool, OnResume.REORDERS] = False
    num_rows: Annotated[int | None, OnResume.REORDERS] = Field(default=None, ge=1)
    buffer_size: Annotated[int, OnResume.REORDERS] = Field(default=1000, ge=1)
    validation_size: Annotated[float | int | None, OnResume.REORDERS] = Field(default=None, gt=0, allow_inf_nan=False)
    test_size: Annotated[float | int | None, OnResume.REORDERS] = Field(default=None, gt=0, allow_inf_nan=False)
    stratify_by_column: Annotated[str | Literal[False] | None, OnResume.REORDERS] = None
    max_rows: Annotated[dict[str, Annotated[int, Field(ge=1), BeforeValidator(without_boolean)]], OnResume.REORDERS] = (
        Field(default_factory=dict)
    )
    map: Annotated[str | None, OnResume.REORDERS] = None
    filter: Annotated[str | None, OnResume.REORDERS] = None
    on_missing_text: Annotated[Literal["skip", "error"], OnResume.REORDERS] = "skip"

    @field_validator("inputs")
    @classmethod
    def _either_tokens_or_text(cls, inputs: dict[str, str]) -> dict[str, str]:
        for key in inputs:
            if key not in INPUTS:
                raise ValueError(f"no such input {key!r}. {did_you_mean(key, INPUTS)}")
        if ("tokens" in inputs) == ("text" in inputs):
            raise ValueError("give either `tokens` or `text`")
        if "tokens" in inputs and "text_pair" in inputs:
            raise ValueError("`text_pair` needs `text` and cannot be combined with `tokens`")
        return inputs

    @field_validator("labels")
    @classmethod
    def _at_least_one_label(cls, labels: dict[str, LabelColumns]) -> dict[str, LabelColumns]:
        if not labels:
            raise ValueError("name at least one task and its column")
        return labels

    @field_validator("map", "filter")
    @classmethod
    def _names_a_function(cls, text: str | None) -> str | None:
        if text is not None:
            module_and_function(text)
        return text

    @field_validator("data_files", mode="before")
    @classmethod
    def _files_or_files_by_split(cls, given: Any) -> Any:
        for files in given.values() if isinstance(given, dict) else [given]:
            of_one_split = files if isinstance(files, list) else [files]
            if files is not None and not (of_one_split and all(isinstance(file, str) for file in of_one_split)):
                raise ValueError(f"should be a file, a list of files, or files by split. Found {files!r:.80}")
        return given

    @field_validator("splits", "max_rows")
    @classmethod
    def _known_splits(cls, splits: dict[str, Any]) -> dict[str, Any]:
        for key in splits:
            if key not in SPLITS:
                raise ValueError(f"no such split {key!r}. {did_you_mean(key, SPLITS)}")
        return splits

    @model_validator(mode="after")
    def _rows_are_set_aside(self) -> DatasetRecipe:
        if self.stratify_by_column is not None and not self.sizes:
            raise ValueError("`stratify_by_column` needs `validation_size` or `test_size`")
        return self

    @model_validator(mode="after")
    def _streaming_options_match(self) -> DatasetRecipe:
        for key in {"num_rows", "buffer_size"} & self.model_fields_set:
            if not self.streaming:
                raise ValueError(f"`{key}` needs `streaming: true`")
        for split in self.sizes if self.streaming else ():
            raise ValueError(f"a stream cannot be split. Leave out `{split}_size` or `streaming`")
        for split, own in self.splits.items() if self.streaming else ():
            if "[" in own or "+" in own:
                raise ValueError(f"splits.{split}: a stream cannot be cut. Leave out {own!r} or `streaming`")
        if self.streaming and "train" in self.max_rows:
            # The first rows of a stream are not a random sample, since files are often sorted.
            raise ValueError("rows cannot be drawn from a stream. Leave out `max_rows.train` or `streaming`")
        return self

    @model_validator(mode="after")
    def _files_of_known_splits(self) -> DatasetRecipe:
        own = {name for split in self.splits.values() for name in names_in(split)}
        for key in self.data_files if isinstance(self.data_files, dict) else ():
            if key not in SPLITS and key not in own:
                raise ValueError(
                    f"`data_files` names {key!r}, which is neither a split nor a value of `splits`. "
                    f"{did_you_mean(key, SPLITS)}"
                )
        return self

    @property
    def reads_files(self) -> bool:
        """Whether the rows come from named files, and not from a Hub id or a folder."""
        if self.data_files is not None:
            return "/" not in self.path
        return is_files(self.path) or self._columns_in_folder is not None

    @property
    def _columns_in_folder(self) -> str | None:
        return columns_in(self.path, has_columns=self.columns is not None)

    @property
    def files(self) -> dict[str, list[str]]:
        """Split -> its files and globs; empty for all splits of a Hub id or a folder of other files than columns.

        The files of a single glob and of a folder belong to the splits that their names say, see `files_by_split`.
        """
        given = self.data_files
        if given is None and self.reads_files:
            given = self._columns_in_folder or self.path
        alone = given[0] if isinstance(given, list) and len(given) == 1 else given
        if isinstance(alone, str) and self.reads_files and (by_name := files_by_split(alone)):
            return by_name
        by_split = given if isinstance(given, dict) else {} if given is None else {"train": given}
        return {split: [files] if isinstance(files, str) else files for split, files in by_split.items()}

    @property
    def sizes(self) -> dict[str, float | int]:
        """Split -> the share or number of the training rows that are set aside for the split."""
        sizes = {"validation": self.validation_size, "test": self.test_size}
        return {split: size for split, size in sizes.items() if size is not None}


class MixtureRecipe(Section):
    """The mixing of datasets: p_d ∝ min(n_d, size_cap)^(1/temperature); see `TaskMixture`.

    Attributes:
        temperature: 1 is proportional to size, a large value (`.inf`) is uniform. `[5, 1]` moves from 5 to 1 over the
            training.
        size_cap: the largest number of rows that counts for a dataset.
        max_repeats: the largest number of passes over a dataset in one epoch. The share that a dataset loses is
            distributed over the remaining datasets.
        probabilities: p_d of every dataset, instead of the three attributes above.
        headroom: whether half of p_d follows, from epoch to epoch, how far the tasks of each dataset are from their
            best validation scores so far; the path of a `comparison.json` replaces the best scores by the scores of its
            single-task runs. See `TaskMixture`.
        batching: with `mixed`, a batch has rows from any dataset; with `homogeneous`, from one dataset, which is the
            same in all processes.
        length_window: number of batches inside which rows are grouped by length.
    """

    temperature: Annotated[_Temperature | list[_Temperature], OnResume.REORDERS] = 1.0
    size_cap: Annotated[int | None, OnResume.REORDERS] = Field(default=None, ge=1)
    max_repeats: Annotated[float | None, OnResume.REORDERS] = Field(default=None, ge=1)
    probabilities: Annotated[
        dict[str, Annotated[float, Field(gt=0, le=1), BeforeValidator(without_boolean)]] | None, OnResume.REORDERS
    ] = None
    headroom: Annotated[bool | str, OnResume.REORDERS] = False
    batching: Annotated[Batching, OnResume.REORDERS] = "mixed"
    length_window: Annotated[int, OnResume.REORDERS] = Field(default=100, ge=1)


class AdapterRecipe(Section):
    """Soft sharing: a LoRA (Hu et al. 2021) on the encoder per task; see `MultitaskModel.add_adapter`.

    Attributes:
        r: rank of the low-rank update.
        alpha: numerator of the scale alpha / r of the low-rank update.
        dropout: share of an adapter's input that is dropped in training.
        target_modules: names of linear layers, or `all-linear`; by default PEFT's choice for the encoder's family.
        tasks: the tasks with an adapter of their own. The remaining tasks use the encoder without an own adapter.
        shared: whether the encoder also has one adapter that all tasks use.
        train_encoder: whether the encoder's own weights are trained too, and not only adapters and heads.
        pull: λ of the term λ · Σ_t ‖ΔW_t − mean ΔW‖²_F in the loss, which draws the adapters of the tasks towards
            their mean. The term includes the adapters of a trained model, unless they are frozen.
        use_rslora: whether to scale by alpha / √r instead of alpha / r (Kalajdzievski 2023).
        use_dora: whether to use DoRA (Liu et al. 2024) instead of LoRA. DoRA needs an encoder pass per adapter and
            cannot be combined with `shared` or `pull`.
    """

    r: Annotated[int, OnResume.COMPARED] = Field(default=8, ge=1)
    alpha: Annotated[int, OnResume.TAKES_EFFECT] = Field(default=16, ge=1)
    dropout: Annotated[float, OnResume.TAKES_EFFECT] = Field(default=0.0, ge=0, lt=1)
    target_modules: Annotated[
        Annotated[list[str], Field(min_length=1)] | Literal["all-linear"] | None, OnResume.COMPARED
    ] = None
    tasks: Annotated[list[str] | Literal["all"], OnResume.COMPARED] = "all"
    shared: Annotated[bool, OnResume.COMPARED] = False
    train_encoder: Annotated[bool, OnResume.REFUSED] = True
    pull: Annotated[float, OnResume.TAKES_EFFECT] = Field(default=0.0, ge=0, le=LARGEST)
    use_rslora: Annotated[bool, OnResume.TAKES_EFFECT] = False
    use_dora: Annotated[bool, OnResume.COMPARED] = False

    @model_validator(mode="after")
    def _options_match(self) -> AdapterRecipe:
        if not self.tasks and not self.shared:
            raise ValueError("`tasks` is empty and `shared` is false. Name a task, set `shared`, or remove `adapters`")
        if len(set(self.tasks)) < len(self.tasks) and self.tasks != "all":
            raise ValueError(f"`tasks` should name each task once. Found {self.tasks}")
        if self.use_dora and (self.shared or self.pull):
            raise ValueError("`use_dora` cannot be combined with `shared` or `pull`: DoRA updates are not additive")
        return self


class AnalysisRecipe(Section):
    """Measurements in training that do not change it.

    Attributes:
        conflict_every: the number of optimizer steps from one measurement of the conflict between the tasks' gradients
            to the next; no measurement by default. See `conflict.json` in the run's folder.
    """

    conflict_every: Annotated[int | None, OnResume.TAKES_EFFECT] = Field(default=None, ge=1)


class CardRecipe(Section):
    """Facts for the model card that cannot be computed. The Hub's documentation of model cards lists valid values.

    Attributes:
        license: the model's licence, such as `apache-2.0`.
        language: the language or languages of the texts, such as `en`.
        base_model: the encoder's Hub id, if `encoder` is a local folder.
        examples: whether the report that a push sends may quote texts of the datasets.
    """

    license: Annotated[str | None, OnResume.TAKES_EFFECT] = None
    language: Annotated[str | list[str] | None, OnResume.TAKES_EFFECT] = None
    base_model: Annotated[str | None, OnResume.TAKES_EFFECT] = None
    examples: Annotated[bool, OnResume.TAKES_EFFECT] = False

    @field_validator("license", "language", "base_model")
    @classmethod
    def _has_no_variable(cls, value: str | list[str] | None) -> str | list[str] | None:
        for text in value if isinstance(value, list) else [value]:
            if has_variable(text):
                raise ValueError(f"{text} is a variable, and the card is published. Write the value itself")
        return value


class BaselineTaskRecipe(Section):
    """The training of one task alone, for a comparison.

    Attributes:
        training: training arguments that differ from those of all baselines.
    """

    training: Annotated[dict[str, Any], OnResume.IRRELEVANT] = Field(default_factory=dict)


class BaselinesRecipe(Section):
    """The training of each task alone, for a comparison. The section has no effect on the training of the recipe.

    Attributes:
        training: training arguments that differ from those of the recipe.
        tasks: task -> its own training arguments.
    """

    training: Annotated[dict[str, Any], OnResume.IRRELEVANT] = Field(default_factory=dict)
    tasks: Annotated[dict[str, BaselineTaskRecipe], OnResume.IRRELEVANT] = Field(default_factory=dict)
