"""The refusal of secrets in a recipe: a recipe is published with its model. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mtl_nlp.recipe.plain_yaml import VARIABLE

_NAMES = frozenset({"inputs", "labels", "columns", "splits"})
"""Keys of a dataset whose own keys are names of columns, tasks and splits."""

_OF_COLUMNS = frozenset({"features", "dtype", "na_values", "converters", "parse_dates", "date_format"})
"""Arguments of `datasets.load_dataset` whose keys are names of columns."""

_SECRET_WORDS = frozenset(
    {
        *("token", "secret", "secrets", "password", "passwd", "pwd", "passphrase", "apikey", "credential"),
        *("credentials", "authorization", "bearer", "passwords", "cookie", "cookies", "accesskey", "secretkey"),
    }
)

_KEYS_OF = frozenset(
    {"access", "account", "api", "auth", "client", "encryption", "master", "private", "secret", "signing", "ssh"}
)
"""Words before `key` that make it a secret. A `sort_key` or a `label_key` is a name."""

_TOKENS_OF_TEXT = frozenset(
    {
        *("audio", "begin", "bos", "cls", "end", "eos", "fake", "forced", "image", "mask", "new", "pad", "prefix"),
        *("sep", "special", "split", "start", "suffix", "unk", "video", "word"),
    }
)
"""Words before `token` that make it a part of a text, such as `pad_token`."""

_SIGNATURES = frozenset({"sig", "signature", "x-amz-signature", "x-goog-signature", "x-amz-credential"})

_WORD = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])")

# Over HTTP, a user without a password is a token, as in `https://TOKEN@github.com`.
_URL_PASSWORD = re.compile(r"://[^/\s@:]*:[^/\s@]+@|\bhttps?://[^/\s@:]+@")

_URL_ARGUMENT = re.compile(r"[?&#](?P<key>[\w.-]+)=(?P<value>[^&#\s]+)")


def is_secret_key(key: str) -> bool:
    """Return whether the name of a key says that its value is a secret, such as `hub_token` or `api_key`."""
    words = [word.lower() for word in _WORD.findall(str(key))]
    if not words:
        return False
    *before, last = words
    if last == "id" and before[-1:] == ["key"]:  # `aws_access_key_id`
        *before, last = before
    if last == "token":
        return not before or before[-1] not in _TOKENS_OF_TEXT
    return last in _SECRET_WORDS or (last == "key" and not _KEYS_OF.isdisjoint(before[-1:]))


def check_has_no_secret(data: Mapping[str, Any]) -> None:
    """Check that a recipe holds no secret: a secret is read from the environment.

    Refused are literal values of keys that look like secrets, all texts under `storage_options`, and passwords and
    signatures in URLs. A text with a variable is accepted, since a recipe is published with its variables.

    Args:
        data: the recipe as plain data, with its variables.

    Raises:
        ValueError: if the recipe holds a secret. The message names the key and not the value.
    """
    for section in ("training", "model_init_kwargs"):
        _check_section(data.get(section), section)
    _check_baselines(data.get("baselines"))
    datasets = data.get("datasets")
    for name, dataset in datasets.items() if isinstance(datasets, dict) else ():
        if isinstance(dataset, dict):
            _check_section({key: value for key, value in dataset.items() if key not in _NAMES}, f"datasets.{name}")
    _check_urls(data, "")


def _check_baselines(baselines: Any) -> None:
    """Check the training arguments of a comparison's baselines. The keys of `tasks` are names of tasks."""
    if not isinstance(baselines, dict):
        return
    tasks = baselines.get("tasks")
    _check_section({key: value for key, value in baselines.items() if key != "tasks"}, "baselines")
    for name, task in tasks.items() if isinstance(tasks, dict) else ():
        _check_section(task, f"baselines.tasks.{name}")


def _check_section(value: Any, where: str, key: str = "", *, is_secret: bool = False, is_stored: bool = False) -> None:
    """Check all values below a key.

    Args:
        value: the value of the key.
        where: the path of the key, for the message.
        key: the key that looks like a secret.
        is_secret: whether the key or a key above it looks like a secret.
        is_stored: whether the key is below `storage_options`.
    """
    if isinstance(value, dict):
        for name, item in value.items():
            if name in _OF_COLUMNS:
                continue
            secret = is_secret_key(name)
            _check_section(
                item,
                f"{where}.{name}",
                str(name) if secret else key,
                is_secret=is_secret or secret,
                is_stored=is_stored or name == "storage_options",
            )
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_section(item, f"{where}[{index}]", key, is_secret=is_secret, is_stored=is_stored)
    elif _is_literal(value) and (is_secret or (is_stored and isinstance(value, str))):
        raise ValueError(_advice(where, key))


def _is_literal(value: Any) -> bool:
    """Return whether a value is neither empty, nor a switch, nor read from the environment."""
    if isinstance(value, str):
        found = list(VARIABLE.finditer(value))
        return any(match["default"] for match in found) if found else bool(value)
    return not isinstance(value, bool | None)


def _advice(where: str, key: str) -> str:
    if key in {"token", "hub_token"}:
        return (
            f"{where}: a recipe must not contain a token, since it is published with the model. Set HF_TOKEN in the "
            f"environment"
        )
    return (
        f"{where}: a recipe must not contain a secret, since it is published with the model. Put it in the "
        f"environment, and write ${{VARIABLE}} here"
    )


def _check_urls(value: Any, where: str) -> None:
    if isinstance(value, dict):
        for name, item in value.items():
            _check_urls(item, f"{where}.{name}".removeprefix("."))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_urls(item, f"{where}[{index}]")
    elif isinstance(value, str):
        literal = VARIABLE.sub(lambda match: match["default"] or "", value)
        arguments = _URL_ARGUMENT.finditer(literal) if "://" in literal else ()
        if _URL_PASSWORD.search(literal) or any(
            is_secret_key(match["key"]) or match["key"].lower() in _SIGNATURES for match in arguments
        ):
            raise ValueError(_advice(where, ""))
