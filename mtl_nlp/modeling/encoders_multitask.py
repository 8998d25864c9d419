"""The encoder of a multitask model: an encoder, the encoder of an encoder-decoder, or a decoder, with one interface."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, AutoModelForTextEncoding, PreTrainedConfig, PreTrainedModel
from transformers.modeling_layers import GenericForSequenceClassification
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    MODEL_FOR_TEXT_ENCODING_MAPPING,
    MODEL_MAPPING,
)

UNREAD = re.compile(r"(.+\.)?(pooler|contact_head|mask_emb|entity_embeddings|[ew]2[ew]_query)(\..+)?")
"""The parameters of encoders that the last hidden states of a text do not depend on: poolers, which the heads replace,
the contacts of proteins (ESM), the masks of pretraining (XLNet), and entities (LUKE)."""


def build_encoder(text_config: PreTrainedConfig) -> PreTrainedModel:
    """Build the encoder of a configuration with new weights.

    Only the encoder of an encoder-decoder is built: the family's class for encoding texts if transformers has one
    (T5), the result of `get_encoder` otherwise (BART). Weights that no head reads, and those that the family does not
    train (sines of positions), are buffers, see `as_buffers`.

    Args:
        text_config: the encoder's configuration. The classes for encoding texts set `is_encoder_decoder` to False.

    Raises:
        ValueError: if transformers has no such model.
    """
    if _encodes_texts(text_config):
        text_config.is_encoder_decoder = False
        encoder = AutoModelForTextEncoding.from_config(text_config)
    elif text_config.is_encoder_decoder:
        with torch.device("meta"):
            whole = AutoModel.from_config(text_config)
        encoder = type(whole.get_encoder())._from_config(text_config)
    else:
        encoder = AutoModel.from_config(text_config, **_no_pooler(text_config))
    untrained = [name for name, p in encoder.named_parameters() if UNREAD.fullmatch(name) or not p.requires_grad]
    as_buffers(encoder, untrained)
    return encoder


def encoder_state(pretrained: PreTrainedModel, encoder: nn.Module) -> dict[str, torch.Tensor]:
    """Return the weights of a pretrained model that an encoder from `build_encoder` has."""
    names, state = encoder.state_dict().keys(), pretrained.state_dict()
    if not names <= state.keys():  # the encoder is a part of an encoder-decoder
        state = pretrained.get_encoder().state_dict()
    return {name: state[name] for name in names}


def encoder_arguments(encoder: nn.Module) -> frozenset[str]:
    """Return the names of the arguments of an encoder's forward pass."""
    return frozenset(inspect.signature(encoder.forward).parameters)


def encoder_inputs(names: Collection[str], inputs: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Return the values of the arguments of an encoder's forward pass for a batch.

    An encoder with global attention (Longformer) has global attention on the first sub-word in every pass, as in the
    family's stock class for texts. Tasks on words read the same pass, so that one pass serves all tasks.

    Args:
        names: the names of the arguments, from `encoder_arguments`.
        inputs: `input_ids`, `attention_mask` and, for tokenizers with token types, `token_type_ids`, shape (B, L) each.
    """
    chosen: dict[str, Any] = {key: value for key, value in inputs.items() if key in names or key != "token_type_ids"}
    if "global_attention_mask" in names:
        is_first = torch.arange(inputs["input_ids"].shape[1], device=inputs["input_ids"].device) == 0
        chosen["global_attention_mask"] = is_first.to(inputs["input_ids"].dtype).expand_as(inputs["input_ids"])
    if "use_cache" in names:  # the cache of a decoder serves the generation of texts
        chosen["use_cache"] = False
    return chosen


def is_part_of_encoder_decoder(text_config: PreTrainedConfig) -> bool:
    """Return whether the encoder is a part of the family's model."""
    return text_config.is_encoder_decoder or _encodes_texts(text_config)


def reads_left_context(text_config: PreTrainedConfig) -> bool:
    """Return whether a sub-word reads only the sub-words on its left, as in decoders such as GPT-2 and Llama.

    No option of the family makes the attention of a decoder bidirectional.
    """
    options = text_config.to_dict()
    if is_part_of_encoder_decoder(text_config):
        return False
    if not _is_decoder(text_config):
        return bool(options.get("is_decoder")) and type(text_config) in MODEL_FOR_CAUSAL_LM_MAPPING
    return options.get("use_bidirectional_attention") is not True and options.get("attn_type") != "bi"


def stock_pooling(text_config: PreTrainedConfig) -> str:
    """Return the sub-word that the family's stock class for texts reads, `cls` or `last`.

    The class of a decoder reads the last sub-word, also where an option makes the attention bidirectional (Gemma).
    """
    is_last = _is_decoder(text_config) or text_config.to_dict().get("summary_type") == "last"
    return "last" if is_last else "cls"


def has_global_attention(text_config: PreTrainedConfig) -> bool:
    """Return whether the family can give single sub-words global attention, see `encoder_inputs`."""
    model_class = MODEL_MAPPING.get(type(text_config), None)
    if model_class is None or isinstance(model_class, tuple):
        return False
    return "global_attention_mask" in inspect.signature(model_class.forward).parameters


def default_pooling(text_config: PreTrainedConfig) -> str:
    """Return the default input of a head on texts, see [`SequenceTask`].

    It is that of the family's stock class: the last sub-word in decoders and XLNet, and the first sub-word in other
    families. No sub-word of an encoder-decoder stands for the text, so that the default is the mean.
    """
    if is_part_of_encoder_decoder(text_config):
        return "mean"
    return "last" if reads_left_context(text_config) else stock_pooling(text_config)


def as_buffers(module: nn.Module, names: Iterable[str]) -> None:
    """Turn parameters into buffers, which are saved and loaded under the same names and are not trained.

    In a distributed run, a parameter without a gradient would stop the training. A parameter that is only frozen would
    be trained again after the model is loaded.

    Args:
        module: the module, which is changed in place.
        names: the full names of the parameters.
    """
    for name in names:
        parameter, (parent_name, _, own_name) = module.get_parameter(name), name.rpartition(".")
        parent = module.get_submodule(parent_name)
        delattr(parent, own_name)
        parent.register_buffer(own_name, parameter.detach())


def _is_decoder(text_config: PreTrainedConfig) -> bool:
    """Return whether the family is one of decoders.

    The class for texts is that of all decoders, or transformers has a class for causal language models of the family
    and none for masked language models.
    """
    family = type(text_config)
    of_texts = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.get(family, None)
    if of_texts is not None and issubclass(of_texts, GenericForSequenceClassification):
        return True
    is_causal = family in MODEL_FOR_CAUSAL_LM_MAPPING and family not in MODEL_FOR_MASKED_LM_MAPPING
    return is_causal and not MODEL_MAPPING[family].__name__.endswith("Encoder")


def _encodes_texts(text_config: PreTrainedConfig) -> bool:
    """Return whether the family has a class for encoding texts beside the class of its encoder-decoder."""
    model_class = MODEL_MAPPING.get(type(text_config), None)
    return (
        model_class is not None and MODEL_FOR_TEXT_ENCODING_MAPPING.get(type(text_config), model_class) != model_class
    )


def _no_pooler(text_config: PreTrainedConfig) -> dict[str, bool]:
    """Return the argument that builds the encoder without a pooler, if the family has one: the heads have poolers."""
    model_class = MODEL_MAPPING.get(type(text_config), None)
    if model_class is None or isinstance(model_class, tuple):  # Funnel has a class with and one without a decoder
        return {}
    has_option = "add_pooling_layer" in inspect.signature(model_class.__init__).parameters
    return {"add_pooling_layer": False} if has_option else {}
