"""Models to export, and the cases of their exports."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from interpreter import Interpreter
from peft import LoraConfig
from torch import nn
from toys import FAMILIES, build_config, build_tokenizer
from transformers import (
    AutoModel,
    PreTrainedTokenizerBase,
)

from mtl_nlp import (
    MultiLabelClassification,
    MultitaskModel,
    Regression,
    TextClassification,
    TokenClassification,
)

POS = TokenClassification(name="pos", labels=["NOUN", "VERB", "ADJ"])

NER = TokenClassification(name="ner", labels=["O", "B-PER", "I-PER", "B-LOC", "I-LOC"], scheme="iob2")

TOPIC = TextClassification(name="topic", labels=["news", "sport", 'a "b": <c>'])

TAGS = MultiLabelClassification(name="tags", labels=["urgent", "angry"])

SCORE = Regression(name="score", mean=3.0, sd=1.5)

MEAN = TextClassification(name="mean", labels=["news", "sport"], pooling="mean")

TASKS = (POS, NER, TOPIC, TAGS, SCORE)

TEXTS = ["Ada Lovelace lives in Paris .", "The fox", "I can not log in because my card was not accepted !"]

OF_WORD_PIECES = ("bert", "electra", "albert", "deberta-v2")


@functools.cache  # a second training may number the sub-words differently
def tokenizer_for(family: str) -> PreTrainedTokenizerBase:
    return build_tokenizer("wordpiece" if family in OF_WORD_PIECES else "bpe")


def found_by(stranger: Interpreter, program: str, argument: Any, folder: Path) -> Any:
    """Run a program with a JSON argument where mtl_nlp cannot be imported, and return the JSON that it prints."""
    (folder / "argument.json").write_text(json.dumps(argument))
    finished = stranger.run(program, str(folder / "argument.json"))
    assert finished.status == 0, finished.stderr
    return json.loads(finished.stdout)


# Exports as a PEFT adapter


PLAIN: Mapping[str, Any] = MappingProxyType({})


class AsAdapter(NamedTuple):
    """A case of an export: the task, the adapters of the model with their options, and the state of the encoder."""

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


def lively_encoder(folder: Path, family: str, changes: Mapping[str, Any]) -> str:
    """Return a folder with a pretrained encoder in which every weight affects the output."""
    if not folder.exists():
        torch.manual_seed(0)
        encoder = AutoModel.from_config(build_config(family, **changes))
        for parameter in encoder.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.25)
        encoder.save_pretrained(folder)
    return str(folder)


def lively_adapted(case: AsAdapter, encoder: str) -> MultitaskModel:
    """Build the model of a case on a pretrained encoder, with noise on heads, adapters and a trained encoder."""
    tasks = [MEAN] if case.task == "mean" else ADAPTED_TASKS
    torch.manual_seed(1)
    model = MultitaskModel.from_encoder(encoder, tasks, dtype=case.dtype).eval()
    for name, options in case.adapters.items():
        model.add_adapter(LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": "all-linear", **options}), name)
    for name, parameter in model.named_parameters():
        if "lora_" in name or name.startswith("heads.") or case.trained:
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model
