"""Tiny random encoders of the families of transformers, and what the product can do with each of them.

`python tests/families.py` writes the table of docs/families.md.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import LoraConfig
from toys import REPOSITORY, VOCABULARY, build_tokenizer, liven_adapters
from transformers import AutoConfig, PreTrainedConfig
from transformers.utils.logging import set_verbosity_error

from mtl_nlp import MultitaskConfig, MultitaskModel, Task, TextClassification, TokenClassification
from mtl_nlp.errors import ExportError
from mtl_nlp.export.stock import stock_model
from mtl_nlp.modeling.encoders_multitask import default_pooling, encoder_arguments, reads_left_context

PAGE = REPOSITORY / "docs" / "families.md"

WORDS = TokenClassification(name="words", labels=["a", "b", "c"])
TEXTS = TextClassification(name="texts", labels=["a", "b", "c"])

_SIZES: dict[str, Any] = {
    "hidden_size": 32, "d_model": 32, "n_embd": 32, "dim": 32, "emb_dim": 32,
    "num_hidden_layers": 2, "num_layers": 2, "n_layer": 2, "n_layers": 2, "encoder_layers": 2, "decoder_layers": 2,
    "num_decoder_layers": 2,
    "num_attention_heads": 4, "num_heads": 4, "n_head": 4, "n_heads": 4, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "d_kv": 8,
    "intermediate_size": 48, "d_ff": 48, "hidden_dim": 48, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48,
    "vocab_size": 500, "max_position_embeddings": 64, "n_positions": 64,
}  # fmt: skip
"""The sizes under the names of all families; a configuration ignores the names of other families."""

_PADDING = {"pad_token_id": 0, "bos_token_id": 1, "cls_token_id": 1, "eos_token_id": 2, "sep_token_id": 2}

FAMILIES: dict[str, dict[str, Any]] = {
    "albert": {"embedding_size": 16},
    "bart": {},
    "bert": {},
    "bert-generation": {},
    "big_bird": {},
    "bigbird_pegasus": {},
    "biogpt": {},
    "blenderbot": {},
    "blenderbot-small": {},
    "bloom": {},
    "camembert": {},
    "codegen": {"rotary_dim": 4},
    "cohere": {},
    "cohere2": {},
    "convbert": {"embedding_size": 32},
    "ctrl": {"dff": 48},
    "data2vec-text": {},
    "deberta": {},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8},
    "distilbert": {},
    "electra": {"embedding_size": 32},
    "ernie": {},
    "esm": {},
    "eurobert": {},
    "falcon": {"head_dim": None},
    "flaubert": {},
    "fnet": {},
    "funnel": {"num_hidden_layers": None, "block_sizes": [1, 1], "d_inner": 48, "architectures": ["FunnelModel"]},
    "gemma": {},
    "gemma2": {},
    "gemma3_text": {},
    "glm": {},
    "gpt2": {},
    "gpt_bigcode": {},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 4},
    "gpt_neox": {},
    "gptj": {"rotary_dim": 4},
    "granite": {},
    "gte": {},
    "ibert": {},
    "jina_embeddings_v3": {},
    "layoutlm": {},
    "led": {"attention_window": 4, "max_encoder_position_embeddings": 64},
    "llama": {},
    "longformer": {"attention_window": 4},
    "longt5": {},
    "luke": {"entity_vocab_size": 10, "entity_emb_size": 8},
    "m2m_100": {},
    "mamba": {},
    "marian": {},
    "mbart": {},
    "megatron-bert": {},
    "ministral": {},
    "mistral": {},
    "mixtral": {},
    "mobilebert": {"embedding_size": 32, "true_hidden_size": 32, "intra_bottleneck_size": 32},
    "modernbert": {},
    "modernbert-decoder": {},
    "mpnet": {},
    "mt5": {},
    "mvp": {},
    "nllb-moe": {},
    "nomic_bert": {},
    "nystromformer": {},
    "olmo2": {},
    "openai-gpt": {},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "pegasus": {},
    "pegasus_x": {},
    "phi": {},
    "phi3": {},
    "plbart": {},
    "qwen2": {},
    "qwen3": {},
    "rembert": {},
    "roberta": {},
    "roberta-prelayernorm": {},
    "roc_bert": {
        "shape_embed_dim": 8,
        "shape_vocab_size": 9,
        "pronunciation_embed_dim": 8,
        "pronunciation_vocab_size": 9,
    },
    "roformer": {},
    "seed_oss": {},
    "smollm3": {},
    "splinter": {},
    "squeezebert": {"embedding_size": 32},
    "stablelm": {},
    "starcoder2": {},
    "switch_transformers": {},
    "t5": {},
    "umt5": {},
    "xglm": {"ffn_dim": 48},
    "xlm": {},
    "xlm-roberta": {},
    "xlm-roberta-xl": {},
    "xlnet": {"max_position_embeddings": None, "d_inner": 48},
    "yoso": {},
}
"""The families by their `model_type`, with options for a tiny model beside the sizes; None leaves a size out."""


ONNX = (
    *(
        "bart",
        "bert",
        "deberta-v2",
        "distilbert",
        "gpt2",
        "llama",
        "longformer",
        "modernbert",
        "qwen3",
        "roberta",
        "t5",
    ),
    "xlnet",
)
"""The families whose export to ONNX is tried, which takes several seconds each."""


def build_family_config(family: str, **changes: Any) -> PreTrainedConfig:
    """Build a tiny configuration of a family, without dropout; families outside of `FAMILIES` may have more sizes."""
    values = {**_SIZES, **_PADDING, **FAMILIES.get(family, {}), **changes}
    config = AutoConfig.for_model(family, **{key: value for key, value in values.items() if value is not None})
    for key, value in config.to_dict().items():
        is_dropout = "drop" in key or key.endswith("pdrop")
        if is_dropout and isinstance(value, float):
            setattr(config, key, 0.0)
    return config


def build_family(family: str, tasks: Iterable[Task] = (WORDS, TEXTS), std: float = 0.25) -> MultitaskModel:
    """Build a random model of a family in evaluation mode, in which every sub-word affects the logits."""
    torch.manual_seed(0)
    model = MultitaskModel(MultitaskConfig(text_config=build_family_config(family), tasks=list(tasks))).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=std)
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding) and module.padding_idx is not None:
            module.weight.data[module.padding_idx] = 0.0  # loading a Funnel model sets this row to zero
    return model


def a_family_batch(family: str = "bert") -> dict[str, torch.Tensor]:
    """Return three rows, the last two of which are padded."""
    torch.manual_seed(1)
    mask = torch.tensor([[1] * 9, [1] * 6 + [0] * 3, [1] * 3 + [0] * 6])
    batch = {"input_ids": torch.randint(5, VOCABULARY, (3, 9)) * mask, "attention_mask": mask}
    # XLNet has weights of token types that it reads only if the tokenizer returns token types, as its own does.
    return {**batch, "token_type_ids": torch.zeros_like(mask)} if family == "xlnet" else batch


class Facts(NamedTuple):
    """The facts about a family, a column of the table each."""

    words: str
    texts: str
    adapters: str
    stock_words: str
    stock_texts: str
    note: str


def measure(family: str) -> Facts:
    """Find out by behaviour what a model of a family can do, and check that the product says the same.

    Checked besides: each trained parameter has a gradient, a saved model is loaded with equal logits, and rows with
    different adapters can share a pass.
    """
    model, batch = build_family(family), a_family_batch(family)
    logits = model(**batch).logits
    sum(each.square().sum() for each in logits.values()).backward()
    assert not (without := [name for name, p in model.named_parameters() if p.grad is None]), without
    logits = {name: each.detach() for name, each in logits.items()}
    is_left = _reads_left_context(model, batch, logits["words"])
    assert is_left == reads_left_context(model.config.text_config), family
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        loaded = MultitaskModel.from_pretrained(folder).eval()
    for name, each in loaded(**batch).logits.items():
        torch.testing.assert_close(each, logits[name], rtol=0, atol=1e-6)
    notes = ["answers depend on the padding of the batch"] if _depends_on_padding(model, batch, logits) else []
    if "global_attention_mask" in encoder_arguments(model.encoder):
        notes.append("the first sub-word has global attention")
    if default_pooling(model.config.text_config) == "mean":
        notes.append("the encoder of the encoder-decoder")
    return Facts(
        "left context" if is_left else "yes",
        default_pooling(model.config.text_config),
        _adapters(model, batch),
        _equals_stock_class(model, "words", batch, logits),
        _equals_stock_class(model, "texts", batch, logits),
        "; ".join(notes),
    )


@torch.no_grad()
def _reads_left_context(model: MultitaskModel, batch: dict[str, torch.Tensor], logits: torch.Tensor) -> bool:
    changed = batch["input_ids"].clone()
    changed[0, -1] = 3
    found = model(**{**batch, "input_ids": changed}).logits["words"][0]
    assert not torch.allclose(found[-1], logits[0, -1]), "the last sub-word has no effect"
    return torch.allclose(found[:-1], logits[0, :-1], rtol=0, atol=1e-6)


@torch.no_grad()
def _depends_on_padding(model: MultitaskModel, batch: dict[str, torch.Tensor], logits: dict[str, torch.Tensor]) -> bool:
    distance = 0.0
    for row, length in enumerate(batch["attention_mask"].sum(1).tolist()):
        alone = model(**{key: value[row : row + 1, :length] for key, value in batch.items()}).logits
        distance = max(distance, (alone["texts"][0] - logits["texts"][row]).abs().max().item())
        distance = max(distance, (alone["words"][0] - logits["words"][row, :length]).abs().max().item())
    return distance > 1e-4


@torch.no_grad()
def _equals_stock_class(
    model: MultitaskModel, task: str, batch: dict[str, torch.Tensor], logits: dict[str, torch.Tensor]
) -> str:
    """Return `yes` if the exported stock class computes equal logits, or the reason why there is no export."""
    try:
        stock = stock_model(model, task)
    except ExportError:
        return "–"
    stock.config.pad_token_id = 0
    inputs = dict(batch)
    if stock.config.to_dict().get("summary_type") == "last":  # XLNet reads the end, so that padding is on the left
        lengths = batch["attention_mask"].sum(1).tolist()
        inputs = {
            key: torch.stack([row.roll(len(row) - n) for row, n in zip(value, lengths, strict=True)])
            for key, value in batch.items()
        }
    found, expected = stock(**inputs).logits, logits[task]
    if task == "words":
        is_word = batch["attention_mask"] == 1
        found, expected = found[inputs["attention_mask"] == 1], expected[is_word]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    return "yes"


@torch.no_grad()
def _adapters(model: MultitaskModel, batch: dict[str, torch.Tensor]) -> str:
    """Return the default `target_modules`, or the word that works; check rows of several adapters."""
    targets = None
    for targets in (None, "all-linear"):
        try:
            for name in ("words", "texts"):
                model.add_adapter(LoraConfig(r=2, target_modules=targets), name)
            break
        except ValueError:
            if targets is not None:
                return "–"
    liven_adapters(model)
    rows = {"words": torch.tensor([0, 2]), "texts": torch.tensor([0, 1])}
    together = model(**batch, rows=rows).logits
    for name, own in rows.items():
        alone = model(**{key: value[own] for key, value in batch.items()}, tasks=[name]).logits[name]
        torch.testing.assert_close(together[name], alone, rtol=0, atol=1e-4)
    stored = (model.config.adapters or [])[0]["target_modules"]
    model.delete_adapter(["words", "texts"])
    return stored if isinstance(stored, str) else ", ".join(stored)


def exports_to_onnx(family: str) -> str:
    """Return `yes` if onnxruntime computes the logits of torch, `–` if the export is refused, or an empty text.

    A family outside of `ONNX` has an empty text.
    """
    from mtl_nlp.export.onnx import export_onnx

    if family not in ONNX:
        return ""
    model, batch = build_family(family), a_family_batch()
    with tempfile.TemporaryDirectory() as folder:
        try:
            exported = export_onnx(model, build_tokenizer("bpe"), Path(folder))
        except ExportError:
            return "–"
        with torch.no_grad():
            expected, found = model(**batch).logits, exported(**batch).logits
    torch.testing.assert_close(found["texts"], expected["texts"], rtol=0, atol=1e-3)
    is_word = batch["attention_mask"] == 1
    torch.testing.assert_close(found["words"][is_word], expected["words"][is_word], rtol=0, atol=1e-3)
    return "yes"


HEAD = (
    *("family", "tasks on words", "default `pooling`", "`target_modules` of LoRA", "stock class, words"),
    *("stock class, texts", "ONNX", "note"),
)


def written_rows() -> dict[str, tuple[str, ...]]:
    """Return the rows of the table in the page by family, without the family."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]
    return {row[0]: tuple(row[1:]) for row in cells}


def row_of(facts: Facts, onnx: str) -> tuple[str, ...]:
    """Return the row of a family, without the family."""
    return (*facts[:-1], onnx, facts.note)


def write_page(rows: dict[str, tuple[str, ...]]) -> None:
    """Replace the table of the page."""
    lines = ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
    lines += ["| " + " | ".join((family, *rows[family])) + " |" for family in sorted(rows)]
    text = PAGE.read_text(encoding="utf-8")
    start = text.index("| family")
    end = text.index("\n\n", start) if "\n\n" in text[start:] else len(text)
    PAGE.write_text(text[:start] + "\n".join(lines) + text[end:], encoding="utf-8")


def main() -> None:
    """Measure all families and write the page."""
    set_verbosity_error()
    warnings.simplefilter("ignore")
    write_page({family: row_of(measure(family), exports_to_onnx(family)) for family in FAMILIES})


if __name__ == "__main__":
    main()
