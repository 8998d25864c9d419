"""Heads on the shared encoder's output.

A head *is* the stock class of the encoder's family (`BertForTokenClassification`,
`RobertaForSequenceClassification`, …) with a pass-through instead of its encoder. So a head has the layers, forward
pass, initialisation and weight names of the stock class, and its weights can be exported to the stock class exactly.
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
"""The transformers classes that a label kind can have as its `auto_class`, with the families that support them."""


class HiddenStatesAsEncoder(nn.Module):
    """A replacement for the encoder of a stock class, which returns the hidden states that it gets.

    Args:
        encoder: the encoder to replace. Its pooler (BERT, ALBERT, …) is kept, since the pooler belongs to the head.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        parts = dict(encoder.named_children())
        self.pooler = parts.get("pooler")
        self.pooler_activation = parts.get("pooler_activation")

    def forward(self, *args: object, inputs_embeds: torch.Tensor, **kwargs: object) -> BaseModelOutputWithPooling:
        """Return `inputs_embeds`, shape (rows, length, hidden), as the last hidden states, and the pooler's output."""
        pooled = None
        if self.pooler is not None and self.pooler_activation is not None:  # ALBERT's pooler is a bare linear layer
            pooled = self.pooler_activation(self.pooler(inputs_embeds[:, 0]))
        elif self.pooler is not None:
            pooled = self.pooler(inputs_embeds)
        return BaseModelOutputWithPooling(last_hidden_state=inputs_embeds, pooler_output=pooled)


class PlainHead(nn.Module):
    """Dropout and a linear layer, for encoder families without a stock class for the level.

    At the sequence level, the layer reads the first sub-word.

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
        """Compute the logits.

        Args:
            hidden_states: shape (rows, length, hidden).

        Returns:
            Logits, shape (rows, length, num_labels) at the token level, (rows, num_labels) at the sequence level.
        """
        return self.classifier(self.dropout(hidden_states if self.level == "token" else hidden_states[:, 0]))


class TaskHead(nn.Module):
    """The head of one task.

    The trainer sets `label_smoothing`, the share of the target that cross-entropy spreads over all classes in training
    (Szegedy et al. 2016).

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
        """The replacement of the stock class's encoder, with the pooler if the family has one; None in a plain head."""
        return self.stock.base_model if self.has_stock_class else None

    def new_parameters(self) -> Iterator[nn.Parameter]:
        """Return the parameters that are not pretrained: all except the pooler's."""
        pooler = set() if self.encoder_stand_in is None else set(self.encoder_stand_in.parameters())
        return (parameter for parameter in self.parameters() if parameter not in pooler)

    def forward(self, hidden_states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Compute the logits of the task.

        Args:
            hidden_states: the encoder's last hidden states, shape (rows, length, hidden).
            attention_mask: shape (rows, length).

        Returns:
            Logits, shape (rows, length, num_labels) at the token level, (rows, num_labels) at the sequence level.
        """
        if self.pools_mean:
            mask = attention_mask[..., None].to(hidden_states.dtype)
            # The mean becomes the only sub-word of the text, so every family's head reads the mean.
            hidden_states = (hidden_states * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True)
            attention_mask = torch.ones_like(attention_mask[:, :1])
        if self.has_stock_class:
            outputs = self.stock(inputs_embeds=hidden_states, attention_mask=attention_mask).logits
        else:
            outputs = self.plain(hidden_states)
        return self.kind.in_units(outputs)

    def loss_sum(
        self, logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the loss summed over the labelled units, a float32 scalar, see `LabelKind.loss_sum`.

        Args:
            logits: as `forward` returns them.
            targets: as in a batch, shape (rows, length), (rows,) or (rows, num_labels); soft targets have an
                additional last dimension for the classes.
            weights: the weights of the units, broadcastable to their shape; None for 1.
        """
        smoothing = self.label_smoothing if self.training else 0.0
        return self.kind.loss_sum(logits, targets, weights, label_smoothing=smoothing)


def has_stock_class(task: Task, text_config: PreTrainedConfig) -> bool:
    """Return whether the encoder's family has a stock class for the level of the task."""
    return type(text_config) in _STOCK[task.kind.auto_class][1]


def stock_config(task: Task, text_config: PreTrainedConfig) -> PreTrainedConfig:
    """Return the configuration of the family's stock class for one task."""
    config = copy.deepcopy(text_config)
    names = task.kind.output_names
    config.id2label = dict(enumerate(names))
    config.label2id = {name: index for index, name in enumerate(names)}
    config.problem_type = task.kind.problem_type
    if task.pools_mean and "classifier_pooling" in config.to_dict():
        config.classifier_pooling = "mean"
    return config


def stock_class_problem(task: Task, text_config: PreTrainedConfig) -> str | None:
    """Return the reason why no stock class equals the task's head; None if one does."""
    family = text_config.model_type
    if not has_stock_class(task, text_config):
        return f"transformers has no {family} class for {task.type}"
    if task.pools_mean and "classifier_pooling" not in text_config.to_dict():
        return f"no {family} class of transformers supports mean pooling (`pooling: mean`)"
    return None


def _without_encoder(auto_class: Any, config: PreTrainedConfig) -> PreTrainedModel:
    """Build a stock class with its encoder replaced, without allocating the encoder's weights."""
    device = torch.empty(0).device
    with torch.device("meta"):
        stock = auto_class.from_config(config)
    setattr(stock, stock.base_model_prefix, HiddenStatesAsEncoder(stock.base_model))
    # The weights stay uninitialised here. The multitask model's post_init calls the stock class's own _init_weights.
    return stock.to_empty(device=device)
