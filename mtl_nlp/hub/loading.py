"""Trained models: loading them with their tokenizers from a folder or the Hub."""

from __future__ import annotations

from pickle import UnpicklingError
from typing import Any

from safetensors import SafetensorError
from transformers import AutoConfig, PreTrainedTokenizerBase

from mtl_nlp.data.tokenizer import load_tokenizer
from mtl_nlp.errors import ModelError
from mtl_nlp.hub.advice import load_advice
from mtl_nlp.modeling.configuration_multitask import MultitaskConfig
from mtl_nlp.modeling.modeling_multitask import MultitaskModel


def load_config(folder: str, **kwargs: Any) -> MultitaskConfig:
    """Load the configuration of a trained model from a folder or the Hub.

    Args:
        folder: the folder, or the Hub id.
        **kwargs: where it is, as `AutoConfig.from_pretrained` takes it (`revision`, `cache_dir`).

    Raises:
        ModelError: if there is none, or it is another kind of model's.
    """
    try:
        # By default transformers asks the user.
        config = AutoConfig.from_pretrained(folder, **kwargs, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder} cannot be loaded: {load_advice(error)}") from error
    if not isinstance(config, MultitaskConfig):
        raise ModelError(
            f"{folder} holds a {config.model_type} model without multitask heads. Train one: mtl-nlp train."
        )
    return config


def load_model(folder: str, **kwargs: Any) -> MultitaskModel:
    """Load a trained model from a folder or the Hub.

    Args:
        folder: the folder, or the Hub id.
        **kwargs: as `from_pretrained` takes them (`revision`, `dtype`, `attn_implementation`, …).

    Raises:
        ModelError: if there is none, it is of another kind, or its files are damaged.
    """
    load_config(folder, **{key: kwargs[key] for key in kwargs.keys() & {"revision", "cache_dir"}})
    try:
        model, loading = MultitaskModel.from_pretrained(
            folder, **{**kwargs, "output_loading_info": True, "ignore_mismatched_sizes": True}
        )
    except SafetensorError as error:
        raise ModelError(
            f"{folder}: the weights file is damaged or cut off ({error}). Copy or train it again."
        ) from error
    except UnpicklingError as error:
        raise ModelError(
            f"{folder}: its weights are a pickle that holds more than weights, and are not loaded."
        ) from error
    except (OSError, ValueError, TypeError) as error:  # TypeError: an argument that there is not
        raise ModelError(f"{folder} cannot be loaded: {load_advice(error)}") from error
    wrong = sorted(loading["missing_keys"]) + sorted(key for key, *_ in loading["mismatched_keys"])
    if wrong:
        raise ModelError(f"{folder}: the weights file lacks, or has in another shape, {', '.join(wrong[:3])}.")
    return model


def load_model_tokenizer(folder: str, config: MultitaskConfig) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a trained model.

    Raises:
        ModelError: if there is none.
    """
    try:
        return load_tokenizer(folder, reads_words=config.reads_words, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder}: its tokenizer cannot be loaded: {load_advice(error)}") from error
