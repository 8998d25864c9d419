"""Trained models: loading them with their tokenizers from a folder or the Hub."""

from __future__ import annotations

from pickle import UnpicklingError

from safetensors import SafetensorError
from transformers import AutoConfig, PreTrainedTokenizerBase

from mtl_nlp.data.tokenizer import load_tokenizer
from mtl_nlp.hub import load_advice
from mtl_nlp.modeling.configuration_multitask import MultitaskConfig
from mtl_nlp.modeling.modeling_multitask import MultitaskModel


class ModelError(ValueError):
    """A folder or repository that holds no usable multitask model."""


def load_config(folder: str) -> MultitaskConfig:
    """Load the configuration of a trained model from a folder or the Hub.

    Raises:
        ModelError: if there is none, or it is another kind of model's.
    """
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)  # by default transformers asks the user
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder} cannot be loaded: {load_advice(error)}") from error
    if not isinstance(config, MultitaskConfig):
        raise ModelError(
            f"{folder} holds a {config.model_type} model without multitask heads. Train one: mtl-nlp train."
        )
    return config


def load_model(folder: str) -> MultitaskModel:
    """Load a trained model from a folder or the Hub.

    Raises:
        ModelError: if there is none, it is of another kind, or its files are damaged.
    """
    load_config(folder)
    try:
        model, loading = MultitaskModel.from_pretrained(folder, output_loading_info=True, ignore_mismatched_sizes=True)
    except SafetensorError as error:
        raise ModelError(
            f"{folder}: the weights file is damaged or cut off ({error}). Copy or train it again."
        ) from error
    except UnpicklingError as error:
        raise ModelError(
            f"{folder}: its weights are a pickle that holds more than weights, and are not loaded."
        ) from error
    except (OSError, ValueError) as error:
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
