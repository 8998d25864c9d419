"""Loading trained models and their tokenizers from a folder or the Hub."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from safetensors import SafetensorError
from transformers import AutoConfig, PreTrainedTokenizerBase
from transformers.utils import CONFIG_NAME

from mtl_nlp.data.tokenizer import load_tokenizer
from mtl_nlp.errors import ModelError
from mtl_nlp.hub.advice import load_advice
from mtl_nlp.modeling.configuration_multitask import MultitaskConfig
from mtl_nlp.modeling.modeling_multitask import MultitaskModel
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
        raise ModelError(
            f"{folder}: the replacement of the model was interrupted. Finish it: mv {folder}/{SAVED_NAME}/* {folder}/"
        )
    try:
        # Without this argument transformers would ask the user whether to run code from the repository.
        config = AutoConfig.from_pretrained(folder, **kwargs, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder} cannot be loaded: {load_advice(error)}") from error
    if not isinstance(config, MultitaskConfig):
        raise ModelError(
            f"{folder} holds a {config.model_type} model without multitask heads. Train a multitask model: "
            f"mtl-nlp train."
        )
    return config


def load_model(folder: str, **kwargs: Any) -> MultitaskModel:
    """Load a trained model from a folder or the Hub.

    Args:
        folder: the folder, or the Hub id.
        **kwargs: arguments of `MultitaskModel.from_pretrained` (`revision`, `dtype`, `attn_implementation`, …).

    Raises:
        ModelError: if there is no multitask model, or its files are damaged.
    """
    load_config(folder, **{key: kwargs[key] for key in kwargs.keys() & {"revision", "cache_dir"}})
    try:
        model, loading = MultitaskModel.from_pretrained(
            folder, **{**kwargs, "output_loading_info": True, "ignore_mismatched_sizes": True}
        )
    except SafetensorError as error:
        raise ModelError(
            f"{folder}: the weights file is damaged or truncated ({error}). Copy or train the model again."
        ) from error
    except UnpicklingError as error:
        raise ModelError(
            f"{folder}: the weights file is a pickle with objects other than weights, which could run code. Save the "
            f"model as safetensors."
        ) from error
    except (OSError, ValueError, TypeError) as error:  # TypeError: an unknown argument
        raise ModelError(f"{folder} cannot be loaded: {load_advice(error)}") from error
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
        config: the model's configuration, which says whether texts are split into words before tokenization.

    Raises:
        ModelError: if there is no tokenizer, or it cannot be loaded.
    """
    try:
        return load_tokenizer(folder, reads_words=config.reads_words, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder}: the tokenizer cannot be loaded: {load_advice(error)}") from error
