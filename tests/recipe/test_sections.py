"""The sections of a recipe alone; `test_schema.py` tests the sections as parts of a recipe."""

from __future__ import annotations

import re

import pytest
from pydantic import BaseModel, ValidationError

from mtl_nlp.recipe.sections import (
    AdapterRecipe,
    BaselinesRecipe,
    BaselineTaskRecipe,
    CardRecipe,
    DatasetRecipe,
    MixtureRecipe,
)

DATASET = {
    "path": "json",
    "data_files": {"train": "a.jsonl"},
    "inputs": {"tokens": "tokens"},
    "labels": {"pos": "upos"},
}


@pytest.mark.parametrize("section", [AdapterRecipe, BaselinesRecipe, BaselineTaskRecipe, CardRecipe, MixtureRecipe])
def test_section_has_defaults_refuses_unknown_keys_and_is_immutable(section: type[BaseModel]):
    made = section()
    with pytest.raises(ValidationError):
        section(no_such_key=1)
    with pytest.raises(ValidationError):
        setattr(made, next(iter(section.model_fields)), None)


def test_dataset_passes_unknown_keys_to_load_dataset():
    assert DatasetRecipe(**DATASET, name="en").model_extra == {"name": "en"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stratify_by_column": "topic"}, "needs `validation_size` or `test_size`"),
        ({"streaming": True, "test_size": 0.1}, "a stream cannot be split. Leave out `test_size` or `streaming`"),
        ({"streaming": True, "splits": {"train": "train[:80%]"}}, "splits.train: a stream cannot be cut"),
        ({"data_files": {"dev": "a.jsonl"}, "splits": {"validation": "dve[:9]"}}, "`data_files` names 'dev', which"),
        ({"data_files": {"train": [3]}}, r"should be a file, a list of files, or files by split. Found [3]"),
        ({"on_missing_text": "drop"}, "Input should be 'skip' or 'error'"),
    ],
)
def test_options_of_a_dataset_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValidationError, match=re.escape(message)):
        DatasetRecipe(**{**DATASET, **changes})


def test_files_of_a_slice_are_those_of_its_split():
    dataset = DatasetRecipe(**{**DATASET, "data_files": {"all": "a.jsonl"}, "splits": {"train": "all[:80%]"}})
    assert dataset.files == {"all": ["a.jsonl"]}
    assert DatasetRecipe(**{**DATASET, "path": "owner/name", "data_files": None}).files == {}


def test_files_are_read_if_the_path_is_a_format():
    assert DatasetRecipe(**DATASET).reads_files
    assert not DatasetRecipe(**{**DATASET, "path": "owner/name"}).reads_files
    assert not DatasetRecipe(**{**DATASET, "data_files": None}).reads_files


def test_adapter_defaults_train_the_encoder_without_a_pull():
    adapters = AdapterRecipe()
    assert (adapters.r, adapters.alpha, adapters.tasks, adapters.target_modules) == (8, 16, "all", None)
    assert (adapters.train_encoder, adapters.shared, adapters.pull) == (True, False, 0.0)
