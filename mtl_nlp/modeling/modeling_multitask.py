"""The multitask model: one encoder, one head a task."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers import initialization as init
from transformers.models.auto.modeling_auto import MODEL_MAPPING
from transformers.utils import ModelOutput

from .configuration_multitask import MultitaskConfig
from .heads_multitask import PlainHead, TaskHead, count_units
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


@dataclass(frozen=True)
class StepCounts:
    """How many labels one optimizer step holds, over all micro-batches and processes.

    Attributes:
        rows: N, rows in all.
        task_rows: n_t, rows that carry a label of task t.
        units: u_t, labelled units (words, texts) of task t.
    """

    rows: int
    task_rows: dict[str, int]
    units: dict[str, int]

    def __add__(self, other: StepCounts) -> StepCounts:
        """The counts of both together."""

        def add(a: dict[str, int], b: dict[str, int]) -> dict[str, int]:
            return {task: a.get(task, 0) + b.get(task, 0) for task in {**a, **b}}

        return StepCounts(self.rows + other.rows, add(self.task_rows, other.task_rows), add(self.units, other.units))


def count_step(batches: Sequence[Mapping[str, Any]], tasks: Sequence[str]) -> StepCounts:
    """Count rows and labelled units of the given batches (each as the collator makes it)."""
    present = [(task, batch["labels"][task]) for batch in batches for task in tasks if len(batch["rows"][task])]
    # All of them at once: one wait for the device.
    found = torch.stack([count_units(labels) for _, labels in present]).tolist() if present else []
    units = dict.fromkeys(tasks, 0)
    for (task, _), count in zip(present, found, strict=True):
        units[task] += count
    return StepCounts(
        rows=sum(len(batch["input_ids"]) for batch in batches),
        task_rows={task: sum(len(batch["rows"][task]) for batch in batches) for task in tasks},
        units=units,
    )


def joint_loss(
    loss_sums: Mapping[str, torch.Tensor],
    counts: StepCounts,
    weights: Mapping[str, float] | None = None,
    scale: str = "rows",
) -> torch.Tensor:
    """The joint loss L = Σ_t w_t · (n_t / N) · CE_t / u_t, or this batch's share of it.

    For one task it is the mean loss that the stock classes compute. n_t / N makes a batch that mixes datasets and a
    row of batches of one dataset each the same objective in expectation, so the mixture sets how much a dataset
    counts. A task without labelled units adds zero, but touches its parameters.

    Args:
        loss_sums: CE_t of the micro-batch, scalars.
        counts: the counts of the whole step; with those of the micro-batch itself, its own mean.
        weights: w_t, 1 where a task is not named.
        scale: `rows` for the formula, `per_task` for the same without n_t / N.

    Returns:
        A scalar; the shares of a step's micro-batches add up to its loss.
    """
    factors = []
    for task in loss_sums:
        share = counts.task_rows[task] / max(counts.rows, 1) if scale == "rows" else 1.0
        factors.append((weights or {}).get(task, 1.0) * share / max(counts.units[task], 1))
    sums = torch.stack(list(loss_sums.values()))
    return (sums * torch.tensor(factors, dtype=sums.dtype, device=sums.device)).sum()


class _ZeroLoss(torch.autograd.Function):
    """Zero, with a gradient of zero for every input."""

    @staticmethod
    def forward(ctx: Any, *inputs: torch.Tensor) -> torch.Tensor:
        # Not the inputs: FSDP frees parameters between forward and backward.
        ctx.likes = [(value.shape, value.dtype, value.device) for value in inputs]
        return torch.zeros((), device=inputs[0].device)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(torch.zeros(shape, dtype=dtype, device=device) for shape, dtype, device in ctx.likes)


class MultitaskModel(PreTrainedModel):
    """A pretrained encoder that feeds one head for each task.

    Args:
        config: the encoder's configuration and the tasks, whose label spaces must be known.

    Raises:
        ValueError: if there is no task, or one has no labels.

    Example:
        >>> from mtl_nlp import MultitaskModel, TextClassification, TokenClassification
        >>> tasks = [
        ...     TokenClassification(name="pos", labels=["NOUN", "VERB"]),
        ...     TextClassification(name="topic", labels=["news", "sport"]),
        ... ]
        >>> model = MultitaskModel.from_encoder("bert-base-uncased", tasks)
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
            if task.num_labels == 0:
                raise ValueError(f"Task {task.name!r} has no labels. Give its label space before building the model.")
        self.encoder = AutoModel.from_config(config.text_config, **_no_pooler(config.text_config))
        # A list: task names such as "a.b" or "forward" are no valid keys of a ModuleDict.
        self.heads = nn.ModuleList([TaskHead(task, config.text_config) for task in self.tasks.values()])
        self.post_init()

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
        """One encoder pass over the batch, then every task's head over its rows.

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
        type_ids = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **type_ids).last_hidden_state
        heads = dict(zip(self.tasks, self.heads, strict=True))
        logits: dict[str, torch.Tensor] = {}
        idle = []
        for name in heads if tasks is None else tasks:
            if rows is not None and len(rows[name]) == 0:
                idle.append(name)
                words = [hidden.shape[1]] if self.tasks[name].level == "token" else []
                logits[name] = hidden.new_zeros(0, *words, self.tasks[name].num_labels)
            else:
                index = slice(None) if rows is None else rows[name]
                logits[name] = heads[name](hidden[index], attention_mask[index])
        if labels is None:
            return MultitaskOutput(logits=logits)
        if rows is None:
            rows = dict.fromkeys(logits, torch.arange(len(input_ids)))
        # Every process of a distributed run must touch every parameter. One operation does for sixty idle heads.
        zero = _ZeroLoss.apply(hidden, *(parameter for name in idle for parameter in heads[name].parameters()))
        loss_sums = {
            name: zero if name in idle else heads[name].loss_sum(logits[name], labels[name]) for name in logits
        }
        counts = count_step([{"input_ids": input_ids, "rows": rows, "labels": labels}], list(logits))
        return MultitaskOutput(loss=joint_loss(loss_sums, counts), logits=logits, loss_sums=loss_sums)


def _no_pooler(text_config: Any) -> dict[str, bool]:
    """The argument that leaves out the encoder's own pooler: heads have theirs, and an idle one gets no gradient."""
    encoder_class = MODEL_MAPPING.get(type(text_config), None)
    if encoder_class is not None and "add_pooling_layer" in inspect.signature(encoder_class.__init__).parameters:
        return {"add_pooling_layer": False}
    return {}


AutoConfig.register(MultitaskConfig.model_type, MultitaskConfig)
AutoModel.register(MultitaskConfig, MultitaskModel)
