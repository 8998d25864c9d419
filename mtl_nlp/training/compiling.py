"""The compilation of the encoder with `torch_compile: true`."""

from __future__ import annotations

from accelerate import Accelerator
from accelerate.utils import DynamoBackend
from torch._dynamo.utils import counters

from mtl_nlp.modeling.modeling_multitask import MultitaskModel
from mtl_nlp.training.arguments import MultitaskTrainingArguments


def compile_encoder(model: MultitaskModel, args: MultitaskTrainingArguments, accelerator: Accelerator) -> None:
    """Compile the encoder of a model if `torch_compile` is set, instead of the complete model.

    The number of rows of a head changes from batch to batch, and a compiled head would be compiled again and again.

    Args:
        model: the model.
        args: the training arguments.
        accelerator: the accelerator, which does not compile the model any more.

    Raises:
        ValueError: if the model has adapters, whose groups of rows change from batch to batch in every layer.
    """
    if not args.torch_compile:
        return
    if model.adapter_names:
        raise ValueError(
            "`torch_compile` does not support adapters: each batch has other numbers of rows per adapter, and every "
            "layer would be compiled again. Leave out `torch_compile`."
        )
    accelerator.state.dynamo_plugin.backend = DynamoBackend.NO
    model.encoder.compile(backend=args.torch_compile_backend, mode=args.torch_compile_mode)


def count_compilations() -> int:
    """Return the number of graphs that this process has compiled."""
    return int(counters["stats"]["unique_graphs"])
