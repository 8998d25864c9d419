"""Loading trained models and their tokenizers from a folder or the Hub."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from transformers import AutoConfig, PreTrainedTokenizerBase
from transformers.utils import CONFIG_NAME

from mtl_nlp.data.tokenizer import load_tokenizer
from mtl_nlp.errors import ModelError
from mtl_nlp.hub.outside import Loading, check_config_file, check_size, check_tokenizer_files
from mtl_nlp.modeling.checks_multitask import check_tokenizer
from mtl_nlp.modeling.configuration_multitask import MultitaskConfig
from mtl_nlp.modeling.modeling_multitask import MultitaskModel
from mtl_nlp.modeling.windows_multitask import encoder_max_length
from mtl_nlp.run_folder import SAVED_NAME


def load_config(folder: str, **kwargs: Any) -> MultitaskConfig:
    """Load the configuration of a trained model from a folder or the Hub.

    Args:
        folder: the folder, or the Hub id.
        **kwargs: arguments of `AutoConfig.from_pretrained`, such as `revision` and `cache_dir`.

    Raises:
        ModelError: if there is no configuration, or it does not belong to a multitask model.
    """
    if (Path(folder) / SAVED_NAME).is_dir() and not (Path(folder) / CONFIG_NAME).exists():
        quoted = shlex.quote(folder)
        raise ModelError(
            f"{folder}: the replacement of the model was interrupted. Finish it: mv {quoted}/{SAVED_NAME}/* {quoted}/"
        )
    try:
        with Loading(ModelError, folder):
            check_config_file(folder, **kwargs)
            # Without this argument transformers would ask the user whether to run code from the repository.
            config = AutoConfig.from_pretrained(folder, **kwargs, trust_remote_code=False)
    except ModelError as error:
        if Path(folder).exists():
            raise
        if not is_hub_id(folder):
            raise ModelError(f"{folder} cannot be loaded: there is no such folder.") from error
        raise ModelError(f"There is no folder {folder}. {error}") from error
    if not isinstance(config, MultitaskConfig):
        raise ModelError(
            f"{folder} holds a {config.model_type} model without multitask heads. Train a multitask model: "
            f"mtl-nlp train."
        )
    return config


def is_hub_id(name: str) -> bool:
    """Return whether a name has the form of a Hub id."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def load_model(folder: str, **kwargs: Any) -> MultitaskModel:
    """Load a trained model from a folder or the Hub.

    Args:
        folder: the folder, or the Hub id.
        **kwargs: arguments of `MultitaskModel.from_pretrained` (`revision`, `dtype`, `attn_implementation`, …).

    Raises:
        ModelError: if there is no multitask model, or its files are damaged.
    """
    config = load_config(folder, **{key: kwargs[key] for key in kwargs.keys() & {"revision", "cache_dir"}})
    with Loading(ModelError, folder):
        check_size(config, folder, **kwargs)
        model, loading = MultitaskModel.from_pretrained(
            folder, **{**kwargs, "output_loading_info": True, "ignore_mismatched_sizes": True}
        )
    limit = encoder_max_length(config.text_config)
    has_positions = any(name.endswith("position_embeddings") for name, _ in model.encoder.named_modules())
    if has_positions and limit is not None and (config.max_length or 0) > limit:
        raise ModelError(
            f"{folder} cannot be loaded: max_length: the encoder reads at most {limit} sub-words at once. Found "
            f"{config.max_length}."
        )
    wrong = sorted(loading["missing_keys"]) + sorted(key for key, *_ in loading["mismatched_keys"])
    if wrong:
        raise ModelError(
            f"{folder}: the weights file does not match config.json: {', '.join(wrong[:3])} are missing or have a "
            f"different shape. Copy or train the model again."
        )
    return model


def load_model_tokenizer(folder: str, config: MultitaskConfig) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a trained model from a folder or the Hub.

    Args:
        folder: the folder, or the Hub id.
        config: the model's configuration, with the vocabulary size, the window, and whether texts are split into words.

    Raises:
        ModelError: if there is no tokenizer, the tokenizer cannot be loaded, or it does not belong to the model.
    """
    with Loading(ModelError, f"{folder}: the tokenizer"):
        check_tokenizer_files(folder)
        tokenizer = load_tokenizer(folder, reads_words=config.reads_words, trust_remote_code=False)
        check_tokenizer(tokenizer, config.text_config, config.max_length, config.stride)
    return tokenizer
