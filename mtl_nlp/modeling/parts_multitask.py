"""The parts of a multitask model: tasks with their heads, and adapters, added, removed, frozen and merged."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from torch import nn
from transformers import PreTrainedModel
from transformers.utils import is_peft_available

from .adapters_multitask import (
    SHARED,
    adapter_parameters,
    delete_adapter,
    merged_state,
    peft_adapter_name,
)
from .configuration_multitask import MultitaskConfig
from .heads_multitask import TaskHead
from .tasks_multitask import Task

if TYPE_CHECKING and is_peft_available():  # the call keeps transformers from demanding PEFT for every model
    from peft import LoraConfig


class ModelParts(PreTrainedModel):
    """A model whose tasks and adapters can be added, removed, frozen and merged.

    Attributes:
        config: the configuration, which follows every change.
        tasks: the tasks by name, in the order of the heads.
        encoder: the shared encoder.
        heads: the heads.
    """

    config: MultitaskConfig
    tasks: dict[str, Task]
    encoder: nn.Module
    heads: nn.ModuleList

    @property
    def heads_by_task(self) -> dict[str, TaskHead]:
        """The head of each task."""
        return dict(zip(self.tasks, self.heads, strict=True))

    @property
    def adapter_names(self) -> list[str]:
        """The tasks that have an adapter of their own, and `shared` if there is one of all tasks."""
        return [options["name"] for options in self.config.adapters or ()]

    def adapters_of(self, task: str) -> tuple[str, ...]:
        """The adapters that a task's rows go through, by the names that PEFT's layers know them by."""
        return tuple(peft_adapter_name(name) for name in self.adapter_names if name in {SHARED, task})

    def add_adapter(self, adapter_config: LoraConfig, adapter_name: str = SHARED) -> None:
        """Give a task an adapter of its own, or all tasks a shared one; a task with both goes through their sum.

        It starts as no change. All that was trainable stays so; `freeze("encoder")` leaves adapters and heads.

        Args:
            adapter_config: its `r`, `lora_alpha`, `lora_dropout`, `target_modules` (names of linear layers, or
                `all-linear`; PEFT's for the family by default), `use_rslora` and `use_dora`.
            adapter_name: a task, or `shared`.

        Raises:
            ValueError: if there is no such task, it has one, or the options do not fit the encoder.
        """
        from .lora_multitask import adapter_options, inject_adapter  # needs PEFT

        if adapter_name not in {SHARED, *self.tasks}:
            raise ValueError(f"No task {adapter_name!r} to adapt to. The model has {', '.join(self.tasks)}.")
        if adapter_name in self.adapter_names:
            raise ValueError(f"{adapter_name!r} has an adapter. Take it out with `delete_adapter`.")
        options = {"name": adapter_name, **adapter_options(self.encoder, adapter_config)}
        config = copy.deepcopy(self.config)
        config.adapters = [*(config.adapters or []), options]
        config.__post_init__()
        inject_adapter(self.encoder, peft_adapter_name(adapter_name), options)
        self.config.adapters = config.adapters

    def delete_adapter(self, adapter_names: str | Sequence[str]) -> None:
        """Take adapters out: their tasks read the plain encoder, or the shared adapter's.

        Args:
            adapter_names: tasks, or `shared`.

        Raises:
            ValueError: if there is no such adapter.
        """
        for name in [adapter_names] if isinstance(adapter_names, str) else adapter_names:
            if name not in self.adapter_names:
                raise ValueError(f"No adapter {name!r}. The model has {', '.join(self.adapter_names) or 'none'}.")
            delete_adapter(self.encoder, peft_adapter_name(name))
            self.config.adapters = [
                options for options in self.config.adapters or () if options["name"] != name
            ] or None

    def add_task(self, task: Task) -> None:
        """Add a task with a new head, whose pooler, where the family has one, is new too.

        Raises:
            ValueError: if a task has its name, or it has no labels.
        """
        config = copy.deepcopy(self.config)
        config.tasks = [*config.get_tasks(), task]
        config.__post_init__()
        check_labels(task)
        head = TaskHead(task, config.text_config).to(self.device, self.dtype)
        if head.has_stock_class:
            head.stock.initialize_weights()
        else:
            self._init_weights(head.plain)
        self.heads.append(head.train(self.training))
        self.tasks[task.name] = task
        self.config.tasks = config.tasks

    def drop_task(self, name: str) -> None:
        """Take a task out, with its head and its adapter.

        Raises:
            ValueError: if there is no such task, or no other.
        """
        if name not in self.tasks or len(self.tasks) == 1:
            raise ValueError(f"No task {name!r} beside others. The model has {', '.join(self.tasks)}.")
        if name in self.adapter_names:
            self.delete_adapter(name)
        self.config.splits_words = self.config.reads_words
        del self.heads[list(self.tasks).index(name)]
        del self.tasks[name]
        self.config.tasks = [task.to_dict() for task in self.tasks.values()]

    def parameters_of(self, part: str) -> list[nn.Parameter]:
        """A part's parameters: a task's head and adapter, or of `encoder` all that tasks share, the shared adapter too.

        Raises:
            ValueError: if there is no such task.
        """
        if part == "encoder":
            own = set(adapter_parameters(self.encoder, map(peft_adapter_name, set(self.adapter_names) - {SHARED})))
            return [parameter for parameter in self.encoder.parameters() if parameter not in own]
        if part not in self.tasks:
            raise ValueError(f"No part {part!r}. The model has encoder, {', '.join(self.tasks)}.")
        head = self.heads_by_task[part]
        return [*head.parameters(), *adapter_parameters(self.encoder, [peft_adapter_name(part)])]

    def freeze(self, *parts: str) -> None:
        """Leave parts out of training, see `parameters_of`."""
        for part in parts:
            for parameter in self.parameters_of(part):
                parameter.requires_grad_(False)

    def merge_and_unload(self, task: str) -> Self:
        """A model of one task, whose adapters are merged into its plain encoder: the same logits at plain speed.

        Raises:
            ValueError: if there is no such task.
        """
        if task not in self.tasks:
            raise ValueError(f"No task {task!r}. The model has {', '.join(self.tasks)}.")
        config = copy.deepcopy(self.config)
        config.tasks, config.adapters, config.splits_words = [self.tasks[task].to_dict()], None, config.reads_words
        merged = type(self)(config).to(self.device, self.dtype).train(self.training)
        merged.encoder.load_state_dict(merged_state(self.encoder, self.adapters_of(task)))
        merged.heads[0].load_state_dict(self.heads_by_task[task].state_dict())
        return merged


def check_labels(task: Task) -> None:
    if task.num_labels == 0:
        raise ValueError(f"Task {task.name!r} has no labels. Give its label space before building the model.")
