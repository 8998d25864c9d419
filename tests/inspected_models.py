"""Models and texts for the tests of inspections."""

from __future__ import annotations

import torch
from adapted_models import NER, POS, TOPIC
from toys import lively_model

from mtl_nlp import MultitaskModel
from mtl_nlp.transfer.encoder_layers import EncoderLayers, find_layers
from mtl_nlp.transfer.inspected_texts import InspectedTexts, TextBatch

TASKS = {task.name: task for task in (POS, NER, TOPIC)}
"""Two tasks on words and one on texts."""


def inputs(seed: int = 0, rows: int = 5, length: int = 7) -> dict[str, torch.Tensor]:
    """Return inputs of an encoder, of which one row is shorter than the others."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(rows, length, dtype=torch.long)
    mask[1, 4:] = 0
    return {"input_ids": torch.randint(5, 300, (rows, length), generator=generator), "attention_mask": mask}


def model_of(family: str = "bert", **changes: object) -> MultitaskModel:
    """Return a model whose heads depend on all layers."""
    return lively_model(list(TASKS.values()), family, **changes)


def layers_of(model: MultitaskModel) -> EncoderLayers:
    """Return the layers of a model's encoder."""
    layers = find_layers(model.encoder, inputs(rows=2))
    assert layers is not None
    return layers


def texts_of(batches: int = 2) -> InspectedTexts:
    """Return texts with labels for all tasks, of one window with five words each."""
    found, references = [], {name: {} for name in TASKS}
    for number in range(batches):
        read = inputs(seed=number)
        size = len(read["input_ids"])
        features = []
        for row in range(size):
            place = number * size + row
            words = 3 if row == 1 else 5
            features.append({"row": place, "words": [*range(words)], "positions": [*range(1, words + 1)]})
            references["pos"][place] = ["ABC"[(place + word) % 3] for word in range(words)]
            references["ner"][place] = ["O", "B-X", "I-X", "O", "O"][:words]
            references["topic"][place] = "xy"[place % 2]
        rows = dict.fromkeys(TASKS, torch.arange(size))
        found.append(TextBatch("d", [*range(number * size, (number + 1) * size)], features, read, rows))
    return InspectedTexts(TASKS, found, {"d": references}, {"d": batches * 5})
