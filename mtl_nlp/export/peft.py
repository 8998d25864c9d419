"""The export of one task as a PEFT adapter of a stock transformers model."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from peft import LoraConfig, TaskType, get_peft_model
from transformers import AutoModel, PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from mtl_nlp.errors import ExportError
from mtl_nlp.export.stock import (
    check_exportable,
    export_stock,
    reads_last_sub_word,
    stock_model,
    stock_tokenizer,
)
from mtl_nlp.modeling.adapters_multitask import low_rank_factors, peft_adapter_name
from mtl_nlp.modeling.modeling_multitask import MultitaskModel


def export_peft(
    model: MultitaskModel, tokenizer: PreTrainedTokenizerBase, task_name: str, folder: Path, base: str | None = None
) -> str:
    """Write one task as a PEFT adapter of its stock class: the LoRA, the head, and the tokenizer.

    `PeftModel.from_pretrained(AutoModelFor….from_pretrained(base, num_labels=…), folder)` computes the task's logits.
    The LoRA includes a shared adapter, so that its rank is the sum of both ranks.

    Args:
        model: the multitask model.
        tokenizer: the tokenizer of the model.
        task_name: the task.
        folder: the folder to write.
        base: the Hub id or folder of the pretrained encoder.

    Returns:
        The base model: `base` if the model's encoder has the same weights as `base`, and the configuration of `base`
        has all that the stock class reads. Otherwise the encoder is written to `folder/base`, which is returned.

    Raises:
        ExportError: if the task does not exist or has no adapter, a weight is not finite, or no stock class computes
            the same logits in the precision of the model.
    """
    check_exportable(model)
    names = model.adapters_of(task_name)
    if task_name in model.tasks and not names:
        raise ExportError(f"--task {task_name}: this task has no adapter. Export it with --format transformers.")
    plain = copy.deepcopy(model)
    plain.delete_adapter(model.adapter_names)
    stock = stock_model(plain, task_name, tokenizer)
    if stock.dtype != model.dtype:
        raise ExportError(
            f"--task {task_name}: {model.dtype} cannot hold numbers with this mean and deviation, and the adapter is "
            f"for a base in this precision. Export the task with --format transformers, which writes float32."
        )
    if base is None or not _is_base_of(stock, base, needs_padding=reads_last_sub_word(plain, task_name)):
        base = str(folder / "base")
        export_stock(plain, tokenizer, task_name, Path(base))
    prefix = stock.base_model_prefix
    factors = low_rank_factors(model.encoder, names)
    rank = max(sum(len(down) for down, _ in of_layer) for of_layer in factors.values())
    adapter_config = LoraConfig(
        task_type=TaskType(model.tasks[task_name].kind.peft_task_type),
        r=rank,
        lora_alpha=rank,  # a scale of 1, since lora_B includes the scale of each adapter
        target_modules=[f"{prefix}.{name}" for name in factors],
        modules_to_save=_head_modules(stock),
        fan_in_fan_out=any(isinstance(stock.get_submodule(f"{prefix}.{name}"), Conv1D) for name in factors),
        use_dora=any(
            options["use_dora"]
            for options in model.config.adapters or ()
            if peft_adapter_name(options["name"]) in names
        ),
        inference_mode=True,
    )
    with _silent_about_a_deprecated_name():
        adapted = get_peft_model(stock, adapter_config)
    for name, of_layer in factors.items():
        layer, own = stock.get_submodule(f"{prefix}.{name}"), model.encoder.get_submodule(name)
        missing = rank - sum(len(down) for down, _ in of_layer)
        layer.lora_A["default"].weight.data = F.pad(torch.cat([down for down, _ in of_layer]), (0, 0, 0, missing))
        layer.lora_B["default"].weight.data = F.pad(torch.cat([up for _, up in of_layer], dim=1), (0, missing))
        for of_task, magnitude in own.lora_magnitude_vector.items():
            if of_task in names:
                layer.lora_magnitude_vector["default"].weight.data = magnitude.weight
    adapted.peft_config["default"].base_model_name_or_path = base
    with _silent_about_a_deprecated_name():
        adapted.save_pretrained(str(folder), save_embedding_layers=False)
    stock_tokenizer(plain, task_name, tokenizer).save_pretrained(folder)
    return base


@contextlib.contextmanager
def _silent_about_a_deprecated_name() -> Iterator[None]:
    """Ignore the warning about a deprecated attribute of transformers that PEFT uses."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield


def _head_modules(stock: PreTrainedModel) -> list[str]:
    """Return the modules of a stock class's head, except modules that PEFT saves by default."""
    pooler = f"{stock.base_model_prefix}.pooler"
    own = [
        name for name, module in stock.named_children() if name != stock.base_model_prefix and [*module.parameters()]
    ]
    own += [pooler] if any(name == pooler for name, _ in stock.named_modules()) else []
    return [name for name in own if name not in {"classifier", "score"}]


def _is_base_of(stock: PreTrainedModel, base: str, *, needs_padding: bool) -> bool:
    """Return whether a pretrained encoder is bit-equal to the encoder of a stock model, with the same configuration.

    Args:
        stock: the stock model.
        base: the Hub id or folder of the encoder.
        needs_padding: whether the stock class reads the padding id, which the configurations of decoders often lack.
    """
    try:
        pretrained = AutoModel.from_pretrained(base, dtype=stock.dtype, trust_remote_code=False)
    except (OSError, ValueError):
        return False
    # PEFT does not store the pooling of ModernBERT's head (first sub-word or mean): it comes from the base's config.
    read = ["classifier_pooling", *(["pad_token_id"] if needs_padding else [])]
    options = [[config.to_dict().get(key) for key in read] for config in (pretrained.config, stock.config)]
    own, theirs = (
        {name: tensor for name, tensor in encoder.state_dict().items() if not name.startswith("pooler.")}
        for encoder in (stock.base_model, pretrained)
    )
    return (
        options[0] == options[1]
        and own.keys() == theirs.keys()
        and all(torch.equal(own[name], theirs[name]) for name in own)
    )
