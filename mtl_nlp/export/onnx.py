"""The export of a multitask model to one ONNX file, its quantization, and its inference (extra `onnx`)."""

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
from transformers.utils import CONFIG_NAME, cached_file

from mtl_nlp.errors import ExportError, ModelError
from mtl_nlp.export.stock import check_exportable
from mtl_nlp.hub.loading import load_config
from mtl_nlp.messages import one_line
from mtl_nlp.modeling.configuration_multitask import MultitaskConfig
from mtl_nlp.modeling.modeling_multitask import MultitaskModel, MultitaskOutput
from mtl_nlp.modeling.tasks_multitask import Task
from mtl_nlp.run_folder import ONNX_NAME

_EXAMPLE = (2, 8)
"""The batch size and length for tracing; the exported file accepts any batch size and length."""

_INPUTS = {"input_ids", "attention_mask", "token_type_ids"}

_MAX_BYTES = 2_000_000_000
"""An upper bound on the size of the weights: protobuf limits an ONNX file to 2 GiB."""

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
    """A model that `export_onnx` wrote, as a replacement for a [`MultitaskModel`] in pipelines and evaluations.

    Args:
        file: the ONNX file.
        config: the model's configuration.

    Attributes:
        config: the model's configuration.
        tasks: the tasks by name.

    Examples:
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
        """Load an exported model from a folder or the Hub.

        Args:
            folder: the folder or the Hub id.

        Raises:
            ModelError: if there is no exported multitask model, or a file is damaged.
        """
        config = load_config(str(folder))
        try:
            model = cls(Path(cached_file(str(folder), ONNX_NAME)), config)
        except _LOAD_ERRORS as error:
            raise ModelError(
                f"{folder}: {ONNX_NAME} is damaged or truncated ({one_line(error)}). Export the model again."
            ) from error
        sizes = {output.name: (output.shape or [0])[-1] for output in model.session.get_outputs()}
        if missing := model.tasks.keys() - sizes.keys():
            raise ModelError(
                f"{folder}: {ONNX_NAME} has no output for {', '.join(sorted(missing))}. Export the model again."
            )
        for name, task in model.tasks.items():
            if isinstance(sizes[name], int) and sizes[name] != task.num_labels:
                raise ModelError(
                    f"{folder}: {ONNX_NAME} has {sizes[name]} outputs for {name}, and {CONFIG_NAME} has "
                    f"{task.num_labels} labels. Export the model again."
                )
        if unknown := {each.name for each in model.session.get_inputs()} - _INPUTS:
            raise ModelError(f"{folder}: {ONNX_NAME} has the unknown inputs {', '.join(sorted(unknown))}.")
        return model

    def __call__(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        tasks: Sequence[str] | None = None,
    ) -> MultitaskOutput:
        """Return the logits of all rows.

        Args:
            input_ids: sub-words, shape (rows, length).
            attention_mask: 1 for sub-words and 0 for padding, shape (rows, length); all 1 by default.
            token_type_ids: 1 for the second text of a pair and 0 elsewhere, shape (rows, length); all 0 by default.
            tasks: the tasks to compute; all tasks by default.

        Returns:
            The output of `MultitaskModel.forward`, with only `logits`.
        """
        given = {
            "input_ids": input_ids,
            "attention_mask": torch.ones_like(input_ids) if attention_mask is None else attention_mask,
            "token_type_ids": torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids,
        }
        feed = {each.name: given[each.name].numpy() for each in self.session.get_inputs()}
        names = list(self.tasks if tasks is None else tasks)
        found: list[np.ndarray] = self.session.run(names, feed)
        logits = {name: torch.from_numpy(values) for name, values in zip(names, found, strict=True)}
        return MultitaskOutput(logits=logits)


class _Positional(torch.nn.Module):
    """A wrapper of the model with positional inputs and outputs, which an ONNX graph needs."""

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

    The inputs of the file are `input_ids`, `attention_mask`, and `token_type_ids` if the tokenizer returns them, each
    of shape (rows, length) for any number of rows and any length. The file has an output per task, with the name of
    the task.

    Args:
        model: the model.
        tokenizer: the tokenizer of the model.
        folder: the folder to write.
        int8: whether to store the weights of linear layers and embeddings as 8-bit integers, and to quantize the
            activations at inference time (dynamic quantization of onnxruntime).

    Returns:
        The exported model.

    Raises:
        ExportError: if a task has the name of an input, the weights are not finite or too large for one file, or torch
            cannot trace the encoder.
    """
    check_exportable(model)
    # A tokenizer names token_type_ids only if its encoder reads them.
    inputs = ["input_ids", "attention_mask"]
    inputs += ["token_type_ids"] if "token_type_ids" in tokenizer.model_input_names else []
    if taken := set(inputs) & set(model.tasks):
        raise ExportError(f"The task {taken.pop()!r} has the name of an input of the ONNX file. Rename the task.")
    size = 4 * sum(parameter.numel() for parameter in model.parameters())
    if size >= _MAX_BYTES:
        raise ExportError(
            f"The weights of an ONNX file should be smaller than {_MAX_BYTES / 1e9:.0f} GB. Found {size / 1e9:.1f} GB. "
            f"Export single tasks: --format transformers."
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
        # onnx.load also reads the weights, which the exporter stores in a separate file. The prefix keeps names inside
        # the graph, such as "linear", apart from the names of tasks.
        graph = onnx.compose.add_prefix(onnx.load(file), "model/", rename_inputs=False, inplace=True)
        for part in (graph.graph, *graph.graph.node):
            part.ClearField("metadata_props")  # stack traces with paths of this machine
        _store_weights_once(graph.graph)
        for output, task in zip(graph.graph.output, model.tasks, strict=True):
            graph.graph.node.append(onnx.helper.make_node("Identity", [output.name], [task]))
            output.name = task
        if int8:
            # The shapes that the exporter recorded contradict those that quantization infers after it moved weights.
            graph.graph.ClearField("value_info")
            quantize_dynamic(graph, folder / ONNX_NAME, weight_type=QuantType.QInt8, per_channel=True)
        else:
            onnx.save(graph, folder / ONNX_NAME)
    model.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return OnnxMultitaskModel.from_pretrained(folder)


def _store_weights_once(graph: onnx.GraphProto) -> None:
    """Store every weight once and already transposed, even if several encoder passes read the weight.

    The exporter stores a transposed copy of a small weight per pass. For a large weight that several passes read, the
    exporter adds a node per pass that transposes the weight, and the quantizer does not find such a weight.
    """
    _fold_transposes(graph)
    _merge_equal_weights(graph)


def _fold_transposes(graph: onnx.GraphProto) -> None:
    """Replace each node that transposes a weight by the transposed weight, if no different node reads the weight."""
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
    """Keep the first of several equal weights, and let all nodes read the kept weight."""
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
    """Silence warnings of the exporter and the quantizer, and the logging of errors that they also raise."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)
