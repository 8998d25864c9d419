"""A multitask model as one ONNX file: writing it, making it smaller, running it (extra `onnx`)."""

from __future__ import annotations

import contextlib
import copy
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime.capi import onnxruntime_pybind11_state as state
from onnxruntime.quantization import QuantType, quantize_dynamic
from transformers import PreTrainedTokenizerBase
from transformers.utils import cached_file

from mtl_nlp.errors import ExportError, ModelError
from mtl_nlp.hub.loading import load_config
from mtl_nlp.messages import one_line
from mtl_nlp.modeling.configuration_multitask import MultitaskConfig
from mtl_nlp.modeling.modeling_multitask import MultitaskModel, MultitaskOutput
from mtl_nlp.modeling.tasks_multitask import Task
from mtl_nlp.run_folder import ONNX_NAME

_EXAMPLE = (2, 8)
"""Batch and length that the model is traced with; both are free in the file."""

_BYTES_BELOW = 2_000_000_000
"""Protobuf, and so an ONNX file, ends at 2 GiB."""

_LOAD_ERRORS = (
    OSError,
    ValueError,
    state.Fail,
    state.InvalidArgument,
    state.InvalidGraph,
    state.InvalidProtobuf,
    state.NotImplemented,
    state.RuntimeException,
)


class OnnxMultitaskModel:
    """Runs a model that `export_onnx` wrote, wherever a pipeline takes a [`MultitaskModel`].

    Args:
        file: the ONNX file.
        config: the model's configuration.

    Attributes:
        config: the model's configuration.
        tasks: the tasks by name.

    Example:
        >>> from transformers import pipeline
        >>> from mtl_nlp.export.onnx import OnnxMultitaskModel
        >>> model = OnnxMultitaskModel.from_pretrained("ewt-onnx")
        >>> answer = pipeline("multitask", model=model, tokenizer="ewt-onnx")
        >>> [(span["word"], span["entity_group"]) for span in answer("Ada lives in Paris.")["ner"]]
        [('Ada', 'PER'), ('Paris', 'LOC')]
    """

    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(self, file: Path, config: MultitaskConfig) -> None:
        self.config = config
        self.tasks: dict[str, Task] = {task.name: task for task in config.get_tasks()}
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self.session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> OnnxMultitaskModel:
        """Load from a folder or a Hub repository.

        Raises:
            ModelError: if there is none, it is of another kind, or its files are damaged.
        """
        config = load_config(str(folder))
        try:
            model = cls(Path(cached_file(str(folder), ONNX_NAME)), config)
        except _LOAD_ERRORS as error:
            raise ModelError(
                f"{folder}: {ONNX_NAME} is damaged or cut off ({one_line(error)}). Export it again."
            ) from error
        if missing := model.tasks.keys() - {put.name for put in model.session.get_outputs()}:
            raise ModelError(f"{folder}: {ONNX_NAME} has no output for {', '.join(sorted(missing))}. Export it again.")
        return model

    def __call__(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        tasks: Sequence[str] | None = None,
    ) -> MultitaskOutput:
        """Logits of all rows for the tasks asked for; arguments and shapes as in `MultitaskModel.forward`."""
        given = {
            "input_ids": input_ids,
            "attention_mask": torch.ones_like(input_ids) if attention_mask is None else attention_mask,
            "token_type_ids": torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids,
        }
        feed = {put.name: given[put.name].numpy() for put in self.session.get_inputs()}
        names = list(self.tasks if tasks is None else tasks)
        found: list[np.ndarray] = self.session.run(names, feed)
        return MultitaskOutput(logits={name: torch.from_numpy(of) for name, of in zip(names, found, strict=True)})


class _Positional(torch.nn.Module):
    """The model with inputs and outputs as tuples, as an ONNX graph has them."""

    def __init__(self, model: MultitaskModel, inputs: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.inputs = inputs

    def forward(self, *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(self.model(**dict(zip(self.inputs, values, strict=True))).logits.values())


def export_onnx(
    model: MultitaskModel, tokenizer: PreTrainedTokenizerBase, folder: Path, *, int8: bool = False
) -> OnnxMultitaskModel:
    """Write `model.onnx`, `config.json` and the tokenizer to a folder.

    The file takes what the tokenizer makes (`input_ids`, `attention_mask`, and `token_type_ids` if the tokenizer makes
    them), of any batch and length, and has an output for each task, by its name.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        folder: where to write.
        int8: hold the weights of linear layers and embeddings as 8-bit integers, and quantize what they are multiplied
            with as it comes (onnxruntime's dynamic quantization).

    Raises:
        ExportError: if a task has the name of an input, the weights are too large for one file, or torch cannot trace
            the encoder.
    """
    # Tokenizers name token_type_ids only if their encoders read them.
    inputs = ["input_ids", "attention_mask"]
    inputs += ["token_type_ids"] if "token_type_ids" in tokenizer.model_input_names else []
    if taken := set(inputs) & set(model.tasks):
        raise ExportError(f"A task is named {taken.pop()!r}, as an input of the ONNX file is. Rename it.")
    size = 4 * sum(parameter.numel() for parameter in model.parameters())
    if size >= _BYTES_BELOW:
        raise ExportError(
            f"The weights take {size / 1e9:.1f} GB; one ONNX file holds less than {_BYTES_BELOW / 1e9:.0f}."
        )
    traced = _Positional(copy.deepcopy(model).float().cpu(), inputs).eval()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, _quietly():
        file = Path(scratch) / ONNX_NAME
        try:
            torch.onnx.export(
                traced,
                tuple(torch.ones(_EXAMPLE, dtype=torch.long) for _ in inputs),
                file,
                input_names=inputs,
                dynamic_shapes=(tuple({0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC} for _ in inputs),),
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            family = model.config.text_config.model_type
            raise ExportError(f"torch cannot trace a {family} encoder: {one_line(error.__cause__ or error)}") from error
        # With the weights, which lie beside it. Within, it has names such as "linear", as a task may be named too.
        graph = onnx.compose.add_prefix(onnx.load(file), "model/", rename_inputs=False, inplace=True)
        for part in (graph.graph, *graph.graph.node):
            part.ClearField("metadata_props")  # stack traces, with paths of this machine
        _hold_once(graph.graph)
        for output, task in zip(graph.graph.output, model.tasks, strict=True):
            graph.graph.node.append(onnx.helper.make_node("Identity", [output.name], [task]))
            output.name = task
        if int8:
            # The exporter's notes on shapes are at odds with what quantization infers after it moved weights.
            graph.graph.ClearField("value_info")
            quantize_dynamic(graph, folder / ONNX_NAME, weight_type=QuantType.QInt8, per_channel=True)
        else:
            onnx.save(graph, folder / ONNX_NAME)
    model.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return OnnxMultitaskModel.from_pretrained(folder)


def _hold_once(graph: onnx.GraphProto) -> None:
    """Hold every weight once, as its layer multiplies with it, however many encoder passes read the weight.

    The exporter transposes a small weight anew for each pass. It leaves a large weight that several passes read to be
    transposed in each of them, where the quantizer does not find it.
    """
    _fold_transposes(graph)
    _merge_equal_weights(graph)


def _fold_transposes(graph: onnx.GraphProto) -> None:
    """Replace each node that transposes a weight by the transposed weight, if nothing else reads the weight."""
    weights = {tensor.name: tensor for tensor in graph.initializer}
    read_by_others = {name for node in graph.node if node.op_type != "Transpose" for name in node.input}
    folded: dict[str, onnx.TensorProto] = {}
    for node in graph.node:
        if node.op_type == "Transpose" and node.input[0] in weights.keys() - read_by_others:
            axes = onnx.helper.get_node_attr_value(node, "perm")
            values = onnx.numpy_helper.to_array(weights[node.input[0]]).transpose(axes)
            folded[node.output[0]] = onnx.numpy_helper.from_array(np.ascontiguousarray(values), node.output[0])
    sources = {node.input[0] for node in graph.node if node.output[0] in folded}
    nodes = [node for node in graph.node if node.output[0] not in folded]
    tensors = [tensor for tensor in graph.initializer if tensor.name not in sources]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend([*tensors, *folded.values()])
    graph.node.extend(nodes)


def _merge_equal_weights(graph: onnx.GraphProto) -> None:
    """Let the nodes that read equal weights read the first of these, and remove the others."""
    first: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    kept: dict[str, str] = {}
    for tensor in graph.initializer:
        content = (tensor.data_type, tuple(tensor.dims), tensor.raw_data)
        kept[tensor.name] = first.setdefault(content, tensor.name) if tensor.raw_data else tensor.name
    tensors = [tensor for tensor in graph.initializer if kept[tensor.name] == tensor.name]
    del graph.initializer[:]
    graph.initializer.extend(tensors)
    for node in graph.node:
        node.input[:] = [kept.get(name, name) for name in node.input]


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Inside, the exporter and the quantizer do not warn, such as of torchvision, nor log the errors they raise."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)
