"""Training on given batches, and records of every row, gradient and weight."""

from __future__ import annotations

import copy

import torch
from torch.utils.data import DataLoader
from transformers import TrainerCallback

from mtl_nlp import MultitaskTrainer, TaskMixture


class OrderedTrainer(MultitaskTrainer):
    """A trainer that trains on the given batches in their order."""

    batches: list[list[int]]

    def get_train_dataloader(self) -> DataLoader:
        return DataLoader(self.train_dataset, batch_sampler=self.batches, collate_fn=self.data_collator)


class Fetching(TaskMixture):
    """A mixture that records the rows of every batch."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.fetched: list[list[int]] = []

    def __getitems__(self, indices):
        self.fetched.append(sorted(indices))
        return super().__getitems__(indices)


class Recorder(TrainerCallback):
    """A callback that copies the gradients before and the weights after every optimizer step."""

    def __init__(self) -> None:
        self.start: dict[str, torch.Tensor] = {}
        self.gradients: list[dict[str, torch.Tensor]] = []
        self.weights: list[dict[str, torch.Tensor]] = []

    def on_train_begin(self, args, state, control, model, **kwargs):
        self.start = copy.deepcopy(model.state_dict())

    def on_pre_optimizer_step(self, args, state, control, model, **kwargs):
        self.gradients.append({name: copy.deepcopy(p.grad) for name, p in model.named_parameters()})

    def on_step_end(self, args, state, control, model, **kwargs):
        self.weights.append(copy.deepcopy(model.state_dict()))
