from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from exports import (
    AS_ADAPTERS,
    TEXTS,
    AsAdapter,
    found_by,
    tokenizer_for,
)
from families import build_family
from interpreter import WITHOUT_MTL_NLP
from peft import AutoPeftModelForSequenceClassification, LoraConfig
from safetensors.torch import load_file
from toys import build_tokenizer
from transformers import AutoConfig

from mtl_nlp import MultitaskModel, TextClassification
from mtl_nlp.export.peft import export_peft
from mtl_nlp.export.stock import stock_model
from mtl_nlp.modeling.adapters_multitask import low_rank_factors, peft_adapter_name

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


@pytest.fixture(scope="module")
def by_peft(stranger, as_adapters, tmp_path_factory) -> dict[str, Any]:
    """Load all exports with PEFT in an interpreter without mtl_nlp; return name of the case -> its logits."""
    arguments = {}
    for name, (model, folder, _, base) in as_adapters.items():
        task = model.tasks[AS_ADAPTERS[name].task]
        labels = None if base == str(folder / "base") else task.num_labels
        arguments[name] = (str(folder), base, task.kind.level, labels, str(model.dtype).removeprefix("torch."))
    return found_by(stranger, FRESH_PEFT, [arguments, TEXTS], tmp_path_factory.mktemp("by-peft"))


def has_own_base(case: AsAdapter) -> bool:
    """Return whether PEFT needs a different base than the pretrained encoder."""
    return case.trained or (case.task == "mean" and not case.changes)


@pytest.mark.parametrize("name", AS_ADAPTERS)
def test_peft_loads_an_exported_task_and_computes_its_logits(as_adapters, by_peft, name):
    case, found = AS_ADAPTERS[name], by_peft[name]
    batch = tokenizer_for(case.family)(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = as_adapters[name][0](**batch, tasks=[case.task]).logits[case.task].float()
    assert expected.std(0).mean() > 0.01  # a thousand times the allowed difference
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
def test_frozen_encoder_is_not_copied(as_adapters, name):
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
def test_file_has_every_weight_of_the_task_adapters(as_adapters, name):
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
            if of_task == peft_adapter_name(case.task):
                assert torch.equal(weights[f"{prefix}{layer}.lora_magnitude_vector"], magnitude.weight)
    assert {key.split(".lora_")[0] for key in weights if "lora_" in key} == layers


@pytest.mark.parametrize("name", [name for name, case in AS_ADAPTERS.items() if has_own_base(case)])
def test_written_base_has_the_labels_of_the_task(as_adapters, by_peft, name):
    task = as_adapters[name][0].tasks[AS_ADAPTERS[name].task]
    assert by_peft[name]["labels"] == list(task.labels)
    assert by_peft[name]["problem_type"] == task.kind.problem_type


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # of PEFT
def test_the_adapter_of_an_untrained_decoder_has_a_base_with_the_padding_id(tmp_path):
    task, tokenizer = TextClassification(name="topic", labels=["a", "b"]), build_tokenizer("wordpiece")
    build_family("gpt2", [task]).encoder.save_pretrained(tmp_path / "plain")
    config = json.loads((tmp_path / "plain" / "config.json").read_text())
    (tmp_path / "plain" / "config.json").write_text(json.dumps({**config, "pad_token_id": None}))
    model = MultitaskModel.from_encoder(str(tmp_path / "plain"), [task]).eval()
    model.add_adapter(LoraConfig(r=2), "topic")
    base = export_peft(model, tokenizer, "topic", tmp_path / "out", str(tmp_path / "plain"))
    assert base == str(tmp_path / "out" / "base")
    assert AutoConfig.from_pretrained(base).pad_token_id == tokenizer.pad_token_id
    stock = AutoPeftModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    batch = dict(tokenizer(TEXTS, padding=True, return_tensors="pt"))
    torch.testing.assert_close(stock(**batch).logits, model(**batch).logits["topic"], rtol=0, atol=1e-5)
