from __future__ import annotations

import dataclasses

import pytest
from transformers import TrainingArguments

from mtl_nlp.recipe.resume import OnResume
from mtl_nlp.run.arguments import RESERVED
from mtl_nlp.training.arguments import MultitaskTrainingArguments
from mtl_nlp.training.resume import FREE_KEYS, meaning_of

STOCK = {field.name for field in dataclasses.fields(TrainingArguments)}
ALL = {field.name for field in dataclasses.fields(MultitaskTrainingArguments) if field.init}
LISTED = {key.partition(".")[2] for key in FREE_KEYS if key.startswith("training.")}


@pytest.mark.parametrize("field", sorted(ALL - STOCK - RESERVED.keys()))
def test_every_added_training_argument_states_its_effect_on_a_resumed_run(field):
    assert f"training.{field}" in FREE_KEYS


@pytest.mark.parametrize("field", sorted(LISTED))
def test_every_listed_key_is_a_training_argument(field):
    assert field in ALL


@pytest.mark.parametrize("field", sorted(name for name in STOCK if name.startswith(("adam_", "optim"))))
def test_values_in_the_optimizer_state_are_listed(field):
    assert field in LISTED


@pytest.mark.parametrize("field", sorted(STOCK - LISTED))
def test_unlisted_arguments_of_transformers_take_effect(field):
    assert meaning_of(f"training.{field}") is OnResume.TAKES_EFFECT


@pytest.mark.parametrize(
    ("key", "meaning"),
    [
        ("encoder", OnResume.KEPT),
        ("training.learning_rate", OnResume.KEPT),
        ("training.optim_args", OnResume.REFUSED),
        ("training.lr_scheduler_kwargs.num_cycles", OnResume.TAKES_EFFECT),
        ("model_init_kwargs.revision", OnResume.KEPT),
        ("model_init_kwargs.attn_implementation", OnResume.TAKES_EFFECT),
        ("datasets.ewt.streaming", OnResume.REORDERS),
        ("datasets.ewt.revision", OnResume.REORDERS),
        ("tasks.ner.scheme", OnResume.COMPARED),
        ("of_an_earlier_release", OnResume.TAKES_EFFECT),
        ("mixture.of_an_earlier_release", OnResume.TAKES_EFFECT),
    ],
)
def test_key_has_the_effect_of_its_field_or_of_the_table(key, meaning):
    assert meaning_of(key) is meaning
