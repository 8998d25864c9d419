"""Tiny encoders, tokenizers, models and recipes. The tests need no network and no data outside the repository."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from mtl_nlp import MultitaskConfig, MultitaskModel, Task

REPOSITORY = Path(__file__).parents[1]

SAMPLE_CORPUS = REPOSITORY / "recipes" / "sample_corpus"

TEXTS = [
    "The quick brown fox jumps over the lazy dog near the river bank .",
    "Ada Lovelace lives in Paris and works for the Analytical Engine company .",
    "I can not log in because my card was not accepted , please help !",
    "Unbelievable results were announced yesterday by international researchers .",
] * 4

VOCABULARY = 300
"""The size of the toy vocabularies, of which most entries are not used: an embedding has at most twice as many rows."""

SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}

EXTRA = {
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48},
    "electra": {"embedding_size": 32},
    "albert": {"embedding_size": 16},
    "modernbert": {"pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8},
}

FAMILIES = (
    "bert",
    "roberta",
    "xlm-roberta",
    "camembert",
    "distilbert",
    "electra",
    "albert",
    "mpnet",
    "deberta-v2",
    "modernbert",
)


def build_tokenizer(kind: str, size: int = VOCABULARY) -> PreTrainedTokenizerBase:
    """Build a toy tokenizer that is the same in every process.

    The vocabularies of WordPiece and Unigram are listed here, because their trainers break ties by the order of a hash
    map, which differs between processes.

    Args:
        kind: `wordpiece`, `bpe` (byte-level) or `unigram` (SentencePiece).
        size: the size of the vocabulary, except for `bpe`.
    """
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
    words = {word for text in TEXTS for word in text.split()}
    if kind == "wordpiece":
        lower = sorted({piece.lower() for word in words for piece in (word, word[:4], *word)})
        vocab = [*special, *lower, *(f"##{character}" for character in lower if len(character) == 1)]
        vocab += [f"[unused{number}]" for number in range(size - len(vocab))]
        tokenizer = Tokenizer(models.WordPiece({piece: n for n, piece in enumerate(vocab)}, unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
    elif kind == "bpe":
        tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
        tokenizer.train_from_iterator(TEXTS, trainer)
    else:
        pieces = {f"▁{word[:2]}" for word in words} | {word[2:5] for word in words if len(word) > 3}
        scores = [(piece, -1.0) for piece in special] + [(piece, -2.0) for piece in sorted(pieces)]
        scores += [(character, -3.0) for character in sorted({"▁", *"".join(words)})]
        scores += [(f"[unused{number}]", -9.0) for number in range(size - len(scores))]
        tokenizer = Tokenizer(models.Unigram(scores, unk_id=special.index("[UNK]")))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
        mask_token="[MASK]",
        model_max_length=48,
        model_input_names=["input_ids", *(["token_type_ids"] if kind == "wordpiece" else []), "attention_mask"],
    )


def build_config(family: str, **changes: object) -> AutoConfig:
    """Build a tiny configuration of an encoder family, without dropout."""
    dropout = {
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "seq_classif_dropout": 0.0,
        "classifier_dropout": 0.0,
    }
    values = {"vocab_size": 500, "max_position_embeddings": 64, **SHAPE, **dropout, **EXTRA.get(family, {}), **changes}
    return AutoConfig.for_model(family, **values)


def build_model(tasks: Sequence[Task], family: str = "bert", **changes: object) -> MultitaskModel:
    """Build a tiny random multitask model in evaluation mode; equal arguments give equal weights."""
    torch.manual_seed(0)
    return MultitaskModel(MultitaskConfig(text_config=build_config(family, **changes), tasks=list(tasks))).eval()


def lively_model(tasks: Sequence[Task], family: str = "bert", **changes: object) -> MultitaskModel:
    """Build the model of `build_model` with larger weights: every sub-word and its position affect the logits."""
    model = build_model(tasks, family, **changes)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.25)
    return model


def liven_adapters(model: MultitaskModel, std: float = 0.2) -> MultitaskModel:
    """Add noise to the adapters and return the model: new adapters would not change the encoder."""
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name or "lora_magnitude" in name:
            parameter.data += std * torch.randn_like(parameter)
    return model


def sample_recipe(encoder: str, output: Path, max_steps: int) -> dict:
    """Return a recipe as plain data that trains a tiny encoder on the sample corpus for a few steps."""
    return {
        "encoder": encoder,
        "output_dir": str(output),
        "tasks": {
            "pos": {"type": "token-classification"},
            "ner": {"type": "token-classification", "scheme": "iob2"},
            "topic": {"type": "text-classification", "pooling": "cls"},
        },
        "datasets": {
            "sample": {
                "path": "conll",
                "columns": ["tokens", "upos", "ner"],
                "data_files": {
                    split: str(SAMPLE_CORPUS / split / "*.conll") for split in ("train", "validation", "test")
                },
                "inputs": {"tokens": "tokens"},
                "labels": {"pos": "upos", "ner": "ner", "topic": "topic"},
            }
        },
        "training": {"max_steps": max_steps, "per_device_train_batch_size": 8, "save_strategy": "no", "use_cpu": True}
        | {"precision": "fp32"},
    }


def remove_hash(folder: Path) -> None:
    """Remove the hash of the weights, which earlier releases did not write."""
    config = json.loads((folder / "config.json").read_text())
    config.pop("weights_sha256", None)
    (folder / "config.json").write_text(json.dumps(config))
