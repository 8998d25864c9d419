"""The export of one task as a stock transformers model, which computes the same logits without this package."""

from __future__ import annotations

import copy
import dataclasses
import functools
from pathlib import Path

import pytest
import torch
from exports import (
    AS_ADAPTERS,
    MEAN,
    NER,
    OF_OPTIONS,
    POS,
    SCORE,
    TAGS,
    TASKS,
    TEXTS,
    TOPIC,
    found_by,
    tokenizer_for,
)
from families import build_family
from interpreter import WITHOUT_MTL_NLP
from peft import LoraConfig
from toys import FAMILIES, build_model, build_tokenizer, lively_model
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    PreTrainedTokenizerBase,
    pipeline,
)

from mtl_nlp import MultitaskModel, Regression
from mtl_nlp.errors import ExportError
from mtl_nlp.export.onnx import export_onnx
from mtl_nlp.export.peft import export_peft
from mtl_nlp.export.stock import export_stock, stock_model

SECONDS = ["She works there .", "jumps over the lazy dog near the river bank", "please help"]

LONG = "The quick brown fox jumps over the lazy dog . " * 40

FRESH = (
    WITHOUT_MTL_NLP
    + """
import json
import torch
from transformers import AutoModelForSequenceClassification, pipeline

torch.set_num_threads(1)
folders, texts, seconds, long = json.load(open(sys.argv[1]))
found = {}
for family, by_task in folders.items():
    tag = {name: pipeline("ner", by_task[name], ignore_labels=[]) for name in ("pos", "ner")}
    classify = {name: pipeline("text-classification", by_task[name], top_k=None) for name in ("topic", "tags", "score")}
    pairs = [{"text": text, "text_pair": second} for text, second in zip(texts, seconds)]
    found[family] = {
        "classes": [type(each.model).__name__ for each in (*tag.values(), *classify.values())],
        **{name: [[[e["index"], e["entity"], float(e["score"])] for e in of] for of in answer(texts, batch_size=3)]
           for name, answer in tag.items()},
        **{name: [[[e["label"], e["score"]] for e in of] for of in answer(pairs, batch_size=3)]
           for name, answer in classify.items()},
        "long": [len(tag["pos"](long)), len(classify["topic"]([long], truncation=True)[0])],
    }
assert "mtl_nlp" not in sys.modules
print(json.dumps(found))
"""
)


@functools.cache
def model_of(family: str) -> MultitaskModel:
    return lively_model([*TASKS, MEAN], family)


def logits_of(model: MultitaskModel, tokenizer: PreTrainedTokenizerBase, task: str, pairs: bool) -> torch.Tensor:
    """Return the logits of the multitask model; logits on words have no padding."""
    batch = tokenizer(TEXTS, SECONDS if pairs else None, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = model(**batch).logits[task]
    return logits if logits.ndim == 2 else logits[batch["attention_mask"] == 1]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_stock_classes_load_an_exported_task_and_compute_its_logits(family, task, tmp_path):
    model, is_on_words = model_of(family), task.kind.level == "token"
    export_stock(model, tokenizer_for(family), task.name, tmp_path)
    auto_class = AutoModelForTokenClassification if is_on_words else AutoModelForSequenceClassification
    stock, tokenizer = auto_class.from_pretrained(tmp_path).eval(), AutoTokenizer.from_pretrained(tmp_path)
    batch = tokenizer(TEXTS, None if is_on_words else SECONDS, padding=True, return_tensors="pt")
    assert 0 < batch["attention_mask"].float().mean() < 1
    with torch.no_grad():
        logits = stock(**batch).logits
    logits = logits[batch["attention_mask"] == 1] if is_on_words else logits
    expected = logits_of(model, tokenizer_for(family), task.name, pairs=not is_on_words)
    assert expected.std() > 0.01  # a thousand times the allowed difference
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
    config = stock.config
    assert config.model_type == family
    assert config.problem_type == task.kind.problem_type
    assert list(config.id2label.values()) == list(task.labels or ["score"])
    assert config.label2id == {label: index for index, label in config.id2label.items()}


@pytest.fixture(scope="module")
def fresh(stranger, tmp_path_factory) -> dict:
    """Run stock pipelines in an interpreter without mtl_nlp; return family -> their answers."""
    folders = {
        family: {task.name: str(tmp_path_factory.mktemp(f"{family}-{task.name}")) for task in TASKS}
        for family in ("bert", "roberta", "modernbert")
    }
    for family, by_task in folders.items():
        for task, folder in by_task.items():
            tokenizer = copy.deepcopy(tokenizer_for(family))
            tokenizer.model_max_length = 10**30  # so that the encoder's positions are the only limit
            export_stock(model_of(family), tokenizer, task, Path(folder))
    return found_by(stranger, FRESH, [folders, TEXTS, SECONDS, LONG], tmp_path_factory.mktemp("fresh"))


@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert"])
def test_stock_pipelines_answer_without_this_package(fresh, family):
    found, model, tokenizer = fresh[family], model_of(family), tokenizer_for(family)
    assert [name.rsplit("For")[1] for name in found["classes"]] == [
        *["TokenClassification"] * 2,
        *["SequenceClassification"] * 3,
    ]
    for task in (POS, NER):
        probabilities = logits_of(model, tokenizer, task.name, pairs=False).softmax(-1)
        expected = [(task.labels[row.argmax()], row.max().item()) for row in probabilities]
        answers = [(label, score) for of in found[task.name] for _, label, score in of]
        marks = tokenizer(TEXTS, return_special_tokens_mask=True)["special_tokens_mask"]
        expected = [e for e, special in zip(expected, (m for of in marks for m in of), strict=True) if not special]
        assert [label for label, _ in answers] == [label for label, _ in expected]
        assert [score for _, score in answers] == pytest.approx([score for _, score in expected], abs=1e-5)
    for task, scores_of in (
        (TOPIC, lambda logits: logits.softmax(-1)),
        (TAGS, torch.sigmoid),
        (SCORE, lambda logits: logits),
    ):
        expected = scores_of(logits_of(model, tokenizer, task.name, pairs=True))
        for answer, row in zip(found[task.name], expected, strict=True):
            assert dict(answer) == pytest.approx(
                dict(zip(task.labels or ["score"], row.tolist(), strict=True)), abs=1e-5
            )


@pytest.mark.parametrize(("family", "limit"), [("bert", 64), ("roberta", 62), ("modernbert", 64)])
def test_stock_pipelines_truncate_long_texts_to_the_encoder_limit(fresh, family, limit):
    on_words, on_texts = fresh[family]["long"]
    assert on_words == limit - 2  # all positions except [CLS] and [SEP]
    assert on_texts == len(TOPIC.labels)


def test_exported_tokenizer_has_the_limit_of_the_model(tmp_path):
    model, tokenizer = build_model([POS]), build_tokenizer("wordpiece")
    model.config.max_length = 20
    export_stock(model, tokenizer, "pos", tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).model_max_length == 20
    assert tokenizer.model_max_length == 48


def test_mean_pooling_is_exported_to_a_supporting_stock_class(tmp_path):
    model, tokenizer = model_of("modernbert"), tokenizer_for("modernbert")
    export_stock(model, tokenizer, "mean", tmp_path)
    stock = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        logits = stock(**tokenizer(TEXTS, SECONDS, padding=True, return_tensors="pt")).logits
    expected = logits_of(model, tokenizer, "mean", pairs=True)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
    assert stock.config.classifier_pooling == "mean"


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "modernbert"])
def test_mean_pooling_without_a_supporting_stock_class_is_refused(family, tmp_path):
    message = rf"^--task mean: no {family} class of transformers supports mean pooling \(`pooling: mean`\)\. .*onnx"
    with pytest.raises(ExportError, match=message):
        export_stock(model_of(family), tokenizer_for(family), "mean", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("task", [POS, TOPIC, TAGS, SCORE], ids=lambda task: task.name)
def test_a_family_without_a_stock_class_is_refused(task):
    with pytest.raises(ExportError, match=rf"^--task {task.name}: transformers has no splinter class for {task.type}"):
        stock_model(build_model([task], "splinter"), task.name)
    deep = dataclasses.replace(task, head={"hidden_layers": 1})
    with pytest.raises(
        ExportError, match=rf"^--task {task.name}: its head is not that of a transformers class \(`head`\)"
    ):
        stock_model(build_model([deep]), task.name)


def test_a_tokenizer_that_ends_texts_in_its_padding_token_is_refused(tmp_path):
    model, tokenizer = build_family("llama", [TOPIC]), build_tokenizer("wordpiece")
    export_stock(model, tokenizer, "topic", tmp_path / "whole")
    stock = AutoModelForSequenceClassification.from_pretrained(tmp_path / "whole").eval()
    batch = dict(tokenizer(TEXTS, padding=True, return_tensors="pt", return_token_type_ids=False))
    torch.testing.assert_close(stock(**batch).logits, model(**batch).logits["topic"], rtol=0, atol=1e-5)
    tokenizer.pad_token = tokenizer.sep_token
    message = (
        r"^--task topic: LlamaForS\w+ reads the last .* adds its padding token '\[SEP\]' to every text\. Export it"
    )
    for export in (export_stock, export_peft):
        adapted = copy.deepcopy(model)
        if export is export_peft:
            adapted.add_adapter(LoraConfig(r=2), "topic")
        with pytest.raises(ExportError, match=message):
            export(adapted, tokenizer, "topic", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_model_on_a_gpu_is_exported(tmp_path):
    model = build_model([TOPIC]).to("cuda")
    export_stock(model, build_tokenizer("wordpiece"), "topic", tmp_path)
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path).device.type == "cpu"
    assert model.device.type == "cuda"


def test_unknown_task_is_refused_with_the_valid_ones(tmp_path):
    with pytest.raises(ExportError, match=r"^--task pso: no such task. Did you mean 'pos'\? Valid: pos, topic\.$"):
        export_stock(build_model([POS, TOPIC]), build_tokenizer("wordpiece"), "pso", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_in_half_precision_keeps_its_dtype(dtype, tmp_path):
    model, tokenizer = lively_model([TOPIC]).to(dtype), build_tokenizer("wordpiece")
    export_stock(model, tokenizer, "topic", tmp_path)
    stock = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert {parameter.dtype for parameter in stock.parameters()} == {dtype}
    with torch.no_grad():
        logits = stock(**tokenizer(TEXTS, SECONDS, padding=True, return_tensors="pt")).logits
    assert torch.equal(logits, logits_of(model, tokenizer, "topic", pairs=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("mean", "sd", "fits"), [(0.1, 2.0, True), (1e5, 3.0, False), (0.0, 1e5, False)])
def test_numbers_that_half_precision_cannot_hold_are_exported_in_float32(dtype, mean, sd, fits, tmp_path):
    fits = fits or (mean == 0.0 and dtype == torch.bfloat16)  # whose largest number is that of float32
    model, tokenizer = lively_model([Regression("score", mean=mean, sd=sd)]).to(dtype), build_tokenizer("wordpiece")
    assert export_stock(model, tokenizer, "score", tmp_path) == (dtype if fits else torch.float32)
    stock = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert {parameter.dtype for parameter in stock.parameters()} == {dtype if fits else torch.float32}
    with torch.no_grad():
        logits = stock(**tokenizer(TEXTS, SECONDS, padding=True, return_tensors="pt")).logits.float()
    expected = logits_of(model, tokenizer, "score", pairs=True).float()
    assert ((logits - expected).abs() / sd).max() < 0.05


def test_export_shares_no_weights_and_does_not_change_the_model():
    model = lively_model([POS, TOPIC]).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    config = model.config.to_dict()
    for parameter in stock_model(model, "topic").parameters():
        parameter.data.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.training
    assert model.config.to_dict() == config


@pytest.mark.parametrize("name", OF_OPTIONS)
def test_adapters_are_merged_into_a_stock_model(as_adapters, name, tmp_path):
    case, (model, *_) = AS_ADAPTERS[name], as_adapters[name]
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    export_stock(model, tokenizer_for(case.family), case.task, tmp_path)
    is_on_words = model.tasks[case.task].kind.level == "token"
    auto_class = AutoModelForTokenClassification if is_on_words else AutoModelForSequenceClassification
    stock, told = auto_class.from_pretrained(tmp_path, output_loading_info=True)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    assert not any("lora" in key or "base_layer" in key for key in stock.state_dict())
    batch = tokenizer_for(case.family)(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits, expected = stock.eval()(**batch).logits, model(**batch, tasks=[case.task]).logits[case.task]
    distance = (logits - expected)[batch["attention_mask"] == 1 if is_on_words else ...].abs().float()
    assert distance.max() < (2e-5 if case.dtype == torch.float32 else 0.2)
    answer = pipeline("token-classification" if is_on_words else "text-classification", str(tmp_path))
    assert len(answer(TEXTS)) == len(TEXTS)
    after = model.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before), "the model is left as it was"


def test_model_with_weights_that_are_not_finite_is_not_exported(tmp_path):
    model = build_model(TASKS)
    next(model.encoder.parameters()).data[3, 1] = float("nan")
    for export in (
        functools.partial(export_stock, task_name="pos"),
        functools.partial(export_peft, task_name="pos"),
        export_onnx,
    ):
        with pytest.raises(ExportError, match=r"^The model cannot be exported\. The weights should be finite\. Found"):
            export(model, tokenizer_for("bert"), folder=tmp_path / "out")
    assert not (tmp_path / "out").exists()
