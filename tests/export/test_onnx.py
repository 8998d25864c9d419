"""The export of all tasks as one ONNX file: onnxruntime computes the logits and answers of torch."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import onnx
import pytest
import torch
from peft import LoraConfig
from toys import REPOSITORY, build_config, build_model, build_tokenizer, lively_model, liven_adapters
from transformers import PreTrainedTokenizerBase, pipeline

from mtl_nlp import (
    MultiLabelClassification,
    MultitaskConfig,
    MultitaskModel,
    Regression,
    TextClassification,
    TokenClassification,
)
from mtl_nlp.errors import ExportError, ModelError
from mtl_nlp.export.onnx import OnnxMultitaskModel, export_onnx

TASKS = [
    TokenClassification(name="pos", labels=["NOUN", "VERB", "ADJ"]),
    TokenClassification(name="ner", labels=["O", "B-PER", "I-PER", "B-LOC", "I-LOC"], scheme="iob2"),
    TextClassification(name="topic", labels=["news", "sport", "travel"]),
    TextClassification(name="mean of all", labels=["news", "sport", "travel"], pooling="mean"),
    MultiLabelClassification(name="tags", labels=["urgent", "angry"], head={"hidden_layers": 1}),
    Regression(name="score", mean=3.0, sd=1.5),
]
CHANGES = {"modernbert": {"local_attention": 8, "global_attn_every_n_layers": 2, "num_hidden_layers": 3}}
"""Settings that give the model local attention with an effect on these lengths."""
LENGTHS = [[1], [7], [33, 20, 1, 30, 2], [9, 6, 2], [2, 1], [48], [3] * 8]
"""The batches: the number of sub-words of each row; shorter rows are padded."""
LONG = "Ada Lovelace can't live in Paris, near the river bank. " * 12
INPUTS = [
    "The quick brown fox jumps.",
    {"text": "Ada lives in Paris.", "text_pair": "She works there."},
    {"tokens": ["Ada", "lives", "", "in", "Paris", "."]},
    "",
    LONG,
    {"text": LONG, "text_pair": LONG},
]


class Exported(NamedTuple):
    """A model and its export."""

    model: MultitaskModel
    tokenizer: PreTrainedTokenizerBase
    folder: Path
    onnx: OnnxMultitaskModel


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Callable[[str], Exported]:
    """Export a model per family; return family -> the model and its export."""
    done: dict[str, Exported] = {}

    def export(family: str) -> Exported:
        if family not in done:
            model = lively_model(TASKS, family, **CHANGES.get(family, {}))
            tokenizer = build_tokenizer("wordpiece" if family in {"bert", "deberta-v2"} else "bpe")
            folder = tmp_path_factory.mktemp(family)
            done[family] = Exported(model, tokenizer, folder, export_onnx(model, tokenizer, folder))
        return done[family]

    return export


def batch_of(lengths: list[int], tokenizer: PreTrainedTokenizerBase) -> dict[str, torch.Tensor]:
    torch.manual_seed(len(lengths))
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    batch = {"input_ids": torch.randint(5, 300, mask.shape) * mask, "attention_mask": mask}
    if "token_type_ids" in tokenizer.model_input_names:
        batch["token_type_ids"] = (torch.arange(max(lengths)) > 3).long() * mask
    return batch


def furthest(model: MultitaskModel, other: OnnxMultitaskModel, batch: dict[str, torch.Tensor]) -> dict[str, float]:
    """Return the largest difference of logits for each task, without the logits of padding."""
    with torch.no_grad():
        expected = model(**batch).logits
    found = other(**batch).logits
    assert list(found) == list(expected)
    distances = {}
    for name, logits in expected.items():
        assert found[name].shape == logits.shape
        distance = (found[name] - logits.float()).abs()
        is_on_words = model.tasks[name].kind.level == "token"
        distances[name] = (distance[batch["attention_mask"] == 1] if is_on_words else distance).max().item()
    return distances


def assert_close(one: dict, other: dict, tolerance: float = 1e-4) -> None:
    """Check that answers are equal, and that their scores are close."""
    assert one.keys() == other.keys()
    for name in one:
        without_scores = [[{k: v for k, v in entry.items() if k != "score"} for entry in a[name]] for a in (one, other)]
        assert without_scores[0] == without_scores[1]
        scores = [[entry["score"] for entry in a[name]] for a in (one, other)]
        assert scores[0] == pytest.approx(scores[1], abs=tolerance)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "deberta-v2", "modernbert"])
def test_onnxruntime_equals_torch_for_every_batch_size_length_and_padding(exported, family):
    model, tokenizer, _, ours = exported(family)
    for lengths in LENGTHS:
        distances = furthest(model, ours, batch_of(lengths, tokenizer))
        assert max(distances.values()) < 1e-4, (lengths, distances)


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_export_is_one_file_with_one_output_per_task(exported, family):
    _, tokenizer, folder, ours = exported(family)
    names = {path.name for path in folder.iterdir()}
    assert names == {"model.onnx", "config.json", "tokenizer.json", "tokenizer_config.json"}
    graph = onnx.load(folder / "model.onnx").graph
    assert {put.name for put in graph.input} == set(tokenizer.model_input_names)
    assert [put.name for put in graph.output] == [task.name for task in TASKS]
    assert all(dim.dim_param for put in graph.input for dim in put.type.tensor_type.shape.dim)
    assert not any(tensor.external_data for tensor in graph.initializer)
    assert str(REPOSITORY).encode() not in (folder / "model.onnx").read_bytes()
    assert torch.__path__[0].encode() not in (folder / "model.onnx").read_bytes()
    assert list(ours.tasks.values()) == TASKS


def test_onnx_model_can_answer_a_subset_of_tasks(exported):
    model, tokenizer, _, ours = exported("bert")
    batch = batch_of([9, 6], tokenizer)
    logits = ours(**batch, tasks=["score", "pos"]).logits
    assert list(logits) == ["score", "pos"]
    with torch.no_grad():
        torch.testing.assert_close(logits["pos"], model(**batch).logits["pos"], rtol=0, atol=1e-4)


def test_mask_and_token_types_are_optional_as_in_torch(exported):
    model, tokenizer, _, ours = exported("bert")
    distances = {}
    ids = batch_of([9, 9], tokenizer)["input_ids"]
    with torch.no_grad():
        expected = model(ids).logits
    distances = {name: (logits - expected[name]).abs().max() for name, logits in ours(ids).logits.items()}
    assert max(distances.values()) < 1e-4


@pytest.mark.parametrize("batch_size", [1, 4])
def test_pipeline_gives_the_answers_of_the_torch_model(exported, batch_size):
    model, tokenizer, folder, _ = exported("bert")
    answer = pipeline("multitask", model=model, tokenizer=tokenizer)
    other = pipeline("multitask", model=OnnxMultitaskModel.from_pretrained(folder), tokenizer=str(folder))
    expected, found = (each(INPUTS, batch_size=batch_size, top_k=None) for each in (answer, other))
    assert len(expected[INPUTS.index(LONG)]["pos"]) > 48  # the text is read in windows
    for one, another in zip(expected, found, strict=True):
        assert_close(one, another)
    assert [list(each) for each in other((text for text in INPUTS), tasks=["topic"])] == [["topic"]] * len(INPUTS)
    with pytest.raises(ValueError, match="No task 'x' in this model"):
        other("Ada", tasks=["x"])


# Models with adapters


ADAPTERS = {
    "own": {"pos": {}, "tags": {"use_rslora": True, "r": 3}},
    "shared": {"ner": {}, "shared": {"r": 3}, "mean of all": {"target_modules": ["dense"]}},
    "dora": {"pos": {"use_dora": True}, "topic": {"use_dora": True}},
}


def adapted(kind: str, family: str, **changes: object) -> MultitaskModel:
    """Build a model whose adapters change the logits of their tasks."""
    model = lively_model(TASKS, family, **changes)
    for name, options in ADAPTERS[kind].items():
        model.add_adapter(LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": "all-linear", **options}), name)
    return liven_adapters(model)


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        ("bert", "shared"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (("bert", "own"), ("bert", "dora"), ("deberta-v2", "shared"), ("modernbert", "own"))
        ),
    ],
)
def test_export_with_adapters_stores_the_encoder_once_and_gives_equal_logits(tmp_path, family, kind):
    model = adapted(kind, family, intermediate_size=200, **CHANGES.get(family, {}))
    tokenizer = build_tokenizer("wordpiece" if family in {"bert", "deberta-v2"} else "bpe")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ours = export_onnx(model, tokenizer, tmp_path)
    for lengths in LENGTHS:
        distances = furthest(model, ours, batch_of(lengths, tokenizer))
        assert max(distances.values()) < 1e-4, (lengths, distances)
    weights = sum(tensor.numel() for tensor in model.parameters())
    held = sum(math.prod(tensor.dims) for tensor in onnx.load(tmp_path / "model.onnx").graph.initializer)
    # DoRA needs a weight twice: for its norm and for the product.
    assert held < (1.9 if kind == "dora" else 1.0) * weights
    # Tasks that are not requested take no pass.
    assert list(ours(**batch_of([9, 6], tokenizer), tasks=["topic"]).logits) == ["topic"]
    after = model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    answers = [pipeline("multitask", model=each, tokenizer=tokenizer)(INPUTS, top_k=None) for each in (model, ours)]
    for one, other in zip(*answers, strict=True):
        assert_close(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "deberta-v2"])
def test_int8_export_with_adapters_stores_the_encoder_once(tmp_path, family):
    model = adapted("shared", family, vocab_size=20_000, hidden_size=64, intermediate_size=1024)
    tokenizer = build_tokenizer("wordpiece")
    ours = export_onnx(model, tokenizer, tmp_path, int8=True)
    weights = 4 * sum(parameter.numel() for parameter in model.parameters())
    assert (tmp_path / "model.onnx").stat().st_size < 0.35 * weights
    batch = batch_of([33, 20, 1, 30, 2] * 4, tokenizer)
    with torch.no_grad():
        expected = model(**batch).logits
    for name, logits in ours(**batch).logits.items():
        distance = (logits - expected[name])[batch["attention_mask"] == 1 if logits.ndim == 3 else ...].abs()
        assert 0 < distance.mean() < 0.2 * expected[name].std(), name


def test_merged_task_of_a_model_with_adapters_exports_to_one_file(tmp_path):
    model, tokenizer = adapted("shared", "bert"), build_tokenizer("wordpiece")
    ours = export_onnx(model.merge_and_unload("ner"), tokenizer, tmp_path)
    batch = batch_of([9, 6], tokenizer)
    with torch.no_grad():
        expected = model(**batch, tasks=["ner"]).logits["ner"]
    mask = batch["attention_mask"] == 1
    torch.testing.assert_close(ours(**batch).logits["ner"][mask], expected[mask], rtol=0, atol=1e-4)


def test_export_does_not_change_the_model(tmp_path):
    model = lively_model(TASKS[:1]).to(torch.bfloat16).train()
    before, config, level = model.state_dict(), model.config.to_dict(), logging.root.manager.disable
    before = {name: tensor.clone() for name, tensor in before.items()}
    ours = export_onnx(model, build_tokenizer("wordpiece"), tmp_path)
    after = model.state_dict()
    assert all(after[name].dtype == before[name].dtype and torch.equal(after[name], before[name]) for name in before)
    assert model.training
    assert model.config.to_dict() == config
    assert logging.root.manager.disable == level
    batch = batch_of([9, 6], build_tokenizer("wordpiece"))
    assert furthest(model.float().eval(), ours, batch)["pos"] < 1e-4


def test_int8_file_is_a_quarter_as_large_with_nearly_equal_answers(tmp_path):
    tasks = [dataclasses.replace(task, head=None) for task in TASKS]
    model, tokenizer = lively_model(tasks, vocab_size=40_000, hidden_size=64), build_tokenizer("wordpiece", 20_000)
    ours = export_onnx(model, tokenizer, tmp_path, int8=True)
    assert {path.suffix for path in tmp_path.iterdir()} == {".onnx", ".json"}
    weights = 4 * sum(parameter.numel() for parameter in model.parameters())
    assert (tmp_path / "model.onnx").stat().st_size < 0.3 * weights
    batch = batch_of([33, 20, 1, 30, 2] * 4, tokenizer)
    with torch.no_grad():
        expected = model(**batch).logits
    for name, logits in ours(**batch).logits.items():
        distance = (logits - expected[name])[batch["attention_mask"] == 1 if logits.ndim == 3 else ...].abs()
        assert 0 < distance.mean() < 0.1 * expected[name].std(), name
    answers = pipeline("multitask", model=ours, tokenizer=tokenizer)(INPUTS, batch_size=4)
    assert [list(answer) for answer in answers] == [[task.name for task in TASKS]] * len(INPUTS)


@pytest.mark.parametrize("name", ["input_ids", "attention_mask", "token_type_ids"])
def test_a_task_named_as_an_input_is_refused(name, tmp_path):
    model = build_model([Regression(name=name)])
    with pytest.raises(ExportError, match=f"The task '{name}' has the name of an input of the ONNX file"):
        export_onnx(model, build_tokenizer("wordpiece"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_task_name_may_equal_an_internal_name_of_the_graph(tmp_path):
    names = ["linear", "view_1", "val_0", "model.encoder.embeddings.word_embeddings.weight", '<"a": 😀>']
    model, tokenizer = lively_model([Regression(name=name) for name in names]), build_tokenizer("wordpiece")
    distances = furthest(model, export_onnx(model, tokenizer, tmp_path), batch_of([9, 6], tokenizer))
    assert list(distances) == names
    assert max(distances.values()) < 1e-4


def test_weights_too_large_for_one_file_are_refused_at_once(tmp_path):
    with torch.device("meta"):
        model = MultitaskModel(MultitaskConfig(text_config=build_config("bert", vocab_size=20_000_000), tasks=TASKS))
    with pytest.raises(ExportError, match=r"^The weights of an .* smaller than 2 GB\. Found 2\.6 GB\. Export single"):
        export_onnx(model, build_tokenizer("wordpiece"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_encoder_that_torch_cannot_trace_is_refused_in_one_line(tmp_path, capfd):
    model = MultitaskModel(
        MultitaskConfig(text_config=build_config("canine", num_hidden_layers=1, num_hash_buckets=64), tasks=TASKS[2:3])
    )
    tokenizer = build_tokenizer("wordpiece")
    capfd.readouterr()
    with pytest.raises(ExportError, match=r"^torch cannot trace a canine encoder: .+") as refused:
        export_onnx(model, tokenizer, tmp_path)
    assert "\n" not in str(refused.value)
    assert capfd.readouterr() == ("", "")
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", None], ids=["empty", "a web page", "truncated"])
def test_a_damaged_file_is_refused(exported, tmp_path, content):
    shutil.copytree(exported("bert").folder, tmp_path / "copy")
    file = tmp_path / "copy" / "model.onnx"
    file.write_bytes(file.read_bytes()[:100_000] if content is None else content)
    with pytest.raises(
        ModelError, match=r"copy: model\.onnx is damaged or truncated \(.+\)\. Export the model again\.$"
    ) as error:
        OnnxMultitaskModel.from_pretrained(tmp_path / "copy")
    assert "\n" not in str(error.value)


def test_folder_without_an_export_is_refused(exported, encoder_folder, tmp_path):
    with pytest.raises(ModelError, match="holds a bert model without multitask heads"):
        OnnxMultitaskModel.from_pretrained(encoder_folder("bert"))
    shutil.copytree(exported("bert").folder, tmp_path / "copy")
    file = tmp_path / "copy" / "config.json"
    config = json.loads(file.read_text())
    config["tasks"][0]["name"] = "tagging"
    file.write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"model\.onnx has no output for tagging\. Export the model again\.$"):
        OnnxMultitaskModel.from_pretrained(tmp_path / "copy")
    (tmp_path / "copy" / "model.onnx").unlink()
    with pytest.raises(ModelError, match=r"model\.onnx"):
        OnnxMultitaskModel.from_pretrained(tmp_path / "copy")


def test_a_file_with_numbers_instead_of_logits_is_refused(exported, tmp_path):
    shutil.copytree(exported("bert").folder, tmp_path / "copy")
    outputs = [onnx.helper.make_tensor_value_info(task.name, onnx.TensorProto.FLOAT, []) for task in TASKS]
    number = onnx.helper.make_tensor("number", onnx.TensorProto.FLOAT, [], [0.0])
    nodes = [onnx.helper.make_node("Constant", [], [task.name], value=number) for task in TASKS]
    graph = onnx.helper.make_graph(nodes, "numbers", [], outputs)
    model = onnx.helper.make_model(graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 18)])
    onnx.save(model, tmp_path / "copy" / "model.onnx")
    with pytest.raises(ModelError, match=r"model\.onnx has 0 outputs for pos, and config\.json has 3 labels"):
        OnnxMultitaskModel.from_pretrained(tmp_path / "copy")


def test_configuration_with_other_labels_than_the_export_is_refused(exported, tmp_path):
    shutil.copytree(exported("bert").folder, tmp_path / "copy")
    file = tmp_path / "copy" / "config.json"
    config = json.loads(file.read_text())
    task = next(task for task in config["tasks"] if task["type"] == "text-classification")
    task["labels"].append("one more")
    file.write_text(json.dumps(config))
    with pytest.raises(ModelError, match=rf"has \d+ outputs for {task['name']}, and config\.json has \d+ labels"):
        OnnxMultitaskModel.from_pretrained(tmp_path / "copy")
