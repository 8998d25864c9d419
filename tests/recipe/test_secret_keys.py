from __future__ import annotations

import dataclasses
import inspect

import datasets
import pandas as pd
import pytest
from plain_recipes import changed, write
from transformers import TrainingArguments

from mtl_nlp.errors import RecipeError
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.recipe.secret_keys import is_secret_key


@pytest.mark.parametrize(
    "key",
    [
        *("token", "hub_token", "use_auth_token", "sas_token", "secret", "client_secret", "password", "passwd", "pwd"),
        *("db_password", "api_key", "apikey", "apiKey", "API_KEY", "aws_access_key_id", "aws_secret_access_key"),
        *("account_key", "private_key", "HF_TOKEN", "credentials", "Authorization", "secretKey", "access-key"),
        *("passwords", "cookie", "accesskey", "secretkey"),
    ],
)
def test_keys_of_secrets_are_recognized(key):
    assert is_secret_key(key)


ARGUMENTS = {field.name for field in dataclasses.fields(TrainingArguments)}
FUNCTIONS = (datasets.load_dataset, pd.read_csv, pd.read_json)
OF_LOADING = {name for function in FUNCTIONS for name in inspect.signature(function).parameters}


def test_only_tokens_look_like_secrets_among_the_arguments_of_the_libraries():
    assert {key for key in ARGUMENTS | OF_LOADING if is_secret_key(key)} == {"hub_token", "token"}


@pytest.mark.parametrize(
    "key",
    [
        *(
            "tokens",
            "tokenizer",
            "tokenizer_name",
            "max_tokens_per_batch",
            "token_type_ids",
            "num_tokens",
            "key",
            "keys",
        ),
        *("pad_token", "mask_token", "cls_token", "special_tokens", "sort_key", "label_key", "primary_key", "field"),
        *("token_dropout", "tokenization", "secretary", "passage", "password_field_name", "monkey", "keyboard"),
    ],
)
def test_ordinary_keys_are_no_secrets(key):
    assert not is_secret_key(key)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("training.api_key", "qq77"),
        ("training.deepspeed", {"wandb": {"password": "qq77"}}),
        ("model_init_kwargs.password", 7799),
        ("model_init_kwargs.secrets", ["qq77"]),
        ("model_init_kwargs.credentials", {"user": "qq77"}),
        ("datasets.ewt.storage_options", {"key": "qq77"}),
        ("datasets.ewt.storage_options", {"client_kwargs": {"anything": ["qq77"]}}),
        ("datasets.ewt.storage_options", {"key": "${AWS:-qq77}"}),
        ("datasets.ewt.password", "qq77"),
        ("datasets.ewt.data_files.train", "https://ada:qq77@host/x.jsonl"),
        ("datasets.ewt.data_files.train", ["https://host/x.jsonl?sig=qq77&x=1"]),
        ("datasets.ewt.data_files.train", "s3://bucket/x?a=1&api_key=qq77"),
        ("datasets.ewt.data_files.train", "https://ada:${PASS:-qq77}@host/x"),
        ("datasets.ewt.data_files.train", "https://host/x.jsonl#access_token=qq77"),
        ("datasets.ewt.data_files.train", "https://qq77@host/x.jsonl"),
        ("encoder", "https://ada:qq77@host/x"),
        ("baselines.training.api_key", "qq77"),
        ("baselines.tasks.pos.training.password", "qq77"),
        ("training.run_name", "see http://:qq77@host"),
    ],
)
def test_literal_secrets_are_refused_without_their_value(tmp_path, key, value):
    where = (
        r"^(training|model_init_kwargs|datasets\.ewt|encoder|baselines)[.\w\[\]]*: a recipe must not contain a secret, "
        r"since it "
    )
    with pytest.raises(RecipeError, match=where + ".*Put it in the environment") as caught:
        Recipe.load(write(tmp_path, changed(key, value)))
    assert "qq77" not in str(caught.value)
    assert "7799" not in str(caught.value)
    with pytest.raises(RecipeError, match=where):
        Recipe.from_dict(changed(key, value))


@pytest.mark.parametrize(
    "key", ["training.hub_token", "model_init_kwargs.token", "datasets.ewt.token", "baselines.training.hub_token"]
)
def test_tokens_are_refused_with_the_name_of_the_variable_that_the_hub_reads(tmp_path, key):
    message = rf"^{key}: a recipe must not contain a token, since it is published with the model\. Set HF_TOKEN in the"
    with pytest.raises(RecipeError, match=message):
        Recipe.from_dict(changed(key, "hf_abc"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("training.hub_token", "${SOME_SECRET}"),
        ("datasets.ewt.token", True),
        ("datasets.ewt.storage_options", {"key": "${SOME_SECRET}", "anon": False, "timeout": 5, "x": None}),
        ("datasets.ewt.data_files.train", "https://ada:${SOME_SECRET}@host/x?token=${SOME_SECRET}&page=3"),
        ("datasets.ewt.data_files.train", "ssh://git@host/x.jsonl"),
        ("datasets.ewt.data_files.train", "https://${SOME_SECRET}@host/@ada/x.jsonl"),
        ("datasets.ewt.dtype", {"token": "str", "password": "str"}),
        ("datasets.ewt.labels", {"pos": "token", "genre": "password"}),
        ("datasets.ewt.inputs", {"tokens": "secret"}),
        ("tasks.token", {"type": "text-classification"}),
        ("model_init_kwargs.pad_token", "<pad>"),
        ("training.lr_scheduler_kwargs", {"num_cycles": 2}),
    ],
)
def test_variables_names_and_switches_are_accepted(tmp_path, monkeypatch, key, value):
    monkeypatch.setenv("SOME_SECRET", "qq77qq77")
    data = changed(key, value)
    if key == "tasks.token":
        data["datasets"]["ewt"]["labels"]["token"] = "x"
    assert "qq77" not in Recipe.load(write(tmp_path, data)).to_yaml()


def test_a_task_named_like_a_secret_may_have_baselines():
    data = changed("tasks.token", {"type": "text-classification"})
    data["datasets"]["ewt"]["labels"]["token"] = "genre"
    data["baselines"] = {"tasks": {"token": {"training": {"learning_rate": 0.1, "run_name": "alone"}}}}
    assert Recipe.from_dict(data).baseline_training("token") == {"learning_rate": 0.1, "run_name": "alone"}
