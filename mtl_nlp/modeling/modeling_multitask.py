"""The multitask model: one encoder, one head a task."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoModel
from transformers import initialization as init
from transformers.models.auto.modeling_auto import MODEL_MAPPING
from transformers.utils import ModelOutput

from .adapters_multitask import (
    peft_adapter_name,
    supports_mixed_batches,
)
from .configuration_multitask import MultitaskConfig
from .heads_multitask import PlainHead, TaskHead
from .loss_multitask import count_step, joint_loss, zero_loss
from .parts_multitask import ModelParts, check_labels
from .routing_multitask import checkpointing_routed, encoder_passes, mark_idle_adapters, routed
from .tasks_multitask import Task


@dataclass
class MultitaskOutput(ModelOutput):
    """What the model returns.

    Attributes:
        loss: the joint loss of this batch with all weights 1, a scalar; None without labels.
        logits: for each task shape (n_t, L, C_t) at the token level or (n_t, C_t) at the sequence level.
        loss_sums: for each task the loss summed over its labelled units, a scalar.
    """

    loss: torch.Tensor | None = None
    logits: dict[str, torch.Tensor] | None = None
    loss_sums: dict[str, torch.Tensor] | None = None


class MultitaskModel(ModelParts):
    """A pretrained encoder that feeds one head for each task.

    With adapters (soft sharing) the encoder is another one for each task that has its own, by a LoRA, see
    `add_adapter`; the shared weights stay one.

    Args:
        config: the encoder's configuration and the tasks, whose label spaces must be known.

    Raises:
        ValueError: if there is no task, or one has no labels.

    Example:
        >>> from transformers import AutoTokenizer
        >>> from mtl_nlp import MultitaskModel, TextClassification, TokenClassification
        >>> tasks = [
        ...     TokenClassification(name="pos", labels=["NOUN", "VERB"]),
        ...     TextClassification(name="topic", labels=["news", "sport"]),
        ... ]
        >>> model = MultitaskModel.from_encoder("bert-base-uncased", tasks)
        >>> tokenizer = AutoTokenizer.from_pretrained("bert-base-uncased")
        >>> output = model(**tokenizer("Dogs bark", return_tensors="pt"))
        >>> output.logits["pos"].shape, output.logits["topic"].shape
        (torch.Size([1, 4, 2]), torch.Size([1, 2]))
    """

    config_class = MultitaskConfig
    base_model_prefix = "encoder"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    # Whether an implementation really works is the encoder's own affair, and checked there.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    # The loss is a mean over the batch, which Trainer may scale; without this it counts `**kwargs` as a promise.
    accepts_loss_kwargs = False

    def __init__(self, config: MultitaskConfig) -> None:
        super().__init__(config)
        self.tasks: dict[str, Task] = {task.name: task for task in config.get_tasks()}
        if not self.tasks:
            raise ValueError("A MultitaskModel needs at least one task. Found none in the configuration.")
        for task in self.tasks.values():
            check_labels(task)
        self.encoder = AutoModel.from_config(config.text_config, **_no_pooler(config.text_config))
        # A list: task names such as "a.b" or "forward" are no valid keys of a ModuleDict.
        self.heads = nn.ModuleList([TaskHead(task, config.text_config) for task in self.tasks.values()])
        self.post_init()
        for options in config.adapters or ():  # after post_init, which would initialise lora_B too
            from .lora_multitask import inject_adapter  # needs PEFT

            inject_adapter(self.encoder, peft_adapter_name(options["name"]), options)

    @classmethod
    def from_encoder(
        cls,
        encoder: str,
        tasks: Sequence[Task],
        *,
        max_length: int | None = None,
        stride: int | None = None,
        **kwargs: Any,
    ) -> MultitaskModel:
        """Build a model from a pretrained encoder, with new heads.

        Heads of families that pretrain a pooler (BERT, …) start from that pooler, as the stock classes do.

        Args:
            encoder: a Hub id or a local folder, anything `AutoModel` loads.
            tasks: the tasks with their label spaces, in the order of the heads.
            max_length: sub-words the encoder reads at once, kept in the configuration.
            stride: sub-words that windows of a long text share, kept in the configuration.
            **kwargs: arguments of `AutoModel.from_pretrained` (`revision`, `attn_implementation`, …). `dtype` is
                float32 unless given: a checkpoint stored in half precision is not fine to tune in it.
        """
        pretrained = AutoModel.from_pretrained(encoder, **{"dtype": torch.float32, **kwargs})
        config = MultitaskConfig(
            text_config=pretrained.config,
            tasks=list(tasks),
            max_length=max_length,
            stride=stride,
            # A composite configuration sets its parts' implementation too, to None without this.
            attn_implementation=pretrained.config._attn_implementation,
        )
        model = cls(config).to(pretrained.dtype)
        state = pretrained.state_dict()
        kept = model.encoder.state_dict().keys()
        model.encoder.load_state_dict({name: state[name] for name in kept})
        for head in model.heads:
            if head.encoder_stand_in is not None:
                own = head.encoder_stand_in.state_dict().keys()
                head.encoder_stand_in.load_state_dict({name: state[name] for name in own})
        model.config.text_config._name_or_path = ""  # a local path is nobody else's business
        config.dtype = pretrained.dtype
        return model

    @classmethod
    def is_custom_code(cls) -> bool:
        """False, since all parts are initialised through `transformers.initialization`, which keeps loaded weights.

        In custom code transformers passes over modules without parameters of their own, and so over every class that
        initialises its children: ModernBERT's heads, [`PlainHead`].
        """
        return False

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise a plain head; the encoder and stock heads are handed to their own classes' initialisation."""
        if isinstance(module, PlainHead):
            init.normal_(module.classifier.weight, mean=0.0, std=0.02)
            init.zeros_(module.classifier.bias)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        rows: dict[str, torch.Tensor] | None = None,
        labels: dict[str, torch.Tensor] | None = None,
        tasks: Sequence[str] | None = None,
    ) -> MultitaskOutput:
        """The encoder over the batch, then every task's head over its rows.

        One encoder pass serves all tasks without an adapter; a row is read again for each adapter that it needs.

        Args:
            input_ids: shape (B, L), rows of any mix of datasets.
            attention_mask: shape (B, L).
            token_type_ids: shape (B, L), for encoders that read them.
            rows: for each task the rows of the batch that it labels, shape (n_t,), n_t = 0 allowed; None for all rows.
            labels: for each task shape (n_t, L) int64 with -100 off the first sub-words, (n_t,) int64 or float, or
                (n_t, C_t) float.
            tasks: the heads to run; None for all.

        Returns:
            Logits, and with labels the joint loss and each task's summed loss.
        """
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None:
            inputs["token_type_ids"] = token_type_ids
        names = list(self.tasks if tasks is None else tasks)
        logits, hidden = self._answers(
            inputs, rows, names, marks_idle_adapters=labels is not None and torch.is_grad_enabled()
        )
        if labels is None:
            return MultitaskOutput(logits=logits)
        if rows is None:
            rows = dict.fromkeys(logits, torch.arange(len(input_ids)))
        heads = self.heads_by_task
        idle = {name for name in names if len(rows[name]) == 0}
        # Every process of a distributed run must touch every parameter. One operation does for sixty idle heads.
        untouched = (p for name in idle for p in heads[name].parameters() if p.requires_grad)
        zero = zero_loss(hidden, *untouched)
        loss_sums = {
            name: zero if name in idle else heads[name].loss_sum(logits[name], labels[name]) for name in logits
        }
        counts = count_step(
            [{"input_ids": input_ids, "rows": rows, "labels": labels}], {name: self.tasks[name] for name in logits}
        )
        return MultitaskOutput(loss=joint_loss(loss_sums, counts), logits=logits, loss_sums=loss_sums)

    def _answers(
        self,
        inputs: Mapping[str, torch.Tensor],
        rows: Mapping[str, torch.Tensor] | None,
        names: Sequence[str],
        *,
        marks_idle_adapters: bool,
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """The logits of some tasks for their rows, and hidden states that they were made from.

        With `marks_idle_adapters` adapters that no row goes through have a gradient too, of zero.
        """
        heads = self.heads_by_task
        in_one = supports_mixed_batches(self.config.text_config, self.config.adapters or ())
        passes = encoder_passes({name: self.adapters_of(name) for name in names}, rows, in_one=in_one)
        if marks_idle_adapters:
            passes = mark_idle_adapters(passes, map(peft_adapter_name, self.adapter_names))
        logits: dict[str, torch.Tensor] = {}
        for encoder_pass in passes:
            chosen = slice(None) if encoder_pass.rows is None else encoder_pass.rows
            read = {key: value[chosen] for key, value in inputs.items()}
            with routed(encoder_pass.route):
                hidden = self.encoder(**read).last_hidden_state
            for name, positions in encoder_pass.positions.items():
                index = slice(None) if positions is None else positions
                logits[name] = heads[name](hidden[index], read["attention_mask"][index])
        for name in names:
            if name not in logits:
                logits[name] = hidden.new_zeros(0, *self.tasks[name].kind.logits_shape(hidden.shape[1]))
        return {name: logits[name] for name in names}, hidden

    def enable_input_require_grads(self) -> None:
        """Transformers' own of the encoder: DeBERTa's stock heads would look for embeddings, and have none."""
        self.encoder.enable_input_require_grads()

    def disable_input_require_grads(self) -> None:
        """Undo `enable_input_require_grads`."""
        self.encoder.disable_input_require_grads()

    def _set_gradient_checkpointing(
        self, enable: bool = True, gradient_checkpointing_func: Callable[..., Any] = checkpoint, **kwargs: Any
    ) -> None:
        super()._set_gradient_checkpointing(enable, checkpointing_routed(gradient_checkpointing_func), **kwargs)


def _no_pooler(text_config: Any) -> dict[str, bool]:
    """The argument that leaves out the encoder's own pooler: heads have theirs, and an idle one gets no gradient."""
    encoder_class = MODEL_MAPPING.get(type(text_config), None)
    if encoder_class is not None and "add_pooling_layer" in inspect.signature(encoder_class.__init__).parameters:
        return {"add_pooling_layer": False}
    return {}
