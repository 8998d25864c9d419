"""Heads on the shared encoder's output.

A head *is* the stock class of the encoder's family (`BertForTokenClassification`,
`RobertaForSequenceClassification`, …) with its encoder replaced by a pass-through. So it has that class's layers,
forward, initialisation and weight names, and a task trained here can be handed back to the class exactly.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING,
)

from .tasks_multitask import Task

_STOCK = {
    "AutoModelForTokenClassification": (AutoModelForTokenClassification, MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING),
    "AutoModelForSequenceClassification": (
        AutoModelForSequenceClassification,
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    ),
}
"""The classes of transformers that a label kind can name as its `auto_class`, and the families that have them."""


class HiddenStatesAsEncoder(nn.Module):
    """Stands in a stock class in its encoder's place and returns the hidden states it is given.

    Args:
        encoder: the encoder replaced, whose pooler (BERT, ALBERT, …) is kept, since it belongs to the head.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        parts = dict(encoder.named_children())
        self.pooler = parts.get("pooler")
        self.pooler_activation = parts.get("pooler_activation")

    def forward(self, *args: object, inputs_embeds: torch.Tensor, **kwargs: object) -> BaseModelOutputWithPooling:
        """Return `inputs_embeds`, shape (rows, length, hidden), as the last hidden state."""
        pooled = None
        if self.pooler is not None and self.pooler_activation is not None:  # ALBERT's pooler is a bare linear layer
            pooled = self.pooler_activation(self.pooler(inputs_embeds[:, 0]))
        elif self.pooler is not None:
            pooled = self.pooler(inputs_embeds)
        return BaseModelOutputWithPooling(last_hidden_state=inputs_embeds, pooler_output=pooled)


class PlainHead(nn.Module):
    """Dropout and a linear layer, for encoder families without a stock class of the level.

    At the sequence level it reads the first sub-word.

    Args:
        config: the encoder's configuration, with `num_labels`.
        level: `token` or `sequence`.
    """

    def __init__(self, config: PreTrainedConfig, level: str) -> None:
        super().__init__()
        self.level = level
        self.dropout = nn.Dropout(0.1)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Logits of shape (rows, length, labels) or (rows, labels)."""
        return self.classifier(self.dropout(hidden_states if self.level == "token" else hidden_states[:, 0]))


class TaskHead(nn.Module):
    """The head of one task.

    `label_smoothing`, which the trainer sets, is the share of the target that cross-entropy spreads over all classes
    in training (Szegedy et al. 2016).

    Args:
        task: the task.
        text_config: the encoder's configuration.
    """

    def __init__(self, task: Task, text_config: PreTrainedConfig) -> None:
        super().__init__()
        self.kind = task.kind
        self.pools_mean = task.pools_mean
        self.label_smoothing = 0.0
        config = stock_config(task, text_config)
        self.has_stock_class = has_stock_class(task, text_config)
        if self.has_stock_class:
            self.stock = _without_encoder(_STOCK[self.kind.auto_class][0], config)
        else:
            self.plain = PlainHead(config, self.kind.level)

    @property
    def encoder_stand_in(self) -> HiddenStatesAsEncoder | None:
        """The stock class's pass-through, which holds the pooler where the family has one."""
        return self.stock.base_model if self.has_stock_class else None

    def new_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters that no pretraining has seen: all but those of the pooler."""
        pooler = set() if self.encoder_stand_in is None else set(self.encoder_stand_in.parameters())
        return (parameter for parameter in self.parameters() if parameter not in pooler)

    def forward(self, hidden_states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Logits of the task.

        Args:
            hidden_states: the encoder's last hidden states, shape (rows, length, hidden).
            attention_mask: shape (rows, length).

        Returns:
            Shape (rows, length, num_labels) at the token level, (rows, num_labels) at the sequence level.
        """
        if self.pools_mean:
            mask = attention_mask[..., None].to(hidden_states.dtype)
            # A text of one sub-word, the mean: whatever the family's head reads of a text, it reads this.
            hidden_states = (hidden_states * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True)
            attention_mask = torch.ones_like(attention_mask[:, :1])
        if self.has_stock_class:
            return self.stock(inputs_embeds=hidden_states, attention_mask=attention_mask).logits
        return self.plain(hidden_states)

    def loss_sum(
        self, logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the loss summed over the labelled units, a float32 scalar, see `LabelKind.loss_sum`.

        Args:
            logits: as `forward` returns them.
            targets: shape (rows, length), (rows,) or (rows, num_labels) as in a batch; or soft targets, with the
                classes as one more dimension.
            weights: a weight per unit, broadcasts to the units' shape; None for 1.
        """
        smoothing = self.label_smoothing if self.training else 0.0
        return self.kind.loss_sum(logits, targets, weights, label_smoothing=smoothing)


def has_stock_class(task: Task, text_config: PreTrainedConfig) -> bool:
    """Whether the encoder's family has a stock class for tasks of this level."""
    return type(text_config) in _STOCK[task.kind.auto_class][1]


def stock_config(task: Task, text_config: PreTrainedConfig) -> PreTrainedConfig:
    """The configuration of the stock class of the encoder's family for one task."""
    config = copy.deepcopy(text_config)
    names = task.kind.output_names
    config.id2label = dict(enumerate(names))
    config.label2id = {name: index for index, name in enumerate(names)}
    config.problem_type = task.kind.problem_type
    if task.pools_mean and "classifier_pooling" in config.to_dict():
        config.classifier_pooling = "mean"
    return config


def stock_class_problem(task: Task, text_config: PreTrainedConfig) -> str | None:
    """Why no stock class computes what the task's head does; None if one does."""
    family = text_config.model_type
    if not has_stock_class(task, text_config):
        return f"transformers has no {family} class for {task.type}"
    if task.pools_mean and "classifier_pooling" not in text_config.to_dict():
        return f"no {family} class of transformers reads the mean of a text (`pooling: mean`)"
    return None


def _without_encoder(auto_class: Any, config: PreTrainedConfig) -> PreTrainedModel:
    """The stock class, its encoder replaced, built without ever holding the encoder's weights."""
    device = torch.empty(0).device
    with torch.device("meta"):
        stock = auto_class.from_config(config)
    setattr(stock, stock.base_model_prefix, HiddenStatesAsEncoder(stock.base_model))
    # Left without values here: the composite's post_init hands every nested stock class to its own _init_weights.
    return stock.to_empty(device=device)
