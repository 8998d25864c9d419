"""The LoRA layers of adapters: they are PEFT's, and only models with adapters need PEFT."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from bare_environment import BARE_PYTHON, link_packages
from peft import LoraConfig
from toys import REPOSITORY, build_model

from mtl_nlp import TextClassification, TokenClassification
from mtl_nlp.modeling.lora_multitask import RoutedLinear

TASKS = [
    TokenClassification(name="pos", labels=["A", "B", "C"]),
    TokenClassification(name="ner", labels=["O", "B-X", "I-X"], scheme="iob2"),
    TextClassification(name="topic", labels=["x", "y"]),
]


def lora(**options: object) -> LoraConfig:
    return LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": "all-linear", **options})


def test_the_layers_are_pefts_and_bear_its_names():
    model = build_model(TASKS)
    model.add_adapter(lora(), "pos")
    layer = model.encoder.encoder.layer[0].attention.self.query
    assert isinstance(layer, RoutedLinear)
    assert "encoder.encoder.layer.0.attention.self.query.lora_A.task_pos.weight" in model.state_dict()
    assert model.encoder.peft_config["task_pos"].r == 4


def test_a_peft_that_is_too_old_is_told(monkeypatch):
    monkeypatch.setattr("mtl_nlp.modeling.lora_multitask._MIN_PEFT_VERSION", "999")
    with pytest.raises(ValueError, match="version >= 999"):
        build_model(TASKS).add_adapter(lora(), "pos")


def test_saved_options_mean_the_same_with_any_version_of_peft():
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
