"""A tiny model of four tasks and tiny datasets, equal in every process."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from peft import LoraConfig
from toy_splits import TASKS, build_split
from toys import build_config
from transformers import PreTrainedTokenizerBase

from mtl_nlp import EncodedDataset, MultitaskConfig, MultitaskModel

EVALUATED_ROWS = (1, 2, 5, 17)
PULL = 0.1
"""The weight of the pull of the adapters in the loss."""


def always(length: int) -> bool:
    return True


def unequal_split(tokenizer: PreTrainedTokenizerBase) -> EncodedDataset:
    """Build 32 texts, longest first: only the first 6 have a topic, and only the last 10 have a score."""
    has = {"pos": always, "ner": lambda n: n % 3 > 0, "topic": lambda n: n > 13, "score": lambda n: n < 6}
    return build_split(tokenizer, 1, sorted((np.arange(2, 34) // 2).tolist(), reverse=True), has)


def mixed_splits(tokenizer: PreTrainedTokenizerBase) -> dict[str, EncodedDataset]:
    """Build three datasets of 17, 24 and 32 texts; the first two have no task in common."""
    words = build_split(tokenizer, 2, [3 + n % 5 for n in range(17)], {"pos": always, "ner": always})
    texts = build_split(tokenizer, 3, [2 + n % 7 for n in range(24)], {"topic": always, "score": always})
    return {"words": words, "texts": texts, "all": unequal_split(tokenizer)}


def evaluated_splits(tokenizer: PreTrainedTokenizerBase) -> dict[str, dict[str, EncodedDataset]]:
    """Build splits of few rows, some with several windows, that leave different remainders over the processes."""
    has = {"pos": always, "ner": lambda n: n != 9, "topic": lambda n: n != 150, "score": lambda n: n > 1}
    lengths = [9, 150, 1, 60, 30, 2, 70, 5, 5, 8, 20, 3, 12, 7, 90, 4, 6]
    splits = {str(rows): {"d": build_split(tokenizer, 4 + rows, lengths[-rows:], has)} for rows in EVALUATED_ROWS}
    return {**splits, "two": {"words": splits["5"]["d"], "more": splits["17"]["d"]}}


def build_model(std: float | None = None) -> MultitaskModel:
    """Build the same random model each time; a large `std` makes the answers depend on the texts."""
    torch.manual_seed(0)
    model = MultitaskModel(MultitaskConfig(text_config=build_config("bert"), tasks=[*TASKS.values()]))
    if std is not None:
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=std)
    return model.eval()


def build_adapted_model(train_encoder: bool = True, **options: Any) -> MultitaskModel:
    """Build the model of `build_model` with adapters that change the encoder; pos has no adapter.

    Without options for LoRA, the model also has a shared adapter for all tasks.
    """
    model = build_model()
    adapters: dict[str, Any] = {} if options else {"shared": (2, ["query", "value"])}
    adapters |= {"ner": (4, "all-linear"), "topic": (2, "all-linear"), "score": (3, ["query", "dense"])}
    for name, (r, target_modules) in adapters.items():
        model.add_adapter(LoraConfig(r=r, lora_alpha=2 * r, target_modules=target_modules, **options), name)
    for name, parameter in model.encoder.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
        elif "lora_" not in name:
            parameter.requires_grad_(train_encoder)
    return model
