"""Models with adapters, and batches for them."""

from __future__ import annotations

import torch
from peft import LoraConfig
from toys import lively_model, liven_adapters

from mtl_nlp import MultitaskModel, TextClassification, TokenClassification

POS = TokenClassification(name="pos", labels=["A", "B", "C"])

NER = TokenClassification(name="ner", labels=["O", "B-X", "I-X"], scheme="iob2")

TOPIC = TextClassification(name="topic", labels=["x", "y"])

STARS = TextClassification(name="a.b", labels=["1", "2", "3", "4"])

TASKS = [POS, NER, TOPIC, STARS]

ROWS = {
    "pos": torch.tensor([0, 1, 4]),
    "ner": torch.tensor([1, 2]),
    "topic": torch.tensor([3, 1]),
    "a.b": torch.tensor([1, 5]),
}


def lora(**options: object) -> LoraConfig:
    return LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": "all-linear", **options})


def adapted(family="bert", adapters=("pos", "ner", "shared"), build=lively_model, **options) -> MultitaskModel:
    """Build a model with adapters that change the logits of their tasks."""
    model = build(TASKS, family)
    for name in adapters:
        model.add_adapter(lora(**options), name)
    return liven_adapters(model)


def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    input_ids = torch.randint(5, 300, (6, 9), generator=generator)
    attention_mask = torch.ones_like(input_ids)
    attention_mask[1, 6:] = attention_mask[4, 3:] = 0
    return {"input_ids": input_ids, "attention_mask": attention_mask}


def labels() -> dict[str, torch.Tensor]:
    return {
        name: torch.ones(len(ROWS[name]), *((9,) if name in {"pos", "ner"} else ()), dtype=torch.long) for name in ROWS
    }


def alone(model: MultitaskModel, task: str) -> torch.Tensor:
    """Return a task's logits for its rows, from a model with merged adapters."""
    inputs = {key: value[ROWS[task]] for key, value in batch().items()}
    return model.merge_and_unload(task)(**inputs).logits[task]
