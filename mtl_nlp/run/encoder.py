"""The tokenizer and the configuration that a recipe starts from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedTokenizerBase
from transformers.utils import CONFIG_NAME

from mtl_nlp.data.tokenizer import load_tokenizer
from mtl_nlp.errors import RecipeError
from mtl_nlp.hub.loading import is_hub_id
from mtl_nlp.hub.outside import (
    TOKENIZER_CONFIG_NAME,
    Loading,
    check_config_file,
    check_size,
    check_tokenizer_files,
    read_object,
)
from mtl_nlp.modeling.checks_multitask import check_tokenizer, check_window
from mtl_nlp.modeling.configuration_multitask import MultitaskConfig
from mtl_nlp.modeling.tasks_multitask import reads_words
from mtl_nlp.modeling.windows_multitask import default_max_length
from mtl_nlp.recipe.schema import Recipe

_HUB_OPTIONS = {"revision", "cache_dir"}


def load_encoder_parts(recipe: Recipe) -> tuple[PreTrainedTokenizerBase, MultitaskConfig]:
    """Load the tokenizer and the configuration of a recipe's encoder.

    Args:
        recipe: the recipe.

    Returns:
        The tokenizer, and the configuration with the recipe's `max_length` and `stride`: the configuration of a trained
        multitask model, or a new one without tasks.

    Raises:
        RecipeError: if the encoder cannot be loaded or needs code of its own, or the recipe's window does not fit the
            encoder.
    """
    hub = _hub_options(recipe)
    if not Path(recipe.encoder).exists() and not is_hub_id(recipe.encoder):
        raise RecipeError(f"encoder: {recipe.encoder} cannot be loaded: there is no such folder.")
    with Loading(RecipeError, f"encoder: {recipe.encoder}"):
        check_config_file(recipe.encoder, **hub)
        check_tokenizer_files(recipe.encoder, **hub)
        _check_code(recipe, hub)
        config = AutoConfig.from_pretrained(recipe.encoder, **hub, trust_remote_code=False)
    if Path(recipe.encoder).is_dir():  # `plan` does not download the weights of an encoder from the Hub
        with Loading(RecipeError, f"encoder: {recipe.encoder}", "cannot be built"):
            check_size(config, recipe.encoder)
    with Loading(RecipeError, f"encoder: {recipe.encoder}"):
        if not isinstance(config, MultitaskConfig):
            config = MultitaskConfig(text_config=config)
        on_words = config.reads_words or reads_words([recipe.task(name) for name in recipe.tasks])
        tokenizer = load_tokenizer(recipe.encoder, reads_words=on_words, **hub)
        check_tokenizer(tokenizer, config.text_config)
    _set_window(recipe, tokenizer, config)
    return tokenizer, config


def describe_code(recipe: Recipe) -> list[str]:
    """Return a sentence if an encoder has code of its own, beside the class that transformers has for it.

    Args:
        recipe: the recipe of the encoder.
    """
    config = read_object(recipe.encoder, CONFIG_NAME, **_hub_options(recipe))
    if _is_registered(config) or not (named := _code_in(config)):
        return []
    return [
        f"{CONFIG_NAME} of the encoder names code of its own ({named}), which is not run; the encoder is read by the "
        f"classes of transformers for {config['model_type']!r:.80}"
    ]


def _hub_options(recipe: Recipe) -> dict[str, Any]:
    return {key: value for key, value in recipe.model_init_kwargs.items() if key in _HUB_OPTIONS}


def _check_code(recipe: Recipe, hub: Mapping[str, Any]) -> None:
    """Check that an encoder can be loaded without code from its folder or repository, which is never run."""
    trusts = bool(recipe.model_init_kwargs.get("trust_remote_code"))
    config = read_object(recipe.encoder, CONFIG_NAME, **hub)
    if _is_registered(config):
        return
    is_known = isinstance(config.get("model_type"), str) and config["model_type"] in CONFIG_MAPPING
    tokenizer = read_object(recipe.encoder, TOKENIZER_CONFIG_NAME, **hub)
    for name, content, is_needed in ((CONFIG_NAME, config, not is_known), (TOKENIZER_CONFIG_NAME, tokenizer, False)):
        if (named := _code_in(content)) and (is_needed or trusts):
            raise RecipeError(
                f"encoder: {recipe.encoder}: {name} names code of its own ({named}), which is never run. If you trust "
                f"the code, copy it into a module that registers its classes with AutoConfig and AutoModel, name the "
                f"module under `imports`, and leave out `trust_remote_code`."
            )


def _code_in(content: Mapping[str, Any]) -> str:
    """Return the class of an encoder or a tokenizer that a configuration file names, or an empty text."""
    classes = content.get("auto_map")
    if isinstance(classes, dict):
        classes = classes.get("AutoModel") or classes.get("AutoTokenizer") or next(iter(classes.values()), None)
    return "" if not classes else f"{classes!s:.80}"


def _is_registered(config: Mapping[str, Any]) -> bool:
    """Return whether a module of the user has registered the class of an encoder, which transformers then uses."""
    name = config.get("model_type")
    return (
        isinstance(name, str)
        and name in CONFIG_MAPPING
        and not CONFIG_MAPPING[name].__module__.startswith("transformers.")
    )


def _set_window(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, config: MultitaskConfig) -> None:
    """Set `max_length` and `stride` of a configuration, from the recipe, the trained model or the encoder's limit."""
    limit = default_max_length(tokenizer, config.text_config)
    if recipe.max_length is not None and limit is not None and recipe.max_length > limit:
        raise RecipeError(
            f"max_length: the encoder reads at most {limit} sub-words at once. Found {recipe.max_length}."
        )
    config.max_length = recipe.max_length or config.max_length or limit
    config.stride = config.stride if recipe.stride is None else recipe.stride
    try:
        check_window(tokenizer, config.max_length, config.stride)
    except ValueError as error:
        raise RecipeError(str(error)) from error
