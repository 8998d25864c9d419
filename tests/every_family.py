"""A tiny configuration of every family of transformers that has one with small sizes."""

from __future__ import annotations

from typing import Any

from toys import EXTRA
from transformers import AutoConfig, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

_TWO_LAYERS = dict.fromkeys(
    (
        "num_hidden_layers",
        "n_layer",
        "n_layers",
        "num_layers",
        "encoder_layers",
        "decoder_layers",
        "num_decoder_layers",
    ),
    2,
)
_FOUR_HEADS = dict.fromkeys(
    (
        *("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads"),
        *("decoder_attention_heads", "num_key_value_heads"),
    ),
    4,
)
_WIDTHS = dict.fromkeys(("hidden_size", "d_model", "dim", "n_embd", "emb_dim", "word_embed_proj_dim"), 32)
_INNER = dict.fromkeys(
    ("intermediate_size", "hidden_dim", "n_inner", "d_ff", "d_inner", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim"),
    48,
)
_OTHERS = {
    "vocab_size": 500,
    "max_position_embeddings": 64,
    "embedding_size": 32,
    "entity_vocab_size": 20,
    "entity_emb_size": 16,
    "attention_window": 8,
    "block_sizes": [1, 1],
    "bottleneck_size": 16,
    "intra_bottleneck_size": 16,
    "d_kv": 8,
    "d_head": 8,
    "head_dim": 8,
    "num_local_experts": 2,
    "num_experts": 2,
    "num_experts_per_tok": 1,
    "moe_intermediate_size": 16,
    "state_size": 4,
    "num_hash_buckets": 128,
}
_SMALL: dict[str, Any] = {**_TWO_LAYERS, **_FOUR_HEADS, **_WIDTHS, **_INNER, **_OTHERS}


def tiny_config(family: str) -> PreTrainedConfig:
    """Return the default configuration of a family with two layers and small sizes, without dropout.

    Only values that the family has are changed. The result may still be large or not valid, where the family has other
    names for its sizes.
    """
    default = AutoConfig.for_model(family)
    values, names = default.to_dict(), {*default.to_dict(), *default.attribute_map}
    changes = {key: value for key, value in _SMALL.items() if key in names}
    for key, value in values.items():
        if key.endswith(("_token_id", "_index")) and isinstance(value, int) and value >= _SMALL["vocab_size"]:
            changes[key] = 3
        elif isinstance(value, float) and "drop" in key:
            changes[key] = 0.0
        elif key == "layer_types":
            changes[key] = None if value is None else value[:2]
    if isinstance(classes := MODEL_MAPPING_NAMES.get(family), tuple):
        changes["architectures"] = list(classes[:1])
    return AutoConfig.for_model(family, **{**changes, **EXTRA.get(family, {})})
