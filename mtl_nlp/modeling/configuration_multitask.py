"""The configuration of a multitask model: the encoder's own configuration and the list of tasks."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from .tasks_multitask import Task, reads_words, task_from_dict

_CHOOSES_CODE = {
    "trust_remote_code",
    "attn_implementation",
    "_attn_implementation",
    "experts_implementation",
    "_experts_implementation",
}
"""Keys by which a `config.json` could name code for transformers to fetch and run, such as a kernel on the Hub."""

ADAPTER_OPTIONS: dict[str, Any] = {
    "r": int,
    "lora_alpha": int | float,
    "lora_dropout": int | float,
    "target_modules": list | str,
    "use_rslora": bool,
    "use_dora": bool,
}
"""The options of an adapter, all of them PEFT's, and their types; `target_modules` is a list, or `all-linear`."""


class MultitaskConfig(PreTrainedConfig):
    """Configuration of a [`MultitaskModel`].

    Args:
        text_config (`PreTrainedConfig` or `dict`): the encoder's configuration. The name is the one under which
            transformers looks for the text part of a composite model, so that `resize_token_embeddings` keeps its
            vocabulary size in step.
        tasks (`list[dict]` or `list[Task]`): the tasks in the order of the heads. A list, because `config.json` is
            written with sorted keys and a dict would come back in another order.
        max_length (`int`, *optional*): sub-words the encoder reads at once, special tokens included.
        stride (`int`, *optional*): sub-words that neighbouring windows of a long text share.
        splits_words (`bool`, *optional*): whether texts are split into words also if no task is on words: a model that
            lost its last such task goes on reading what it was trained on.
        adapters (`list[dict]`, *optional*): the encoder's LoRAs in the order in which they were added: `name`, a task
            or `shared` for all tasks, and options of PEFT's `LoraConfig`. See `MultitaskModel.add_adapter`.

    Raises:
        ValueError: if two tasks have one name, a task is not valid, or adapters are not of the tasks.
    """

    model_type = "multitask-encoder"
    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="bert")
    }

    text_config: Any = None
    tasks: list | None = None
    max_length: int | None = None
    stride: int | None = None
    splits_words: bool = False
    adapters: list | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        """Complete the nested configuration and check the tasks."""
        super().__post_init__(**kwargs)
        tasks = [task if isinstance(task, Task) else task_from_dict(task) for task in self.tasks or []]
        names = [task.name for task in tasks]
        if len(set(names)) < len(names):
            raise ValueError(f"Task names must be unique. Found {names}.")
        self.tasks = [task.to_dict() for task in tasks]
        for options in self.adapters or []:
            _check_adapter(options)
        adapters = [options["name"] for options in self.adapters or []]
        known = len(set(adapters)) == len(adapters) and set(adapters) <= {*names, "shared"}
        if not known or (adapters and "shared" in names):
            raise ValueError(
                f"Adapters should have the names of tasks ({', '.join(names)}) or `shared`, which then no task may "
                f"have. Found {adapters}."
            )
        if "shared" in adapters and any(options["use_dora"] for options in self.adapters or []):
            raise ValueError("DoRA adapters do not add up: `use_dora` goes without a shared adapter.")
        if "shared" in adapters and len({options["lora_dropout"] for options in self.adapters or []}) > 1:
            raise ValueError("A row's adapters drop out together: with a shared one, all have one `lora_dropout`.")

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """The configuration that a `config.json` holds, but for what the user alone may choose: which code runs."""
        chosen = {key: value for key, value in config_dict.items() if key not in _CHOOSES_CODE}
        encoder = chosen.get("text_config")
        if isinstance(encoder, dict):
            chosen["text_config"] = _without(encoder, {*_CHOOSES_CODE, "auto_map", "custom_pipelines"})
        return super().from_dict(chosen, **kwargs)

    def get_tasks(self) -> list[Task]:
        """The tasks as objects, in the order of the heads."""
        return [task_from_dict(task) for task in self.tasks or []]

    @property
    def reads_words(self) -> bool:
        """Whether every text is split into words before tokenization, see `reads_words`."""
        return self.splits_words or reads_words(self.get_tasks())


def _check_adapter(options: Any) -> None:
    """See that an adapter's options are those of `MultitaskModel.add_adapter`: a `config.json` may hold anything."""
    valid = isinstance(options, dict) and options.keys() == {"name", *ADAPTER_OPTIONS}
    valid = valid and all(isinstance(options[key], kind) for key, kind in {"name": str, **ADAPTER_OPTIONS}.items())
    if valid and isinstance(options["target_modules"], list):
        valid = all(isinstance(name, str) for name in options["target_modules"])
    elif valid:
        valid = options["target_modules"] == "all-linear"
    if not (valid and options["r"] >= 1 and 0.0 <= options["lora_dropout"] < 1.0):
        raise ValueError(f"An adapter should have `name`, `{'`, `'.join(ADAPTER_OPTIONS)}`. Found {options!r:.200}.")


def _without(values: Any, keys: set[str]) -> Any:
    """Plain data without some keys, however deep they are."""
    if isinstance(values, dict):
        return {key: _without(value, keys) for key, value in values.items() if key not in keys}
    return [_without(value, keys) for value in values] if isinstance(values, list) else values
