"""Tiny encoders and tokenizers, built here: no test needs a network or `../shared`."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

# Before transformers is imported: whatever asks the Hub fails at once and tells.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch
import yaml
from interpreter import Interpreter
from local_hub import ADA, EVE, READER, LocalHub
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from mtl_nlp import MultitaskConfig, MultitaskModel, Recipe, Task
from mtl_nlp.run import Run, prepare_run
from mtl_nlp.run import build_model as build_run_model

REPOSITORY = Path(__file__).parents[1]
SAMPLE_CORPUS = REPOSITORY / "recipes" / "sample_corpus"

TEXTS = [
    "The quick brown fox jumps over the lazy dog near the river bank .",
    "Ada Lovelace lives in Paris and works for the Analytical Engine company .",
    "I can not log in because my card was not accepted , please help !",
    "Unbelievable results were announced yesterday by international researchers .",
] * 4

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


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Tiny models are faster on one thread, and test processes do not fight for cores."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _ctrl_c_interrupts() -> None:
    """Also in the processes that tests start: a shell's background job ignores it, and so would they."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _own_caches(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """datasets' cache in a temporary folder shared by the session."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.getbasetemp() / "datasets_cache")


def build_tokenizer(kind: str) -> PreTrainedTokenizerBase:
    """A toy tokenizer: `wordpiece`, `bpe` (byte-level) or `unigram` (SentencePiece's), the same in every process.

    WordPiece's and Unigram's own trainers break ties by the order of a hash map, which every process has its own of.
    """
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
    words = {word for text in TEXTS for word in text.split()}
    if kind == "wordpiece":
        lower = sorted({piece.lower() for word in words for piece in (word, word[:4], *word)})
        vocab = [*special, *lower, *(f"##{character}" for character in lower if len(character) == 1)]
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
    """A tiny configuration of an encoder family, without dropout."""
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
    """A tiny random multitask model, the same one for the same arguments, in evaluation mode."""
    torch.manual_seed(0)
    return MultitaskModel(MultitaskConfig(text_config=build_config(family, **changes), tasks=list(tasks))).eval()


def lively_model(tasks: Sequence[Task], family: str = "bert", **changes: object) -> MultitaskModel:
    """`build_model` with weights so large that every sub-word and its place show in the logits."""
    model = build_model(tasks, family, **changes)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.25)
    return model


def liven_adapters(model: MultitaskModel, std: float = 0.2) -> MultitaskModel:
    """The model, its adapters changing what they are for, as trained ones do; fresh ones change nothing."""
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name or "lora_magnitude" in name:
            parameter.data += std * torch.randn_like(parameter)
    return model


@pytest.fixture(scope="session")
def tokenizers() -> dict[str, PreTrainedTokenizerBase]:
    """The three toy tokenizers by kind."""
    return {kind: build_tokenizer(kind) for kind in ("wordpiece", "bpe", "unigram")}


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """family -> a folder with a tiny random encoder and a WordPiece tokenizer, as `encoder:` takes it."""
    folders: dict[str, str] = {}

    def build(family: str = "bert") -> str:
        if family not in folders:
            folder = tmp_path_factory.mktemp(family)
            torch.manual_seed(0)
            AutoModel.from_config(build_config(family)).save_pretrained(folder)
            build_tokenizer("wordpiece").save_pretrained(folder)
            folders[family] = str(folder)
        return folders[family]

    return build


def sample_recipe(encoder: str, output: Path, max_steps: int) -> dict:
    """A recipe as plain data: the sample corpus on a tiny encoder, a few steps."""
    return {
        "encoder": encoder,
        "output_dir": str(output),
        "tasks": {
            "pos": {"type": "token-classification"},
            "ner": {"type": "token-classification", "scheme": "iob2"},
            "topic": {"type": "text-classification"},
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
        "training": {"max_steps": max_steps, "per_device_train_batch_size": 8, "save_strategy": "no", "use_cpu": True},
    }


@pytest.fixture
def quick_recipe(encoder_folder: Callable[[str], str], tmp_path: Path) -> dict:
    """The sample recipe with a folder of the test's own."""
    return sample_recipe(encoder_folder("bert"), tmp_path / "run", max_steps=4)


@pytest.fixture
def run(quick_recipe: dict) -> Run:
    """The sample recipe, loaded and encoded."""
    return prepare_run(Recipe.from_dict(quick_recipe))


@pytest.fixture
def saved(run: Run, tmp_path: Path) -> Path:
    """A folder with an untrained model and its tokenizer."""
    build_run_model(run).save_pretrained(tmp_path / "saved")
    run.tokenizer.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.fixture(scope="session")
def hub() -> Iterator[LocalHub]:
    """The local Hub."""
    running = LocalHub()
    yield running
    running.close()


@pytest.fixture(scope="session")
def online(hub: LocalHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Interpreter]:
    """Programs that reach the local Hub, with Ada's token unless they are given another."""
    folder = tmp_path_factory.mktemp("online")
    (folder / "home").mkdir()
    interpreter = Interpreter(folder, hub.environment(folder / "home"))
    yield interpreter
    interpreter.close()


@pytest.fixture(scope="session")
def pushed_run(
    online: Interpreter, encoder_folder: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of a run, as the train command leaves it, with checkpoints."""
    folder = tmp_path_factory.mktemp("pushed")
    recipe = sample_recipe(encoder_folder("bert"), folder / "run", max_steps=2)
    recipe["training"] |= {"save_strategy": "steps", "save_steps": 1}
    recipe["card"] = {"license": "apache-2.0", "language": ["en"], "base_model": "ada/tiny-bert"}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    finished = online.command("train", str(folder / "recipe.yaml"))
    assert finished.status == 0, finished.stderr
    return folder / "run"


@pytest.fixture(scope="session")
def private_words(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """What nobody else is to read: tokens, the folder of the tests' runs and homes, the data's, and one's own home."""
    paths = {tmp_path_factory.getbasetemp(), REPOSITORY, Path.home()}
    return {ADA, READER, EVE, *(str(path) for path in paths if len(path.parts) > 1)}


@pytest.fixture(scope="session")
def trained(encoder_folder: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `recipe.yaml` and, in `run`, the model that the train command made of it."""
    import datasets
    from command_line import write

    from mtl_nlp.cli import main

    folder = tmp_path_factory.mktemp("cli")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
        recipe = write(folder / "recipe.yaml", sample_recipe(encoder_folder("bert"), folder / "run", max_steps=2))
        assert main(["train", recipe]) == 0
    return folder
