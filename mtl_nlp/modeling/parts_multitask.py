"""Methods of a multitask model that add, remove, freeze and merge its tasks and adapters."""

from __future__ import annotations

import copy
import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from torch import nn
from transformers.utils import is_peft_available

from .adapters_multitask import (
    SHARED,
    adapter_parameters,
    delete_adapter,
    merged_state,
    peft_adapter_name,
)
from .heads_multitask import TaskHead
from .layers_multitask import encoder_part, is_encoder_part
from .saving_multitask import SavedModel
from .tasks_multitask import Task

if TYPE_CHECKING and is_peft_available():  # without the call, transformers would require PEFT for every model
    from peft import LoraConfig

_MOST_LABELS = 8
"""The number of labels of a task that a model shows."""


class ModelParts(SavedModel):
    """A model whose tasks and adapters can be added, removed, frozen and merged.

    Attributes:
        config: the configuration, which every method keeps up to date.
        tasks: the tasks by name, in the order of the heads.
        encoder: the shared encoder.
        heads: the heads, one per task.
    """

    tasks: dict[str, Task]
    encoder: nn.Module
    heads: nn.ModuleList

    @property
    def heads_by_task(self) -> dict[str, TaskHead]:
        """The head of each task."""
        return dict(zip(self.tasks, self.heads, strict=True))

    @property
    def adapter_names(self) -> list[str]:
        """Names of the adapters in the order in which they were added. A name is a task or `shared`."""
        return [options["name"] for options in self.config.adapters or ()]

    def adapters_of(self, task: str) -> tuple[str, ...]:
        """Return the adapters that apply to a task's rows, by their names in PEFT layers."""
        if not self.config.adapters:  # asked for each task in each step
            return ()
        return tuple(peft_adapter_name(name) for name in self.adapter_names if name in {SHARED, task})

    def __repr__(self) -> str:
        """Return the sizes of the encoder and of each task's head. `model.encoder` shows its layers."""
        size = sum(parameter.numel() for parameter in self.parameters())
        lines = [f"{type(self).__name__}({size:,} parameters)", f"  encoder: {type(self.encoder).__name__}"]
        for name, head in self.heads_by_task.items():
            task, own = self.tasks[name], sum(parameter.numel() for parameter in head.parameters())
            labels = ", ".join([*task.labels[:_MOST_LABELS], *(["…"] if len(task.labels) > _MOST_LABELS else [])])
            shown = f", {len(task.labels)} labels ({labels})" if task.labels else ""
            lines.append(f"  head {name}: {task.type}{shown}, {own:,} parameters")
        return "\n".join([*lines, *(f"  adapter {name}" for name in self.adapter_names)])

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(repr(self))}</pre>"

    def add_adapter(self, adapter_config: LoraConfig, adapter_name: str = SHARED) -> None:
        """Add an adapter to one task, or a shared adapter to all tasks. A task with both uses their sum.

        The new adapter does not change the outputs, and its weights are trainable. Existing parameters stay trainable
        or frozen; to train only adapters and heads, call `freeze("encoder")` first.

        Args:
            adapter_config: the configuration. The supported options are `r`, `lora_alpha`, `lora_dropout`,
                `target_modules` (names of linear layers, or `all-linear`; by default PEFT's for the family),
                `use_rslora` and `use_dora`.
            adapter_name: the name of a task, or `shared`.

        Raises:
            ValueError: if the task does not exist, the adapter already exists, or the options do not fit the encoder or
                the existing adapters.
            ImportError: if PEFT is not installed.
        """
        from .lora_multitask import adapter_options, inject_adapter  # needs PEFT

        if adapter_name not in {SHARED, *self.tasks}:
            raise ValueError(
                f"`adapter_name` should be `shared` or a task of the model ({', '.join(self.tasks)}). "
                f"Found {adapter_name!r}."
            )
        if adapter_name in self.adapter_names:
            raise ValueError(
                f"The model already has an adapter {adapter_name!r}. Remove it with `delete_adapter` first."
            )
        options = {"name": adapter_name, **adapter_options(self.encoder, adapter_config)}
        config = copy.deepcopy(self.config)
        config.adapters = [*(config.adapters or []), options]
        config.__post_init__()
        inject_adapter(self.encoder, peft_adapter_name(adapter_name), options)
        self.config.adapters = config.adapters

    def delete_adapter(self, adapter_names: str | Sequence[str]) -> None:
        """Remove adapters. Their tasks then use only the encoder, and the shared adapter if it exists.

        Args:
            adapter_names: one or more names of tasks, or `shared`.

        Raises:
            ValueError: if an adapter does not exist.
        """
        for name in [adapter_names] if isinstance(adapter_names, str) else adapter_names:
            if name not in self.adapter_names:
                raise ValueError(f"No adapter {name!r}. The model has {', '.join(self.adapter_names) or 'none'}.")
            delete_adapter(self.encoder, peft_adapter_name(name))
            self.config.adapters = [
                options for options in self.config.adapters or () if options["name"] != name
            ] or None

    def add_task(self, task: Task) -> None:
        """Add a task with a new head. If the head has a pooler, the pooler is not pretrained.

        Raises:
            ValueError: if the name of the task is already used, or the task has no labels.
        """
        config = copy.deepcopy(self.config)
        config.tasks = [*config.get_tasks(), task]
        config.__post_init__()
        check_labels(task)
        head = TaskHead(task, config.text_config).to(self.device, self.dtype)
        if head.has_stock_class:
            head.stock.initialize_weights()
        head.apply(self._init_weights)
        self.heads.append(head.train(self.training))
        self.tasks[task.name] = task
        self.config.tasks = config.tasks

    def drop_task(self, name: str) -> None:
        """Remove a task with its head and its adapter.

        Raises:
            ValueError: if the task does not exist, or is the only task.
        """
        if name not in self.tasks:
            raise ValueError(f"No task {name!r}. The model has {', '.join(self.tasks)}.")
        if len(self.tasks) == 1:
            raise ValueError(f"{name!r} cannot be dropped, since it is the only task of the model.")
        if name in self.adapter_names:
            self.delete_adapter(name)
        self.config.splits_words = self.config.reads_words
        del self.heads[list(self.tasks).index(name)]
        del self.tasks[name]
        self.trained_heads -= {name}
        self.config.tasks = [task.to_dict() for task in self.tasks.values()]
        self.config.pair_tasks = [each for each in self.config.pair_tasks or () if each != name] or None

    def replace_task(self, task: Task) -> None:
        """Replace a task by a task with the same name, type and labels, and with different options; the head is kept.

        Raises:
            ValueError: if the model has no such task.
        """
        old = self.tasks.get(task.name)
        if old is None or (old.type, old.labels) != (task.type, task.labels):
            raise ValueError(f"The model has no {task.type} task {task.name!r} with the same labels.")
        check_labels(task)
        self.tasks[task.name] = task
        self.heads_by_task[task.name].kind = task.kind
        self.config.tasks = [each.to_dict() for each in self.tasks.values()]

    def parameters_of(self, part: str) -> list[nn.Parameter]:
        """Return the parameters of a part of the model.

        Args:
            part: a task, for the task's head and adapter; `encoder`, for the encoder and the shared adapter; or
                `embeddings`, `layers A-B` or `layers N` of the encoder, without adapters. The lowest layer has the
                number 0, and `layers A-B` includes layer B.

        Raises:
            ValueError: if the part does not exist, is also the name of a task, or the layers of the encoder's family
                are unknown.
        """
        if part == "encoder":
            own = set(adapter_parameters(self.encoder, map(peft_adapter_name, set(self.adapter_names) - {SHARED})))
            return [parameter for parameter in self.encoder.parameters() if parameter not in own]
        if is_encoder_part(part):
            if part in self.tasks:
                raise ValueError(f"{part!r} is the name of a task and of a part of the encoder. Rename the task.")
            return encoder_part(self.encoder, part)
        if part not in self.tasks:
            raise ValueError(
                f"No part {part!r}. The model has encoder, {', '.join(self.tasks)}, and as parts of the encoder: "
                f"embeddings, layers A-B."
            )
        head = self.heads_by_task[part]
        return [*head.parameters(), *adapter_parameters(self.encoder, [peft_adapter_name(part)])]

    def freeze(self, *parts: str) -> None:
        """Exclude parts of the model from training, see `parameters_of`.

        Raises:
            ValueError: if a part does not exist.
        """
        for part in parts:
            for parameter in self.parameters_of(part):
                parameter.requires_grad_(False)

    def merge_and_unload(self, task: str) -> Self:
        """Return a copy of the model with one task, whose adapters are merged into the encoder.

        The logits are equal up to rounding, and the merged model runs at the speed of a model without adapters.

        Raises:
            ValueError: if the task does not exist.
        """
        if task not in self.tasks:
            raise ValueError(f"No task {task!r}. The model has {', '.join(self.tasks)}.")
        config = copy.deepcopy(self.config)
        config.tasks, config.adapters, config.splits_words = [self.tasks[task].to_dict()], None, config.reads_words
        config.pair_tasks = None  # the only task is always answered
        merged = type(self)(config).to(self.device, self.dtype).train(self.training)
        merged.encoder.load_state_dict(merged_state(self.encoder, self.adapters_of(task)))
        merged.heads[0].load_state_dict(self.heads_by_task[task].state_dict())
        return merged


def check_labels(task: Task) -> None:
    """Check that a task has labels, and the class weights that it asks for.

    Raises:
        ValueError: if the task has no labels, or statistics of the training labels are missing.
    """
    if task.num_labels == 0:
        raise ValueError(f"Task {task.name!r} has no labels. Give its label space before building the model.")
    if task.needs_statistics and task.missing_statistics is not None:
        raise ValueError(
            f"Task {task.name!r}: `{task.missing_statistics}` needs the training labels. Build the model with the "
            f"task that `mtl_nlp.data.learn_tasks` returns."
        )
