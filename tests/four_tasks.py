"""Four tasks with unusual names, and batches and checks for models of these tasks."""

import math

import torch

from mtl_nlp import (
    MultiLabelClassification,
    Regression,
    TextClassification,
    TokenClassification,
)

TASKS = [
    TokenClassification(name="train", labels=["a", "b", "c"]),
    TextClassification(name="a.b", labels=["x", "y"]),
    MultiLabelClassification(name="tags", labels=["u", "v", "w"]),
    Regression(name="forward"),
]

NAMES = [task.name for task in TASKS]


def a_batch(seed=0, rows=None):
    """Return a batch of six rows, some of which are labelled for each task."""
    generator = torch.Generator().manual_seed(seed)
    rows = {"train": [0, 1, 4], "a.b": [1, 2, 3, 4], "tags": [4], "forward": [5, 0]} if rows is None else rows
    attention_mask = (torch.arange(8) < torch.tensor([[8], [3], [5], [2], [8], [6]])).long()
    words = torch.randint(0, 3, (len(rows["train"]), 8), generator=generator)
    labels = {
        "train": words.masked_fill(attention_mask[rows["train"]] == 0, -100),
        "a.b": torch.randint(0, 2, (len(rows["a.b"]),), generator=generator),
        "tags": torch.randint(0, 2, (len(rows["tags"]), 3), generator=generator).float(),
        "forward": torch.randn(len(rows["forward"]), generator=generator),
    }
    return {
        "input_ids": torch.randint(3, 500, (6, 8), generator=generator) * attention_mask,
        "attention_mask": attention_mask,
        "rows": {task: torch.tensor(index, dtype=torch.long) for task, index in rows.items()},
        "labels": labels,
    }


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def aligned(model):
    """Copy the weights to memory that torch allocates, since rounding depends on the alignment of tensors."""
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    return model


MODERNBERT_STD = {"stock.head.dense.weight": 0.02 / math.sqrt(2 * 2), "stock.classifier.weight": 32**-0.5}


def assert_freshly_initialised(module, stds):
    for name, parameter in module.named_parameters():
        assert parameter.isfinite().all(), name
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif "norm" in name.lower():
            assert (parameter == 1).all(), name
        else:
            std = stds.get(name, 0.02)
            assert 0.6 * std < parameter.std() < 1.5 * std, name
