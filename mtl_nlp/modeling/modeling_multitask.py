"""The multitask model: one encoder with one head per task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from .adapters_multitask import (
    peft_adapter_name,
    supports_mixed_batches,
)
from .configuration_multitask import MultitaskConfig
from .encoders_multitask import UNREAD, build_encoder, encoder_arguments, encoder_inputs, encoder_state
from .heads_multitask import PlainHead, TaskHead
from .loss_multitask import count_step, joint_loss, unit_weights, zero_loss
from .parts_multitask import ModelParts, check_labels
from .routing_multitask import checkpointing_routed, encoder_passes, mark_idle_adapters, routed
from .tasks_multitask import Task
from .weights_multitask import check_finite


@dataclass
class MultitaskOutput(ModelOutput):
    """The output of a [`MultitaskModel`].

    Attributes:
        loss: the joint loss of the batch with a weight of 1 for each task, a scalar; None without labels.
        logits: the logits of each task, shape (n_t, L, C_t) at the token level, (n_t, C_t) at the sequence level.
        loss_sums: the loss of each task, summed over the task's labelled units, a scalar; None without labels.
    """

    loss: torch.Tensor | None = None
    logits: dict[str, torch.Tensor] | None = None
    loss_sums: dict[str, torch.Tensor] | None = None


class MultitaskModel(ModelParts):
    """A pretrained encoder with one head per task.

    With adapters (soft sharing), each task with an adapter has its own low-rank change of the shared encoder. See
    `add_adapter`.

    Args:
        config: the configuration with the encoder's configuration and the tasks. Each task must have its label space.

    Raises:
        ValueError: if there are no tasks, or a task has no labels.

    Examples:
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
    # The encoder checks whether it supports an implementation.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    # The loss is a mean over the batch, so Trainer must divide the loss by the number of accumulation steps.
    accepts_loss_kwargs = False
    # Earlier releases had adapters on such layers, and saved the weights of these layers under other names.
    _keys_to_ignore_on_load_missing: ClassVar[list[str]] = [rf"^encoder\.{UNREAD.pattern}$"]

    def __init__(self, config: MultitaskConfig) -> None:
        super().__init__(config)
        self.tasks: dict[str, Task] = {task.name: task for task in config.get_tasks()}
        if not self.tasks:
            raise ValueError("A MultitaskModel needs at least one task. Found none in the configuration.")
        for task in self.tasks.values():
            check_labels(task)
        self.encoder = build_encoder(config.text_config)
        self._encoder_arguments = encoder_arguments(self.encoder)
        # A list, since task names such as "a.b" or "forward" are not valid keys of a ModuleDict.
        self.heads = nn.ModuleList([TaskHead(task, config.text_config) for task in self.tasks.values()])
        self.post_init()
        for options in config.adapters or ():  # after post_init, which would also initialise lora_B
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

        If the encoder has a pretrained pooler (BERT, …), the sequence heads start from the pooler's weights, like the
        stock classes.

        Args:
            encoder: a Hub id or a local folder that `AutoModel` can load.
            tasks: the tasks with their label spaces, in the order of the heads.
            max_length: maximum number of sub-words per window, stored in the configuration.
            stride: number of sub-words that windows of a long text share, stored in the configuration.
            **kwargs: arguments of `AutoModel.from_pretrained` (`revision`, `attn_implementation`, …). `dtype` defaults
                to float32, also for checkpoints in half precision, since half-precision weights lose small updates.

        Raises:
            ValueError: if there are no tasks, a task has no labels, or a weight of the encoder is not finite.
        """
        # By default transformers would ask the user whether to run code of the encoder's repository.
        pretrained = AutoModel.from_pretrained(
            encoder, **{"dtype": torch.float32, "trust_remote_code": False, **kwargs}
        )
        check_finite(pretrained.named_parameters())
        config = MultitaskConfig(
            text_config=pretrained.config,
            tasks=list(tasks),
            max_length=max_length,
            stride=stride,
            # A composite configuration also sets the implementation of its parts, by default to None.
            attn_implementation=pretrained.config._attn_implementation,
        )
        model = cls(config).to(pretrained.dtype)
        model.encoder.load_state_dict(encoder_state(pretrained, model.encoder))
        state = pretrained.state_dict()
        for head in model.heads:
            if head.encoder_stand_in is not None:
                own = head.encoder_stand_in.state_dict().keys()
                head.encoder_stand_in.load_state_dict({name: state[name] for name in own})
        model.config.text_config._name_or_path = ""  # a local path is private
        config.dtype = pretrained.dtype
        return model

    @classmethod
    def is_custom_code(cls) -> bool:
        """Return False, also when the model is loaded as custom code from the Hub.

        For custom code, transformers does not initialise modules without own parameters. This would skip classes that
        initialise their children, such as ModernBERT's heads and [`PlainHead`]. All parts use
        `transformers.initialization`, which keeps loaded weights, so that the special treatment is not needed.
        """
        return False

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise a plain head, and lower the weights of a stock head that its family starts too large.

        For the encoder and stock heads, transformers calls the methods of their classes before.
        """
        if isinstance(module, TaskHead):
            module.lower_start()
        if isinstance(module, PlainHead):
            for layer in module.modules():
                if isinstance(layer, nn.Linear):
                    init.normal_(layer.weight, mean=0.0, std=0.02)
                    init.zeros_(layer.bias)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        rows: dict[str, torch.Tensor] | None = None,
        labels: dict[str, torch.Tensor] | None = None,
        tasks: Sequence[str] | None = None,
        weights: torch.Tensor | None = None,
        with_loss: bool = True,
    ) -> MultitaskOutput:
        """Run the encoder over the batch, then the head of each task over the task's rows.

        One encoder pass serves all tasks without adapters. With adapters, a row is encoded once per combination of
        adapters that its tasks need.

        Args:
            input_ids: shape (B, L), rows of any mix of datasets.
            attention_mask: shape (B, L), 0 for padding; None for a batch without padding.
            token_type_ids: shape (B, L), for encoders with token types.
            rows: indices of the rows that are labelled for each task, shape (n_t,), where n_t can be 0; None for all
                rows.
            labels: labels of each task, shape (n_t, L) int64 with -100 for sub-words without a label, (n_t,) int64 or
                float, or (n_t, C_t) float. A task without labels has a loss of zero.
            tasks: names of the tasks whose heads run; None for all tasks.
            weights: the weight of each row in the mean loss of its tasks, shape (B,); None for 1.
            with_loss: whether the output has the joint loss of the batch in addition to each task's summed loss. The
                host waits for the device to count the labels. The joint loss of a complete training step needs only the
                sums, see `joint_loss`.

        Returns:
            The logits, and with `labels` the joint loss and each task's summed loss.

        Raises:
            ValueError: if `labels` is not a dict of labels of the model's tasks, or has no label for some of the rows.
        """
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None:
            inputs["token_type_ids"] = token_type_ids
        names = list(self.tasks if tasks is None else tasks)
        logits, hidden = self._run_passes(
            inputs, rows, names, marks_idle_adapters=labels is not None and torch.is_grad_enabled()
        )
        if labels is None:
            return MultitaskOutput(logits=logits)
        rows = self._labelled_rows(labels, rows, len(input_ids), list(logits))
        heads = self.heads_by_task
        idle = {name for name in names if len(rows[name]) == 0}
        # In a distributed run, every process needs a gradient for every parameter. One operation serves all idle heads.
        # A single process spares the gradients, unless nothing else would have one.
        touches = not hidden.requires_grad or (torch.distributed.is_available() and torch.distributed.is_initialized())
        touched = (p for name in idle for p in heads[name].parameters() if p.requires_grad) if touches else ()
        zero = zero_loss(hidden, *touched)
        batch = {"input_ids": input_ids, "rows": rows, "labels": labels, "weights": weights}
        loss_sums = {
            name: zero
            if name in idle
            else heads[name].loss_sum(logits[name], labels[name], unit_weights(batch, self.tasks[name]))
            for name in logits
        }
        if not with_loss:
            return MultitaskOutput(logits=logits, loss_sums=loss_sums)
        counts = count_step([batch], {name: self.tasks[name] for name in logits})
        return MultitaskOutput(loss=joint_loss(loss_sums, counts), logits=logits, loss_sums=loss_sums)

    def _labelled_rows(
        self, labels: Any, rows: Mapping[str, torch.Tensor] | None, number: int, names: Sequence[str]
    ) -> dict[str, torch.Tensor]:
        """Return the rows that each task has labels for, and none for a task without labels.

        Args:
            labels: the labels of each task.
            rows: the rows of the labels; None for all rows.
            number: the number of rows in the batch.
            names: the tasks whose heads run.
        """
        if not isinstance(labels, Mapping) or (unknown := labels.keys() - self.tasks.keys()):
            found = (
                f"the names {', '.join(map(repr, unknown))}" if isinstance(labels, Mapping) else type(labels).__name__
            )
            raise ValueError(
                f"`labels` should be a dict from tasks of the model ({', '.join(self.tasks)}) to tensors. "
                f"Found {found}."
            )
        if rows is None:
            for name, values in labels.items():
                if len(values) != number:
                    raise ValueError(
                        f"`labels`: task {name!r} should have labels for all {number} rows of the batch. Found "
                        f"{len(values)}. Pass the rows with labels as `rows`."
                    )
            rows = dict.fromkeys(labels, torch.arange(number))
        return {name: rows[name] if name in labels else torch.arange(0) for name in names}

    def _run_passes(
        self,
        inputs: Mapping[str, torch.Tensor],
        rows: Mapping[str, torch.Tensor] | None,
        names: Sequence[str],
        *,
        marks_idle_adapters: bool,
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Return the logits of some tasks for their rows, and the hidden states of the last encoder pass.

        With `marks_idle_adapters`, adapters without rows get a gradient of zero.
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
                hidden = self.encoder(**encoder_inputs(self._encoder_arguments, read)).last_hidden_state
            for name, positions in encoder_pass.positions.items():
                index = slice(None) if positions is None else positions
                logits[name] = heads[name](hidden[index], read["attention_mask"][index])
        for name in names:
            if name not in logits:
                logits[name] = hidden.new_zeros(0, *self.tasks[name].kind.logits_shape(hidden.shape[1]))
        return {name: logits[name] for name in names}, hidden

    def enable_input_require_grads(self) -> None:
        """Call the encoder's method, see `PreTrainedModel.enable_input_require_grads`.

        The inherited method fails for DeBERTa's stock heads, since it looks for embeddings in every head.
        """
        self.encoder.enable_input_require_grads()

    def disable_input_require_grads(self) -> None:
        """Undo `enable_input_require_grads`."""
        self.encoder.disable_input_require_grads()

    def _set_gradient_checkpointing(
        self, enable: bool = True, gradient_checkpointing_func: Callable[..., Any] = checkpoint, **kwargs: Any
    ) -> None:
        super()._set_gradient_checkpointing(enable, checkpointing_routed(gradient_checkpointing_func), **kwargs)
