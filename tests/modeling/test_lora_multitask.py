"""LoRA layers: names, ranks, dropout, invalid options, and models without PEFT."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess

import pytest
import torch
from adapted_models import ROWS, TASKS, adapted, alone, batch, lora
from bare_environment import BARE_PYTHON, link_packages
from families import a_family_batch, build_family
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from torch import nn
from toys import REPOSITORY, build_model, liven_adapters

from mtl_nlp.hub.loading import load_model
from mtl_nlp.modeling.adapters_multitask import adapter_parameters, peft_adapter_name
from mtl_nlp.modeling.lora_multitask import RoutedLinear


def test_adapter_layers_are_peft_layers_with_peft_names():
    model = adapted(adapters=("pos",))
    layer = model.encoder.encoder.layer[0].attention.self.query
    assert isinstance(layer, RoutedLinear)
    assert "encoder.encoder.layer.0.attention.self.query.lora_A.task_pos.weight" in model.state_dict()
    assert model.encoder.peft_config["task_pos"].r == 4


def test_adapters_of_different_ranks_and_layers_can_be_combined():
    model = adapted(adapters=("pos",))
    model.add_adapter(LoraConfig(r=2, target_modules=["value", "key"]), "ner")
    model.add_adapter(LoraConfig(r=6, target_modules=["query"]), "topic")
    for parameter in adapter_parameters(model.encoder, map(peft_adapter_name, model.adapter_names)):
        nn.init.normal_(parameter, std=0.2)
    logits = model(**batch(), rows=ROWS).logits
    for task in model.tasks:
        torch.testing.assert_close(logits[task], alone(model, task), atol=1e-5, rtol=1e-4)


def test_a_model_of_an_earlier_release_with_adapters_on_layers_that_no_head_reads_loads(tmp_path):
    for targets in ("all-linear", ["dense"], ["query", "pooler.dense"]):
        model = build_family("layoutlm")
        known = ["query"] if "query" in targets else targets
        model.add_adapter(lora(target_modules=known), "shared")
        liven_adapters(model)
        model.save_pretrained(tmp_path)
        weights = load_file(tmp_path / "model.safetensors")
        for name in [name for name in weights if name.startswith("encoder.pooler.dense.")]:
            weights[name.replace(".dense.", ".dense.base_layer.")] = weights.pop(name)
        weights |= {f"encoder.pooler.dense.lora_{part}.shared.weight": torch.ones(4, 4) for part in "AB"}
        save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
        config = json.loads((tmp_path / "config.json").read_text())
        config["adapters"][0]["target_modules"] = targets
        (tmp_path / "config.json").write_text(json.dumps({**config, "weights_sha256": None}))
        loaded = load_model(str(tmp_path))
        for task, logits in model(**a_family_batch()).logits.items():
            assert torch.equal(loaded(**a_family_batch()).logits[task], logits)
        assert all(tensor.isfinite().all() for tensor in loaded.state_dict().values())
        loaded.save_pretrained(tmp_path / "again")
        load_model(str(tmp_path / "again"))
    with pytest.raises(ValueError, match=r"should name linear layers of the encoder \(.*\)\. Found 'pooler\.dense'"):
        build_family("layoutlm").add_adapter(lora(target_modules=["query", "pooler.dense"]), "shared")


def test_each_row_gets_the_dropout_of_its_adapter():
    model = adapted(adapters=("pos",))
    model.add_adapter(lora(lora_dropout=0.999999), "ner")
    for parameter in adapter_parameters(model.encoder, ["task_ner"]):
        nn.init.normal_(parameter, std=0.2)
    rows = {"pos": torch.arange(3), "ner": torch.arange(3, 6)}
    model.train()
    logits = model(**batch(), rows=rows, tasks=["pos", "ner"]).logits
    model.eval()
    torch.testing.assert_close(logits["pos"], model(**batch(), tasks=["pos"]).logits["pos"][:3], atol=1e-5, rtol=1e-4)
    without = copy.deepcopy(model)
    without.delete_adapter("ner")
    torch.testing.assert_close(logits["ner"], without(**batch(), tasks=["ner"]).logits["ner"][3:], atol=1e-5, rtol=1e-4)


def test_invalid_adapters_are_refused_with_the_remedy():
    model = build_model(TASKS, "modernbert")
    for options, name, message in [
        (
            {"target_modules": ["quary"]},
            "pos",
            r"should name linear layers of the encoder \(Wqkv, Wo, Wi\)\. Found 'quary'",
        ),
        ({"target_modules": []}, "pos", r"linear layers of the encoder \(Wqkv, Wo, Wi\)\. Found none\."),
        ({"target_modules": None}, "pos", "no default `target_modules` for a modernbert encoder"),
        ({"r": 33}, "pos", "`r` should be between 1 and 32"),
        ({}, "poss", r"`adapter_name` should be `shared` or a task of the model \(pos, ner, .*\)\. Found 'poss'"),
        ({"bias": "all"}, "pos", "support only the options r, lora_alpha, .* Found 'bias'"),
    ]:
        before = model.state_dict().keys()
        with pytest.raises(ValueError, match=message):
            model.add_adapter(lora(**options), name)
        assert model.config.adapters is None and model.state_dict().keys() == before
    model.add_adapter(lora(), "pos")
    with pytest.raises(ValueError, match="already has an adapter 'pos'"):
        model.add_adapter(lora(), "pos")


def test_outdated_peft_is_reported(monkeypatch):
    monkeypatch.setattr("mtl_nlp.modeling.lora_multitask._MIN_PEFT_VERSION", "999")
    with pytest.raises(ValueError, match="version >= 999"):
        build_model(TASKS).add_adapter(lora(), "pos")


def test_layers_refuse_training_rows_without_a_route():
    model = adapted().train()
    with pytest.raises(RuntimeError, match=r"should be called only through MultitaskModel\.forward"):
        model.encoder(**batch())
    model.eval().encoder(**batch())


def test_saved_options_are_independent_of_the_peft_version():
    model = build_model(TASKS)
    model.add_adapter(LoraConfig(), "pos")
    assert model.config.adapters == [
        {
            "name": "pos",
            "r": 8,
            "lora_alpha": 8,
            "lora_dropout": 0.0,
            "target_modules": ["query", "value"],
            "use_rslora": False,
            "use_dora": False,
        }
    ]
    model.add_adapter(lora(target_modules=r".*\.1\..*query"), "ner")
    assert model.config.adapters[1]["target_modules"] == ["encoder.layer.1.attention.self.query"]


WITHOUT_PEFT = """
from transformers import BertConfig
from shipped.configuration_multitask import MultitaskConfig
from shipped.modeling_multitask import MultitaskModel
from shipped.tasks_multitask import TextClassification
tiny = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, vocab_size=20)
model = MultitaskModel(MultitaskConfig(text_config=tiny, tasks=[TextClassification(name="topic", labels=["x", "y"])]))
model.freeze("encoder")
assert sum(parameter.requires_grad for parameter in model.parameters()) == len(model.parameters_of("topic"))
assert model.merge_and_unload("topic").state_dict().keys() == model.state_dict().keys()
try:
    model.add_adapter(None, "topic")
except ImportError as error:
    print(error)
"""


def test_only_adapters_need_peft_and_the_error_names_what_to_install(tmp_path):
    link_packages(["torch", "transformers"], tmp_path / "packages")
    (tmp_path / "packages" / "shipped").mkdir()
    for file in (REPOSITORY / "mtl_nlp" / "modeling").glob("*_multitask.py"):
        shutil.copy(file, tmp_path / "packages" / "shipped")
    finished = subprocess.run(
        [*BARE_PYTHON, "-c", WITHOUT_PEFT],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "packages")},
        capture_output=True,
        text=True,
    )
    message = "A model with adapters needs PEFT: pip install peft. (No module named 'peft')\n"
    assert (finished.returncode, finished.stdout) == (0, message), finished.stderr
