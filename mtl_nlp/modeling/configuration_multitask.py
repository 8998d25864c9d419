"""The configuration of a multitask model: the encoder's own configuration and the list of tasks."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from .checks_multitask import check_values
from .tasks_multitask import Task, reads_words, task_from_dict

_CODE_KEYS = {
    "trust_remote_code",
    "attn_implementation",
    "_attn_implementation",
    "experts_implementation",
    "_experts_implementation",
}
"""Keys with which a `config.json` could make transformers download and run code, such as a kernel from the Hub."""

ADAPTER_OPTIONS: dict[str, Any] = {
    "r": int,
    "lora_alpha": int | float,
    "lora_dropout": int | float,
    "target_modules": list | str,
    "use_rslora": bool,
    "use_dora": bool,
}
"""Options of an adapter, from PEFT's `LoraConfig`, and their types. `target_modules` is a list or `all-linear`."""


class MultitaskConfig(PreTrainedConfig):
    """Configuration of a [`MultitaskModel`].

    Args:
        text_config (`PreTrainedConfig` or `dict`): the encoder's configuration. Transformers expects the text part of
            a composite model under this name, so that `resize_token_embeddings` updates its vocabulary size.
        tasks (`list[dict]` or `list[Task]`): the tasks in the order of the heads. The tasks are a list because
            `config.json` has sorted keys, so that a dict would not keep the order.
        max_length (`int`, *optional*): maximum number of sub-words per window, including special tokens.
        stride (`int`, *optional*): number of sub-words that neighbouring windows of a long text share.
        splits_words (`bool`, *optional*): whether texts are split into words even if no task labels words. A model
            without its last word task keeps reading texts as in training.
        pair_tasks (`list[str]`, *optional*): the tasks whose training rows were pairs of texts. The pipeline does not
            answer them for a single text unless asked to.
        adapters (`list[dict]`, *optional*): the encoder's adapters in the order in which they were added. Each has a
            `name` (a task, or `shared` for all tasks) and options of PEFT's `LoraConfig`. See
            `MultitaskModel.add_adapter`.
        weights_sha256 (`str`, *optional*): the SHA-256 of the files of weights, see [`SavedModel`].

    Raises:
        ValueError: if a value has a different type or a number is out of range, two tasks have the same name, a task or
            an adapter is not valid, an adapter is not named after a task, or the adapters cannot be combined.
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
    pair_tasks: list | None = None
    adapters: list | None = None
    weights_sha256: str | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        """Complete the nested configuration and check the tasks."""
        _check_types(self)
        super().__post_init__(**kwargs)
        self.text_config.return_dict = True  # the model reads the output of the encoder by name
        if self.text_config.chunk_size_feed_forward not in {0, 1}:
            raise ValueError(
                f"`chunk_size_feed_forward` should be 0 or 1, since texts have any number of sub-words. Found "
                f"{self.text_config.chunk_size_feed_forward!r:.80}."
            )
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
                f"Each adapter should have a different name: a task ({', '.join(names)}) or `shared`. A model with "
                f"adapters should have no task named `shared`. Found the adapters {adapters}."
            )
        if "shared" in adapters and any(options["use_dora"] for options in self.adapters or []):
            raise ValueError(
                "DoRA adapters cannot be added up, so `use_dora` does not work with a shared adapter. Use only one of "
                "the two."
            )
        dropouts = sorted({options["lora_dropout"] for options in self.adapters or []})
        if "shared" in adapters and len(dropouts) > 1:
            raise ValueError(
                "The adapters of a row share one dropout mask, so in a model with a shared adapter all adapters should "
                f"have the same `lora_dropout`. Found {', '.join(map(str, dropouts))}."
            )

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Build the configuration from the contents of a `config.json`.

        Keys that choose code to run are ignored, since only the user may choose such code.

        Raises:
            ValueError: if a value is not valid; see the class.
        """
        check_values(config_dict)
        chosen = {key: value for key, value in config_dict.items() if key not in _CODE_KEYS}
        encoder = chosen.get("text_config")
        if isinstance(encoder, dict):
            chosen["text_config"] = _without_keys(encoder, {*_CODE_KEYS, "auto_map", "custom_pipelines"})
        return super().from_dict(chosen, **kwargs)

    def get_tasks(self) -> list[Task]:
        """Return the tasks as objects, in the order of the heads."""
        return [task_from_dict(task) for task in self.tasks or []]

    @property
    def reads_words(self) -> bool:
        """Whether texts are split into words before tokenization, see `tasks_multitask.reads_words`."""
        return self.splits_words or reads_words(self.get_tasks())


def _check_types(config: MultitaskConfig) -> None:
    """Check the types of the fields, since a `config.json` may contain anything."""
    encoder = config.text_config
    if isinstance(encoder, dict) and not isinstance(encoder.get("model_type"), str):
        raise ValueError(f"`text_config` should have a `model_type`. Found {encoder.get('model_type')!r:.80}.")
    if isinstance(encoder, dict) and encoder["model_type"] not in CONFIG_MAPPING:
        raise ValueError(
            f"`text_config`: transformers has no model of the type {encoder['model_type']!r:.80}. For an encoder with "
            f"code of its own, first import the module that registers its classes."
        )
    for key, value, valid, rule in (
        ("text_config", encoder, isinstance(encoder, dict | PreTrainedConfig | None), "an object"),
        ("tasks", config.tasks, isinstance(config.tasks, list | tuple | None), "a list"),
        ("pair_tasks", config.pair_tasks, _is_list_of_names(config.pair_tasks), "a list of names of tasks, or null"),
        ("adapters", config.adapters, isinstance(config.adapters, list | tuple | None), "a list"),
        ("max_length", config.max_length, _is_integer(config.max_length, 1), "an integer of at least 1, or null"),
        ("stride", config.stride, _is_integer(config.stride, 0), "an integer of at least 0, or null"),
        ("splits_words", config.splits_words, isinstance(config.splits_words, bool), "true or false"),
    ):
        if not valid:
            raise ValueError(f"`{key}` should be {rule}. Found {value!r:.80}.")


def _is_list_of_names(value: Any) -> bool:
    return value is None or (isinstance(value, list | tuple) and all(isinstance(name, str) for name in value))


def _is_integer(value: Any, least: int) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= least)


def _check_adapter(options: Any) -> None:
    """Check the options of an adapter, since a `config.json` may contain anything."""
    valid = isinstance(options, dict) and options.keys() == {"name", *ADAPTER_OPTIONS}
    valid = valid and all(isinstance(options[key], kind) for key, kind in {"name": str, **ADAPTER_OPTIONS}.items())
    if valid and isinstance(options["target_modules"], list):
        valid = all(isinstance(name, str) for name in options["target_modules"])
    elif valid:
        valid = options["target_modules"] == "all-linear"
    if not (valid and options["r"] >= 1 and 0.0 <= options["lora_dropout"] < 1.0):
        raise ValueError(
            f"An adapter should have `name`, `{'`, `'.join(ADAPTER_OPTIONS)}`, each with a value of its type, an `r` "
            f"of at least 1 and a `lora_dropout` of at least 0 and below 1. Found {options!r:.200}."
        )


def _without_keys(values: Any, keys: set[str]) -> Any:
    """Return a copy of nested dicts and lists without the given keys at any depth."""
    if isinstance(values, dict):
        return {key: _without_keys(value, keys) for key, value in values.items() if key not in keys}
    return [_without_keys(value, keys) for value in values] if isinstance(values, list) else values
