"""One task as a plain transformers model: the same logits, for those who have never heard of this package."""

from __future__ import annotations

import copy
import functools
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import torch
from conftest import FAMILIES, build_config, build_model, build_tokenizer, lively_model
from datasets import Dataset
from interpreter import WITHOUT_MTL_NLP
from peft import LoraConfig
from safetensors.torch import load_file
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    PreTrainedTokenizerBase,
    pipeline,
)

from mtl_nlp import (
    MultiLabelClassification,
    MultitaskModel,
    Regression,
    TextClassification,
    TokenClassification,
)
from mtl_nlp.data.canonical import canonical_rows
from mtl_nlp.data.encoding import encode_dataset
from mtl_nlp.evaluation.evaluator import score_model
from mtl_nlp.export import ExportError, compare_scores, export_peft, export_stock, stock_model
from mtl_nlp.modeling.adapters_multitask import internal_name, low_rank_factors

POS = TokenClassification(name="pos", labels=["NOUN", "VERB", "ADJ"])
NER = TokenClassification(name="ner", labels=["O", "B-PER", "I-PER", "B-LOC", "I-LOC"], scheme="iob2")
TOPIC = TextClassification(name="topic", labels=["news", "sport", 'a "b": <c>'])
TAGS = MultiLabelClassification(name="tags", labels=["urgent", "angry"])
SCORE = Regression(name="score")
MEAN = TextClassification(name="mean", labels=["news", "sport"], pooling="mean")
TASKS = (POS, NER, TOPIC, TAGS, SCORE)
TEXTS = ["Ada Lovelace lives in Paris .", "The fox", "I can not log in because my card was not accepted !"]
SECONDS = ["She works there .", "jumps over the lazy dog near the river bank", "please help"]
LONG = "The quick brown fox jumps over the lazy dog . " * 40
OF_WORD_PIECES = ("bert", "electra", "albert", "deberta-v2")

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


@functools.cache  # trained twice, it may number its sub-words otherwise
def tokenizer_for(family: str) -> PreTrainedTokenizerBase:
    return build_tokenizer("wordpiece" if family in OF_WORD_PIECES else "bpe")


def in_a_fresh_interpreter(program: str, argument: Any, folder: Path) -> Any:
    """What a program prints as JSON, run with a JSON argument where mtl_nlp cannot be imported."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    (folder / "argument.json").write_text(json.dumps(argument))
    arguments = [sys.executable, "-I", "-c", program, str(folder / "argument.json")]
    done = subprocess.run(arguments, env=environment, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def logits_of(model: MultitaskModel, tokenizer: PreTrainedTokenizerBase, task: str, pairs: bool) -> torch.Tensor:
    """The multitask model's logits of the texts, padding cut off from those on words."""
    batch = tokenizer(TEXTS, SECONDS if pairs else None, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = model(**batch).logits[task]
    return logits if logits.ndim == 2 else logits[batch["attention_mask"] == 1]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_stock_classes_load_an_exported_task_and_compute_its_logits(family, task, tmp_path):
    model, is_on_words = model_of(family), task.level == "token"
    export_stock(model, tokenizer_for(family), task.name, tmp_path)
    auto_class = AutoModelForTokenClassification if is_on_words else AutoModelForSequenceClassification
    stock, tokenizer = auto_class.from_pretrained(tmp_path).eval(), AutoTokenizer.from_pretrained(tmp_path)
    batch = tokenizer(TEXTS, None if is_on_words else SECONDS, padding=True, return_tensors="pt")
    assert 0 < batch["attention_mask"].float().mean() < 1
    with torch.no_grad():
        logits = stock(**batch).logits
    logits = logits[batch["attention_mask"] == 1] if is_on_words else logits
    expected = logits_of(model, tokenizer_for(family), task.name, pairs=not is_on_words)
    assert expected.std() > 0.01  # a thousand times what they may differ by
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
    config = stock.config
    assert config.model_type == family
    assert config.problem_type == task.problem_type
    assert list(config.id2label.values()) == list(task.labels or ["score"])
    assert config.label2id == {label: index for index, label in config.id2label.items()}


@pytest.fixture(scope="module")
def fresh(tmp_path_factory) -> dict:
    """family -> what stock pipelines in an interpreter without mtl_nlp answer."""
    folders = {
        family: {task.name: str(tmp_path_factory.mktemp(f"{family}-{task.name}")) for task in TASKS}
        for family in ("bert", "roberta", "modernbert")
    }
    for family, by_task in folders.items():
        for task, folder in by_task.items():
            tokenizer = copy.deepcopy(tokenizer_for(family))
            tokenizer.model_max_length = 10**30  # so that the encoder's positions are the only limit
            export_stock(model_of(family), tokenizer, task, Path(folder))
    return in_a_fresh_interpreter(FRESH, [folders, TEXTS, SECONDS, LONG], tmp_path_factory.mktemp("fresh"))


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
def test_stock_pipelines_cut_a_long_text_to_what_the_encoder_reads(fresh, family, limit):
    on_words, on_texts = fresh[family]["long"]
    assert on_words == limit - 2  # all but [CLS] and [SEP]
    assert on_texts == len(TOPIC.labels)


def test_the_exported_tokenizer_holds_the_models_own_limit(tmp_path):
    model, tokenizer = build_model([POS]), build_tokenizer("wordpiece")
    model.config.max_length = 20
    export_stock(model, tokenizer, "pos", tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).model_max_length == 20
    assert tokenizer.model_max_length == 48


def test_a_mean_is_exported_to_the_stock_class_that_reads_it(tmp_path):
    model, tokenizer = model_of("modernbert"), tokenizer_for("modernbert")
    export_stock(model, tokenizer, "mean", tmp_path)
    stock = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        logits = stock(**tokenizer(TEXTS, SECONDS, padding=True, return_tensors="pt")).logits
    expected = logits_of(model, tokenizer, "mean", pairs=True)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
    assert stock.config.classifier_pooling == "mean"


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "modernbert"])
def test_a_mean_that_no_stock_class_reads_is_refused(family, tmp_path):
    message = rf"^--task mean: no {family} class of transformers reads the mean of a text \(`pooling: mean`\)\. .*onnx"
    with pytest.raises(ExportError, match=message):
        export_stock(model_of(family), tokenizer_for(family), "mean", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("task", [POS, TOPIC, TAGS, SCORE], ids=lambda task: task.name)
def test_a_family_without_a_stock_class_is_refused(task):
    with pytest.raises(ExportError, match=rf"^--task {task.name}: transformers has no splinter class for {task.type}"):
        stock_model(build_model([task], "splinter"), task.name)


def test_a_task_that_does_not_exist_is_refused_with_those_that_do(tmp_path):
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


def test_an_export_shares_nothing_with_the_model_and_leaves_it_as_it_was():
    model = lively_model([POS, TOPIC]).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    config = model.config.to_dict()
    for parameter in stock_model(model, "topic").parameters():
        parameter.data.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.training
    assert model.config.to_dict() == config


def test_scores_are_compared_on_the_same_rows_in_points(tokenizers):
    tasks = {"topic": TOPIC, "pos": POS}
    rows = {"tokens": [text.split() for text in TEXTS], "topic": ["news", "sport", "news"]}
    rows["pos"] = [["NOUN"] * len(tokens) for tokens in rows["tokens"]]
    data = canonical_rows(
        Dataset.from_dict(rows), "d", inputs={"tokens": "tokens"}, labels={"topic": "topic", "pos": "pos"}, tasks=tasks
    )
    encoded = {"d": encode_dataset("d", data, tasks, tokenizers["wordpiece"], reads_words=True, max_length=48)}
    models = [lively_model(list(tasks.values())), build_model(list(tasks.values()))]
    before, after = (score_model(model, encoded, tasks, tokenizers["wordpiece"]).scores for model in models)
    assert before != after
    compared = compare_scores(*models, encoded, tokenizers["wordpiece"])
    assert [row[:2] for row in compared] == [(task, name) for task in tasks for name in before[task]]
    for task, name, one, other, points in compared:
        assert (one, other) == (round(before[task][name], 4), round(after[task][name], 4))
        assert points == round(100 * (after[task][name] - before[task][name]), 2)


# As a PEFT adapter


PLAIN: Mapping[str, Any] = MappingProxyType({})


class AsAdapter(NamedTuple):
    """What is exported: the task, the model's adapters with their options, and what becomes of its encoder."""

    task: str
    adapters: Mapping[str, Mapping[str, Any]]
    family: str = "bert"
    trained: bool = False
    dtype: torch.dtype = torch.float32
    changes: Mapping[str, Any] = PLAIN


ADAPTED_TASKS = [*TASKS, TextClassification(name="a.b", labels=["x", "y"])]
TWELVE = {"num_hidden_layers": 12}
QUERY = {"r": 2, "lora_alpha": 3, "target_modules": ["query"]}
OTHERS = {"r": 5, "lora_alpha": 2, "target_modules": ["query", "dense"]}
DORA = {"use_dora": True, "lora_alpha": 5}
OF_FAMILIES = {
    f"{family}, {task}, {'trained' if trained else 'frozen'}": AsAdapter(task, {task: {}, "pos": {}}, family, trained)
    for family in FAMILIES
    for task in ("ner", "topic")
    for trained in (False, True)
}
OF_OPTIONS = {
    "several labels": AsAdapter("tags", {"tags": {}}),
    "a number": AsAdapter("score", {"score": {}}),
    "a dotted name": AsAdapter("a.b", {"a.b": {}}),
    "a dotted name, trained": AsAdapter("a.b", {"a.b": {}}, trained=True),
    "a shared adapter beside": AsAdapter("ner", {"ner": {}, "shared": {"r": 3, "lora_alpha": 1}}),
    "a shared adapter before": AsAdapter("topic", {"shared": {}, "topic": {"r": 6}, "ner": {}}, "deberta-v2"),
    "a shared adapter alone": AsAdapter("pos", {"shared": {}, "topic": {}}),
    "other layers": AsAdapter("ner", {"ner": QUERY, "topic": OTHERS}),
    "other layers than the shared one": AsAdapter("topic", {"shared": QUERY, "topic": OTHERS}),
    "rslora": AsAdapter("ner", {"ner": {"use_rslora": True, "r": 3, "lora_alpha": 5}}),
    "rslora beside a shared lora": AsAdapter("ner", {"ner": {"use_rslora": True, "r": 3}, "shared": {}}),
    "dora": AsAdapter("ner", {"ner": DORA, "topic": DORA}),
    "dora of a text, trained": AsAdapter("topic", {"topic": DORA}, "roberta", trained=True),
    "lora beside dora": AsAdapter("ner", {"ner": {}, "topic": DORA}),
    "dora beside lora": AsAdapter("topic", {"ner": {}, "topic": DORA}),
    "an embedding projection": AsAdapter("ner", {"ner": {}}, "electra", changes={"embedding_size": 16}),
    "two of twelve layers": AsAdapter("ner", {"ner": {"target_modules": r".*layer\.(1|11)\..*query"}}, changes=TWELVE),
    "twelve layers": AsAdapter("topic", {"topic": {}}, changes=TWELVE),
    "a mean": AsAdapter("mean", {"mean": {}}, "modernbert"),
    "a mean that the base has": AsAdapter("mean", {"mean": {}}, "modernbert", changes={"classifier_pooling": "mean"}),
    "a mean, trained": AsAdapter("mean", {"mean": {}}, "modernbert", trained=True),
    "bfloat16": AsAdapter("ner", {"ner": {}, "topic": {}}, dtype=torch.bfloat16),
    "bfloat16, trained": AsAdapter("topic", {"topic": {}, "shared": {}}, trained=True, dtype=torch.bfloat16),
    "bfloat16, dora": AsAdapter("topic", {"topic": DORA}, dtype=torch.bfloat16),
}
AS_ADAPTERS = OF_FAMILIES | OF_OPTIONS

FRESH_PEFT = (
    WITHOUT_MTL_NLP
    + """
import json, warnings
import torch
from peft import AutoPeftModelForSequenceClassification, AutoPeftModelForTokenClassification, PeftModel
from peft import get_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoTokenizer

torch.set_num_threads(1)
stock = {"token": AutoModelForTokenClassification, "sequence": AutoModelForSequenceClassification}
auto = {"token": AutoPeftModelForTokenClassification, "sequence": AutoPeftModelForSequenceClassification}
cases, texts, found = *json.load(open(sys.argv[1])), {}
for name, (folder, base, level, num_labels, dtype) in cases.items():
    batch = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    dtype, labels = {"dtype": getattr(torch, dtype)}, {} if num_labels is None else {"num_labels": num_labels}
    base_model = stock[level].from_pretrained(base, **dtype, **labels)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        models = [PeftModel.from_pretrained(base_model, folder)]
    if num_labels is None:
        models.append(auto[level].from_pretrained(folder, **dtype))
    loaded, saved = get_peft_model_state_dict(models[0]), load_file(f"{folder}/adapter_model.safetensors")
    with torch.no_grad():
        found[name] = {
            "logits": [model.eval()(**batch).logits.float().tolist() for model in models],
            "told": [str(each.message) for each in told if each.category is not FutureWarning],
            "lost": sorted(loaded.keys() ^ saved.keys())
            or [key for key in saved if not torch.equal(loaded[key].to(saved[key].dtype), saved[key])],
            "labels": list(models[0].config.id2label.values()),
            "problem_type": models[0].config.problem_type,
        }
assert "mtl_nlp" not in sys.modules
print(json.dumps(found))
"""
)


def lively_encoder(folder: Path, family: str, changes: Mapping[str, Any]) -> str:
    """A folder with a pretrained encoder whose every weight shows."""
    if not folder.exists():
        torch.manual_seed(0)
        encoder = AutoModel.from_config(build_config(family, **changes))
        for parameter in encoder.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.25)
        encoder.save_pretrained(folder)
    return str(folder)


def lively_adapted(case: AsAdapter, encoder: str) -> MultitaskModel:
    """A model of the case on a pretrained encoder: its heads, adapters and, if trained, its encoder have moved."""
    tasks = [MEAN] if case.task == "mean" else ADAPTED_TASKS
    torch.manual_seed(1)
    model = MultitaskModel.from_encoder(encoder, tasks, dtype=case.dtype).eval()
    for name, options in case.adapters.items():
        model.add_adapter(LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": "all-linear", **options}), name)
    for name, parameter in model.named_parameters():
        if "lora_" in name or name.startswith("heads.") or case.trained:
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model


@pytest.fixture(scope="module")
def as_adapters(tmp_path_factory) -> dict[str, tuple[MultitaskModel, Path, str, str]]:
    """name of the case -> the model, where it was exported to, the encoder's folder and the base of the export."""
    exported, folder = {}, tmp_path_factory.mktemp("as-adapters")
    for name, case in AS_ADAPTERS.items():
        encoder = lively_encoder(folder / f"{case.family}-{dict(case.changes)}", case.family, case.changes)
        model, output = lively_adapted(case, encoder), folder / name
        base = export_peft(model, tokenizer_for(case.family), case.task, output, encoder)
        exported[name] = (model, output, encoder, base)
    return exported


@pytest.fixture(scope="module")
def by_peft(as_adapters, tmp_path_factory) -> dict[str, Any]:
    """name of the case -> what PEFT makes of the export in an interpreter without mtl_nlp."""
    arguments = {}
    for name, (model, folder, _, base) in as_adapters.items():
        task = model.tasks[AS_ADAPTERS[name].task]
        labels = None if base == str(folder / "base") else task.num_labels
        arguments[name] = (str(folder), base, task.level, labels, str(model.dtype).removeprefix("torch."))
    return in_a_fresh_interpreter(FRESH_PEFT, [arguments, TEXTS], tmp_path_factory.mktemp("by-peft"))


def has_own_base(case: AsAdapter) -> bool:
    """Whether PEFT needs another base than the pretrained encoder."""
    return case.trained or (case.task == "mean" and not case.changes)


@pytest.mark.parametrize("name", AS_ADAPTERS)
def test_peft_loads_an_exported_task_and_computes_its_logits(as_adapters, by_peft, name):
    case, found = AS_ADAPTERS[name], by_peft[name]
    batch = tokenizer_for(case.family)(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = as_adapters[name][0](**batch, tasks=[case.task]).logits[case.task].float()
    assert expected.std(0).mean() > 0.01  # a thousand times what they may differ by
    assert not found["told"], "PEFT warns of keys that it misses or does not know"
    assert not found["lost"]
    mask = batch["attention_mask"] == 1
    assert len(found["logits"]) == 1 + has_own_base(case)
    for logits in map(torch.tensor, found["logits"]):
        distance = (logits - expected)[mask if expected.ndim == 3 else ...].abs()
        if case.dtype == torch.float32:
            assert distance.max() <= 1e-5
        else:  # PEFT computes adapters in float32
            assert distance.mean() < 0.03 * expected.std()


@pytest.mark.parametrize("name", AS_ADAPTERS)
def test_an_encoder_that_was_not_trained_is_not_copied(as_adapters, name):
    case, (model, folder, encoder, base) = AS_ADAPTERS[name], as_adapters[name]
    files = {path.name for path in folder.iterdir()}
    of_adapter = {"README.md", "adapter_config.json", "adapter_model.safetensors", "tokenizer.json"}
    assert files == of_adapter | {"tokenizer_config.json"} | ({"base"} if has_own_base(case) else set())
    assert base == (str(folder / "base") if has_own_base(case) else encoder)
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == base
    weights = load_file(folder / "adapter_model.safetensors")
    head = model.heads[list(model.tasks).index(case.task)]
    names = model.adapters_of(case.task)
    of_head = sum(parameter.numel() for parameter in head.parameters())
    of_layers = {key for key in weights if "lora_" in key}
    assert sum(weights[key].numel() for key in weights.keys() - of_layers) == of_head
    adapters = {key for key, _ in model.encoder.named_parameters() if "lora_" in key and key.split(".")[-2] in names}
    assert len(of_layers) <= len(adapters), "padding is for layers that have an adapter"
    assert {tensor.dtype for tensor in weights.values()} == {case.dtype}


@pytest.mark.parametrize("name", AS_ADAPTERS)
def test_every_weight_of_a_tasks_adapters_is_in_the_file(as_adapters, name):
    case, (model, folder, _, _) = AS_ADAPTERS[name], as_adapters[name]
    weights = load_file(folder / "adapter_model.safetensors")
    prefix = f"base_model.model.{stock_model(model, case.task).base_model_prefix}."
    layers = set()
    for layer, factors in low_rank_factors(model.encoder, model.adapters_of(case.task)).items():
        if not factors:
            continue
        layers.add(f"{prefix}{layer}")
        down, up = (weights[f"{prefix}{layer}.lora_{side}.weight"] for side in "AB")
        rank = sum(len(of_adapter) for of_adapter, _ in factors)
        assert torch.equal(down[:rank], torch.cat([of_adapter for of_adapter, _ in factors]))
        assert torch.equal(up[:, :rank], torch.cat([of_adapter for _, of_adapter in factors], dim=1))
        assert not down[rank:].any()
        assert not up[:, rank:].any()
        for of_task, magnitude in model.encoder.get_submodule(layer).lora_magnitude_vector.items():
            if of_task == internal_name(case.task):
                assert torch.equal(weights[f"{prefix}{layer}.lora_magnitude_vector"], magnitude.weight)
    assert {key.split(".lora_")[0] for key in weights if "lora_" in key} == layers


@pytest.mark.parametrize("name", [name for name, case in AS_ADAPTERS.items() if has_own_base(case)])
def test_a_base_that_is_written_knows_the_tasks_labels(as_adapters, by_peft, name):
    task = as_adapters[name][0].tasks[AS_ADAPTERS[name].task]
    assert by_peft[name]["labels"] == list(task.labels)
    assert by_peft[name]["problem_type"] == task.problem_type


@pytest.mark.parametrize("name", OF_OPTIONS)
def test_adapters_are_merged_into_a_stock_model(as_adapters, name, tmp_path):
    case, (model, *_) = AS_ADAPTERS[name], as_adapters[name]
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    export_stock(model, tokenizer_for(case.family), case.task, tmp_path)
    is_on_words = model.tasks[case.task].level == "token"
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
