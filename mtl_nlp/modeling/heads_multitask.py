"""Heads on the shared encoder's output.

By default, a head *is* the stock class of the encoder's family (`BertForTokenClassification`,
`RobertaForSequenceClassification`, …) with a pass-through instead of its encoder. So a head has the layers, forward
pass, initialisation and weight names of the stock class, and its weights can be exported to the stock class exactly.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING,
    MODEL_MAPPING,
)

from .encoders_multitask import (
    as_buffers,
    build_encoder,
    default_pooling,
    encoder_arguments,
    has_global_attention,
    is_part_of_encoder_decoder,
    reads_left_context,
    stock_pooling,
)
from .head_types_multitask import HEADS, head_options, registered_name
from .tasks_multitask import Task

_STOCK = {
    "AutoModelForTokenClassification": (AutoModelForTokenClassification, MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING),
    "AutoModelForSequenceClassification": (
        AutoModelForSequenceClassification,
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    ),
}
"""The transformers classes that a label kind can have as its `auto_class`, with the families that support them."""


@dataclass
class HiddenStates(BaseModelOutputWithPooling):
    """The output of [`HiddenStatesAsEncoder`], with the fields that the stock classes of all families pass on."""

    past_key_values: None = None
    mems: None = None
    global_attentions: None = None
    entity_hidden_states: None = None


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

    def forward(self, *args: object, inputs_embeds: torch.Tensor, **kwargs: object) -> HiddenStates:
        """Return `inputs_embeds`, shape (rows, length, hidden), as the last hidden states, and the pooler's output."""
        pooled = None
        if self.pooler is not None and self.pooler_activation is not None:  # ALBERT's pooler is a bare linear layer
            pooled = self.pooler_activation(self.pooler(inputs_embeds[:, 0]))
        elif self.pooler is not None:
            pooled = self.pooler(inputs_embeds)
        return HiddenStates(last_hidden_state=inputs_embeds, pooler_output=pooled)


class PlainHead(nn.Module):
    """Any number of hidden layers and a linear layer, each after dropout.

    Encoder families without a stock class for the level have this head without hidden layers. At the sequence level,
    the head reads the first sub-word.

    Args:
        config: the encoder's configuration, with `num_labels`.
        level: `token` or `sequence`.
        hidden_layers: number of layers of the encoder's hidden size with a GELU (Hendrycks and Gimpel 2016).
        dropout: the share of each layer's input that is dropped in training.
    """

    def __init__(self, config: PreTrainedConfig, level: str, hidden_layers: int = 0, dropout: float = 0.1) -> None:
        super().__init__()
        self.level = level
        size = config.hidden_size
        self.hidden = nn.Sequential(
            *(nn.Sequential(nn.Dropout(dropout), nn.Linear(size, size), nn.GELU()) for _ in range(hidden_layers))
        )
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(size, config.num_labels)

    def forward(self, hidden_states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Compute the logits.

        Args:
            hidden_states: shape (rows, length, hidden).
            attention_mask: shape (rows, length), not used.

        Returns:
            Logits, shape (rows, length, num_labels) at the token level, (rows, num_labels) at the sequence level.
        """
        read = hidden_states if self.level == "token" else hidden_states[:, 0]
        return self.classifier(self.dropout(self.hidden(read)))


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
        self.pooled_by = fit_to_encoder(task, text_config).pooled_by
        self.stock_pooling = stock_pooling(text_config)
        self.label_smoothing = 0.0
        self.starts_large = False
        config = stock_config(task, text_config)
        self.own_type = registered_name(task.head)
        values = text_config.to_dict()
        self.has_stock_class = task.head is None and has_stock_class(task, text_config)
        if self.own_type is not None:
            self.own = HEADS[self.own_type](config, self.kind.level, **head_options(task.head))
        elif self.has_stock_class:
            # T5 and its relatives start such a head with a deviation of 1, so that its losses start far above chance.
            is_scaled = "initializer_factor" in values and "initializer_range" not in values
            self.starts_large = is_scaled and self.kind.level == "token"
            self.stock = _without_encoder(_STOCK[self.kind.auto_class][0], config)
            self._arguments = encoder_arguments(self.stock)
        else:
            self.plain = PlainHead(config, self.kind.level, **head_options(task.head))

    @property
    def encoder_stand_in(self) -> HiddenStatesAsEncoder | None:
        """The replacement of the stock class's encoder, with the pooler if the family has one; None in other heads."""
        return self.stock.base_model if self.has_stock_class else None

    @torch.no_grad()
    def lower_start(self) -> None:
        """Give the layers of a head whose family starts them with large weights the usual small ones."""
        for parameter in self.new_parameters() if self.starts_large else ():
            if parameter.dim() > 1:
                init.normal_(parameter, mean=0.0, std=0.02)

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

        Raises:
            ValueError: if a head from outside of this package returns logits of a different shape.
        """
        # A registered head gets all sub-words, unless its task asks for their mean or the last one.
        reads_first = self.pooled_by == "cls" and (self.own_type is not None or self.stock_pooling == "cls")
        if self.pooled_by is not None and not reads_first:
            # The result becomes the only sub-word of the text, so every family's head reads the result.
            hidden_states = pool(hidden_states, attention_mask, self.pooled_by)[:, None]
            attention_mask = torch.ones_like(attention_mask[:, :1])
        if self.has_stock_class:
            outputs = self._stock_outputs(hidden_states, attention_mask)
        elif self.own_type is None:
            outputs = self.plain(hidden_states, attention_mask)
        else:
            outputs = self._own_outputs(hidden_states, attention_mask)
        return self.kind.in_units(outputs)

    def _stock_outputs(self, hidden_states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        read: dict[str, torch.Tensor] = {"attention_mask": attention_mask}
        if self.pooled_by is not None and self.stock_pooling == "last":  # the class counts the ids to find the last one
            read["input_ids"] = attention_mask
        if "global_attention_mask" in self._arguments:  # the class would make one from the ids
            read["global_attention_mask"] = attention_mask
        return self.stock(inputs_embeds=hidden_states, **read).logits

    def _own_outputs(self, hidden_states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        outputs = self.own(hidden_states, attention_mask)
        wanted = self.kind.logits_shape(hidden_states.shape[1])
        if outputs.dim() != 1 + len(wanted) or outputs.shape[-1] != wanted[-1]:
            raise ValueError(
                f"The head {self.own_type!r} should return logits of the shape (rows, {', '.join(map(str, wanted))}). "
                f"Found {tuple(outputs.shape)}."
            )
        return outputs

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


def pool(hidden_states: torch.Tensor, attention_mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """Return one vector per text, shape (rows, hidden).

    Args:
        hidden_states: shape (rows, length, hidden).
        attention_mask: shape (rows, length), 0 for padding, on either side.
        pooling: `cls`, `mean` or `last`, see [`SequenceTask`].
    """
    if pooling == "mean":
        mask = attention_mask[..., None].to(hidden_states.dtype)
        return (hidden_states * mask).sum(1) / mask.sum(1)
    if pooling == "last":
        places = torch.arange(attention_mask.shape[1], device=attention_mask.device)
        last = (attention_mask * places).argmax(1)[:, None, None]
        return hidden_states.gather(1, last.expand(-1, -1, hidden_states.shape[-1]))[:, 0]
    return hidden_states[:, 0]


def fit_to_encoder(task: Task, text_config: PreTrainedConfig) -> Task:
    """Return a copy of a task with the default pooling of the encoder's family, unless the task has a pooling.

    Raises:
        ValueError: if the task reads the first sub-word of an encoder whose first sub-word reads no other.
    """
    fitted = task.with_default_pooling(default_pooling(text_config))
    if fitted.pooled_by == "cls" and registered_name(task.head) is None and reads_left_context(text_config):
        raise ValueError(
            f"Task {task.name!r}: `pooling` should be last or mean for a {text_config.model_type} encoder, whose first "
            f"sub-word does not read the text. Found 'cls'."
        )
    return fitted


def has_stock_class(task: Task, text_config: PreTrainedConfig) -> bool:
    """Return whether the encoder's family has a stock class for the level of the task, with the same encoder.

    The stock classes of encoder-decoders for texts (T5, BART) also run the decoder.
    """
    exists = type(text_config) in _STOCK[task.kind.auto_class][1]
    return exists and (not is_part_of_encoder_decoder(text_config) or _runs_the_encoder(task, text_config))


def _runs_the_encoder(task: Task, text_config: PreTrainedConfig) -> bool:
    """Return whether the family's stock class has an encoder of the same class as the multitask model."""
    with torch.device("meta"):
        stock = _STOCK[task.kind.auto_class][0].from_config(copy.deepcopy(text_config))
        return type(stock.base_model) is type(build_encoder(copy.deepcopy(text_config)))


def stock_config(task: Task, text_config: PreTrainedConfig) -> PreTrainedConfig:
    """Return the configuration of the family's stock class for one task."""
    config, pooling = copy.deepcopy(text_config), fit_to_encoder(task, text_config).pooled_by
    names = task.kind.output_names
    config.id2label = dict(enumerate(names))
    config.label2id = {name: index for index, name in enumerate(names)}
    config.problem_type = task.kind.problem_type
    if pooling == "mean" and "classifier_pooling" in config.to_dict():
        config.classifier_pooling = "mean"
    return config


def stock_class_problem(task: Task, text_config: PreTrainedConfig) -> str | None:
    """Return the reason why no stock class equals the task's head; None if one does."""
    family = text_config.model_type
    if task.head is not None:
        return "its head is not that of a transformers class (`head`)"
    if not has_stock_class(task, text_config):
        of_encoder = " that runs the encoder alone" if is_part_of_encoder_decoder(text_config) else ""
        return f"transformers has no {family} class for {task.type}{of_encoder}"
    if isinstance(MODEL_MAPPING.get(type(text_config), None), tuple) and not _runs_the_encoder(task, text_config):
        return f"the {family} class of transformers for {task.type} has a different encoder"  # Funnel for texts
    pooling = fit_to_encoder(task, text_config).pooled_by
    if pooling is None:
        if has_global_attention(text_config):
            return f"the {family} class of transformers for {task.type} has no global attention on the first sub-word"
        return None
    if pooling == "mean" and "classifier_pooling" not in text_config.to_dict():
        return f"no {family} class of transformers supports mean pooling (`pooling: mean`)"
    if pooling != "mean" and pooling != stock_pooling(text_config):
        return f"no {family} class of transformers reads this sub-word (`pooling: {pooling}`)"
    return None


@torch.inference_mode(False)
@torch.enable_grad()
def _without_encoder(auto_class: Any, config: PreTrainedConfig) -> PreTrainedModel:
    """Build a stock class with its encoder replaced, without allocating the encoder's weights."""
    device = torch.empty(0).device
    if config.pad_token_id is None:  # the classes of decoders refuse several rows without padding
        config.pad_token_id = 0
    with torch.device("meta"):
        stock = auto_class.from_config(config)
        stand_in = HiddenStatesAsEncoder(stock.base_model)
        setattr(stock, stock.base_model_prefix, stand_in)
        pooler = stand_in.pooler
        if pooler is not None and [*pooler.parameters()] and not _reads_pooler(stock, pooler):
            as_buffers(pooler, [name for name, _ in pooler.named_parameters()])
    # The weights stay uninitialised here. The multitask model's post_init calls the stock class's own _init_weights.
    return stock.to_empty(device=device)


def _reads_pooler(stock: PreTrainedModel, pooler: nn.Module) -> bool:
    """Return whether the logits of a stock class without its encoder depend on the pooler."""
    parameters = list(pooler.parameters())
    hidden = torch.zeros(1, 1, stock.config.hidden_size, dtype=parameters[0].dtype)
    logits = stock(inputs_embeds=hidden, attention_mask=torch.ones(1, 1, dtype=torch.long)).logits
    return any(each is not None for each in torch.autograd.grad(logits.sum(), parameters, allow_unused=True))
