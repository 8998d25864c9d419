"""The tokenizer and the configuration that a recipe starts from."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoConfig, PreTrainedTokenizerBase

from mtl_nlp.data.tokenizer import load_tokenizer
from mtl_nlp.errors import RecipeError
from mtl_nlp.hub.outside import Loading, check_config_file, check_size, check_tokenizer_files
from mtl_nlp.modeling.checks_multitask import check_tokenizer, check_window
from mtl_nlp.modeling.configuration_multitask import MultitaskConfig
from mtl_nlp.modeling.tasks_multitask import reads_words
from mtl_nlp.modeling.windows_multitask import default_max_length
from mtl_nlp.recipe.schema import Recipe

_HUB_OPTIONS = {"revision", "cache_dir", "trust_remote_code"}


def load_encoder_parts(recipe: Recipe) -> tuple[PreTrainedTokenizerBase, MultitaskConfig]:
    """Load the tokenizer and the configuration of a recipe's encoder.

    Args:
        recipe: the recipe.

    Returns:
        The tokenizer, and the configuration with the recipe's `max_length` and `stride`: the configuration of a trained
        multitask model, or a new one without tasks.

    Raises:
        RecipeError: if the encoder cannot be loaded, or the recipe's window does not fit the encoder.
    """
    hub = {key: value for key, value in recipe.model_init_kwargs.items() if key in _HUB_OPTIONS}
    with Loading(RecipeError, f"encoder: {recipe.encoder}"):
        check_config_file(recipe.encoder, **hub)
        config = AutoConfig.from_pretrained(recipe.encoder, **hub)
    if Path(recipe.encoder).is_dir():  # `plan` does not download the weights of an encoder from the Hub
        with Loading(RecipeError, f"encoder: {recipe.encoder}", "cannot be built"):
            check_size(config, recipe.encoder)
    with Loading(RecipeError, f"encoder: {recipe.encoder}"):
        if not isinstance(config, MultitaskConfig):
            config = MultitaskConfig(text_config=config)
        on_words = config.reads_words or reads_words([recipe.task(name) for name in recipe.tasks])
        check_tokenizer_files(recipe.encoder, **hub)
        tokenizer = load_tokenizer(recipe.encoder, reads_words=on_words, **hub)
        check_tokenizer(tokenizer, config.text_config)
    _set_window(recipe, tokenizer, config)
    return tokenizer, config


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
