"""The draft of a recipe from data files: a YAML text in which a comment explains each guess. Imports no torch."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from mtl_nlp.errors import DataError
from mtl_nlp.messages import conceal, one_line
from mtl_nlp.recipe.files import ENDINGS, ending_of
from mtl_nlp.recipe.plain_yaml import PlainDumper, load_yaml
from mtl_nlp.run.draft_columns import ColumnGuesses, TaskGuess, guess_columns
from mtl_nlp.run.draft_files import DataFiles, find_files

DEFAULT_ENCODER = "${MINILM:-sentence-transformers/all-MiniLM-L6-v2}"
_VALIDATION_SIZE = 0.1
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""Control characters and line breaks."""


def draft_recipe(files: Iterable[str | Path], output: Path, encoder: str = DEFAULT_ENCODER) -> str:
    """Return a recipe for data files as YAML. Each guess has a comment with its reason and how to change it.

    Args:
        files: files, or folders of files.
        output: the file of the recipe, to which the paths in it are relative.
        encoder: the encoder of the recipe.

    Raises:
        DataError: if a file cannot be read, or has no texts or labels that can be recognised.
    """
    datasets = find_files(files)
    guesses = {data.name: guess_columns(data.name, data.rows(), data.format) for data in datasets}
    names = _task_names(guesses)
    tasks: dict[str, TaskGuess] = {}
    for dataset, found in guesses.items():
        for column, task in found.tasks.items():
            tasks.setdefault(names[dataset, column], task)
    lines = [
        f"# A first recipe for {', '.join(guesses)}. Each comment gives the reason of a guess, and how to change it.",
        "#",
        f"# check: mtl-nlp plan {_comment(output.name)}",
        f"# train: mtl-nlp train {_comment(output.name)}",
        "# keys:  mtl-nlp schema",
        "",
        f"encoder: {_scalar(encoder)}    # any encoder of the Hub, or a folder",
        f"output_dir: {_scalar(f'runs/{output.stem}')}    # the folder of the trained model",
        "",
        "tasks:",
        *(f"  {_scalar(name)}: {_flow(task.options)}    # {_comment(task.why)}" for name, task in tasks.items()),
        "",
        "datasets:",
    ]
    for data in datasets:
        own = {names[data.name, column]: column for column in guesses[data.name].tasks}
        lines += _dataset_lines(data, guesses[data.name], own, output.resolve().parent)
    lines += [
        "",
        "training:    # fields of transformers.TrainingArguments",
        "  num_train_epochs: 3    # more for few rows, until the validation scores stop rising",
        "  learning_rate: 1.0e-4    # for encoders of the size of BERT base and above, 2.0e-5 to 5.0e-5",
        "  per_device_train_batch_size: 16",
        "  eval_strategy: epoch    # the scores on validation after each epoch",
        '  save_strategy: "no"    # epoch: a checkpoint after each epoch, to resume from',
        "",
    ]
    return _checked("\n".join(lines), ", ".join(guesses))


def _checked(text: str, datasets: str) -> str:
    """Return a draft that is valid YAML."""
    try:
        load_yaml(text)
    except yaml.YAMLError as error:
        raise DataError(
            f"{datasets}: a name of a file or column makes the recipe invalid YAML: {one_line(error)}. Rename it."
        ) from error
    return text


def _dataset_lines(data: DataFiles, found: ColumnGuesses, labels: Mapping[str, str], folder: Path) -> list[str]:
    lines = [f"  {_scalar(data.name)}:", *_file_lines(data, folder)]
    if found.names is not None:
        lines.append(f"    columns: {_flow(found.names)}    # the names are guesses; each column needs one")
    if "validation" not in data.splits:
        lines.append(
            f"    validation_size: {_VALIDATION_SIZE}    # no file is for validation: a share of the training rows is"
        )
    lines.append(f"    inputs: {_flow(found.inputs)}    # {_comment(found.inputs_why)}")
    lines.append("    labels:    # task: column")
    lines += [f"      {_scalar(task)}: {_scalar(found.tasks[column].columns)}" for task, column in labels.items()]
    lines += [f"      # {_comment(column)} has no task: {_comment(why)}" for column, why in found.left_out.items()]
    return lines


def _file_lines(data: DataFiles, folder: Path) -> list[str]:
    """Return the lines with the files of a dataset: `path` alone for one file whose ending names its format."""
    files = [file for of_split in data.splits.values() for file in of_split]
    why = "" if data.is_named else "    # no file name says a split"
    separator = data.separator if data.format in {"csv", "tsv"} else ","
    if len(files) == 1 and ENDINGS.get(ending_of(files[0].name)) == data.format:
        lines = [f"    path: {_scalar(_relative(files[0], folder))}{why}"]
        return lines if data.format == "tsv" or separator == "," else [*lines, f"    sep: {_scalar(separator)}"]
    lines = [f"    path: {'csv' if data.format == 'tsv' else data.format}"]
    lines += [] if separator == "," else [f"    sep: {_scalar(separator)}"]
    lines.append(f"    data_files:{why}")
    for split, of_split in data.splits.items():
        shown = [_relative(each, folder) for each in _as_globs(of_split)]
        lines.append(f"      {split}: {_scalar(shown[0]) if len(shown) == 1 else _flow(shown)}")
    return lines


def _task_names(guesses: Mapping[str, ColumnGuesses]) -> dict[tuple[str, str], str]:
    """Return the name of the task of each dataset and column.

    Columns of one name in several datasets share a task if they have the same options, and a label in common or no
    labels. Otherwise the task has the name of its dataset too.
    """
    first: dict[str, TaskGuess] = {}
    names = {}
    for dataset, found in guesses.items():
        for column, task in found.tasks.items():
            name = " ".join(_CONTROL.sub(" ", column).split())  # the name of a task is one line
            known = first.setdefault(name, task)
            is_same = known.options == task.options and bool(known.labels & task.labels) == bool(known.labels)
            names[dataset, column] = name if is_same else f"{dataset}_{name}"
    return names


def _as_globs(files: Sequence[Path]) -> list[Path]:
    """Return one pattern for files that are all the files of their folder with their ending; otherwise the files."""
    folder, suffix = files[0].parent, files[0].suffix
    is_whole = len(files) > 1 and set(files) == {each for each in folder.iterdir() if each.suffix == suffix}
    return [folder / f"*{suffix}"] if is_whole else list(files)


def _relative(path: Path, folder: Path) -> str:
    """Return the path of a file relative to the folder of the recipe, unless the file is far from the folder."""
    relative = Path(os.path.relpath(path.resolve(), folder))
    return str(path.resolve() if relative.parts[:3] == ("..", "..", "..") else relative)


class _Dumper(PlainDumper):
    """The dumper of recipes, which escapes line breaks and other control characters, so that a text is one line."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        """Return the scalar of a text."""
        return self.represent_scalar("tag:yaml.org,2002:str", text, style='"' if _CONTROL.search(text) else None)


_Dumper.add_representer(str, _Dumper.represent_text)


def _scalar(value: Any) -> str:
    """Return a value as YAML of one line."""
    shown = yaml.dump(
        value, Dumper=_Dumper, allow_unicode=True, default_flow_style=True, sort_keys=False, width=float("inf")
    )
    return shown.removesuffix("...\n").strip()


def _flow(value: Mapping[str, Any] | Sequence[Any]) -> str:
    """Return a mapping or list as YAML of one line."""
    return _scalar(dict(value) if isinstance(value, Mapping) else list(value))


def _comment(text: str) -> str:
    return " ".join(_CONTROL.sub(" ", conceal(text)).split())
