"""The encoders, data, models and trainers that are measured, and the stock and bare programs beside them."""

from __future__ import annotations

import itertools
import os
import re
import time
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from datasets import Dataset
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from benchmarks.measuring import ROOT, Setting, wait_for_device
from mtl_nlp import MultitaskModel, Recipe, Task, TextClassification, TokenClassification, encode
from mtl_nlp.data.encoding import EncodedDataset
from mtl_nlp.modeling.loss_multitask import StepCounts, count_step, joint_loss
from mtl_nlp.run.build import Run, build_model, build_trainer
from mtl_nlp.run.prepare import prepare
from mtl_nlp.training.trainer import MultitaskTrainer

SHAPES = {
    "toy": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64},
    "MiniLM": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
    "BERT-base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
}
"""The shapes of random encoders."""

NOTHING_WRITTEN = {"eval_strategy": "no", "save_strategy": "no", "logging_strategy": "no", "report_to": "none"}


def tokenizer_of(setting: Setting) -> PreTrainedTokenizerBase:
    """Return the tokenizer of the pretrained encoder, or else one of the words of the sample corpus."""
    if setting.encoder is not None:
        return AutoTokenizer.from_pretrained(setting.encoder)
    files = sorted((ROOT / "recipes/sample_corpus/train").glob("*.conll"))
    words = (line.split("\t")[0] for file in files for line in file.read_text("utf-8").splitlines())
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(words, trainers.WordPieceTrainer(vocab_size=4000, special_tokens=special))
    of = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    single, pair = "[CLS]:0 $A:0 [SEP]:0", "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1"
    tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=of)
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=256, **names)


@cache
def random_encoder(setting: Setting, shape: str) -> str:
    """Save an encoder with random weights and a tokenizer, and return the folder."""
    folder = setting.folder / shape
    tokenizer = tokenizer_of(setting)
    config = AutoConfig.for_model("bert", vocab_size=len(tokenizer), max_position_embeddings=512, **SHAPES[shape])
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def encoders(setting: Setting) -> dict[str, str]:
    """Return the folders of the toy encoder and of the pretrained encoder, if there is one, by name."""
    real = {} if setting.encoder is None or setting.tiny else {"MiniLM": setting.encoder}
    return {"toy": random_encoder(setting, "toy"), **real}


def real_encoder(setting: Setting) -> str:
    """Return the folder of the pretrained encoder, or else of the toy encoder."""
    return list(encoders(setting).values())[-1]


def has_corpora() -> bool:
    """Return whether the corpora of the recipes exist; the sample corpus takes their place otherwise."""
    return "MTL_NLP_DATA" in os.environ


def recipe_of(setting: Setting, encoder: str, name: str = "ewt", rows: int | None = None, **training: Any) -> Recipe:
    """Return a recipe, or that of the sample corpus if there are no corpora.

    Args:
        setting: the sizes.
        encoder: the folder of the encoder.
        name: the name of the recipe.
        rows: the largest number of training rows of each dataset.
        **training: further training arguments; None removes an argument of the recipe.
    """
    recipe = Recipe.load(ROOT / f"recipes/{name if has_corpora() else 'quickstart'}.yaml", [f"encoder={encoder}"])
    data = recipe.model_dump(exclude_defaults=True)
    data["output_dir"] = str(setting.folder / "run")
    given = {**data["training"], **NOTHING_WRITTEN, "disable_tqdm": True, **training}
    data["training"] = {key: value for key, value in given.items() if value is not None}
    rows = setting.size(rows, 48)
    for dataset in data["datasets"].values() if rows is not None else ():
        dataset["max_rows"] = {"train": rows, **setting.size({}, {"validation": 16, "test": 16})}
    return Recipe.from_dict(data, ROOT / "recipes")


def run_of(setting: Setting, encoder: str, **options: Any) -> Run:
    """Return a recipe with its data, see `recipe_of`."""
    return prepare(recipe_of(setting, encoder, **options))


def trainer_of(run: Run, model: MultitaskModel | None = None, **options: Any) -> MultitaskTrainer:
    """Return the trainer of a run, which prints nothing."""
    trainer = build_trainer(run, model or build_model(run), run.training_arguments(), **options)
    trainer.remove_callback(PrinterCallback)
    return trainer


def stock_dataset(encoded: EncodedDataset, task: str) -> Dataset:
    """Return the rows in the form of the stock classes: one label per sub-word or one label per text."""
    columns: dict[str, list] = {"input_ids": [], "attention_mask": [], "labels": []}
    for window in encoded.windows:
        label = window[f"label:{task}"]
        if label is None:
            continue
        columns["input_ids"].append(window["input_ids"])
        columns["attention_mask"].append([1] * len(window["input_ids"]))
        if isinstance(label, list):
            labels = np.full(len(window["input_ids"]), -100)
            labels[window["positions"]] = label
            label = labels.tolist()
        columns["labels"].append(label)
    return Dataset.from_dict(columns)


def stock_trainer(run: Run, task: str, folder: Path, **arguments: Any) -> Trainer:
    """Return transformers' Trainer of one task, with the stock class and random batches.

    Args:
        run: the run with the data.
        task: the task.
        folder: a folder for the trainer.
        **arguments: training arguments.
    """
    of_words = run.tasks[task].kind.labels_words
    auto_class = AutoModelForTokenClassification if of_words else AutoModelForSequenceClassification
    trainer = Trainer(
        auto_class.from_pretrained(run.recipe.encoder, num_labels=run.tasks[task].num_labels),
        TrainingArguments(str(folder), disable_tqdm=True, **{**NOTHING_WRITTEN, **arguments}),
        (DataCollatorForTokenClassification if of_words else DataCollatorWithPadding)(run.tokenizer),
        train_dataset=stock_dataset(next(iter(run.splits["train"].values())), task),
        processing_class=run.tokenizer,
    )
    for display in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(display)
    return trainer


class Clock(TrainerCallback):
    """Callback that measures the time from the end of the first step to the end of the last step of a training."""

    def __init__(self) -> None:
        self.started = self.seconds = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note the time at the end of the first and of the last step."""
        if state.global_step == 1:
            wait_for_device()
            self.started = time.perf_counter()
        elif state.global_step == state.max_steps:
            wait_for_device()
            self.seconds = (time.perf_counter() - self.started) / (state.max_steps - 1)


def step_seconds(trainer: Trainer, steps: int) -> Callable[[], float]:
    """Return a function that trains for some steps after a first one, and returns the mean seconds of a step."""
    clock = Clock()
    trainer.add_callback(clock)
    trainer.args.max_steps = steps + 1

    def train() -> float:
        trainer.train()
        return clock.seconds

    return train


def batches_of(trainer: Trainer, number: int) -> list[Any]:
    """Return the first batches of a trainer, from as many epochs as needed."""
    epochs: Iterable[Any] = itertools.chain.from_iterable(trainer.get_train_dataloader() for _ in itertools.count())
    return list(itertools.islice(epochs, number))


def bare_seconds(model: torch.nn.Module, batches: Sequence[Any], dtype: torch.dtype | None) -> Callable[[], float]:
    """Return a function that returns the mean seconds of a step without any trainer, after a first one.

    A step is forward, loss, backward, clipping to a norm of 1, and fused AdamW. The labels of multitask batches are
    counted before, so that no step waits for the device.

    Args:
        model: a multitask model, or a stock model that returns a loss.
        batches: the batches, which are copied to the device one by one.
        dtype: the type of autocast; None for fp32.
    """
    model.train()
    device = next(model.parameters()).device
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, fused=True)
    is_joint = isinstance(model, MultitaskModel)
    counts = [count_step([batch], model.tasks) if is_joint else None for batch in batches]

    def step(batch: Any, counted: StepCounts | None) -> None:
        moved = send_to_device(dict(batch), device, non_blocking=True)
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            loss = model(**moved).loss if counted is None else _joint_loss(model, moved, counted)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    def run() -> float:
        step(batches[0], counts[0])
        wait_for_device()
        started = time.perf_counter()
        for batch, counted in zip(batches[1:], counts[1:], strict=True):
            step(batch, counted)
        wait_for_device()
        return (time.perf_counter() - started) / (len(batches) - 1)

    return run


def _joint_loss(model: Any, batch: dict[str, Any], counts: StepCounts) -> torch.Tensor:
    inputs = {key: value for key, value in batch.items() if key not in {"labels", "weights"}}
    logits, heads = model(**inputs).logits, model.heads_by_task
    present = {name: labels for name, labels in batch["labels"].items() if len(labels)}
    return joint_loss({name: heads[name].loss_sum(logits[name], labels) for name, labels in present.items()}, counts)


def many_tasks(count: int) -> list[Task]:
    """Return tasks, half of them on words and half on texts."""
    tasks: list[Task] = []
    for number in range(count // 2):
        tasks.append(TokenClassification(name=f"words{number}", labels=[f"w{label}" for label in range(17)]))
        tasks.append(TextClassification(name=f"text{number}", labels=[f"t{label}" for label in range(8)]))
    return tasks


def random_rows(
    fed: Sequence[Task], tasks: Sequence[Task], lengths: np.ndarray, seed: int, tokenizer: PreTrainedTokenizerBase
) -> EncodedDataset:
    """Return rows of random words of one sub-word each.

    Args:
        fed: the tasks that the rows have random labels for.
        tasks: all tasks of the model.
        lengths: number of sub-words of each row, with the special ones, shape (rows,).
        seed: the seed.
        tokenizer: the tokenizer.
    """
    rng = np.random.default_rng(seed)
    vocabulary = sorted(word for word in tokenizer.get_vocab() if re.fullmatch("[a-z]+", word))
    numbers = lengths - tokenizer.num_special_tokens_to_add()
    columns: dict[str, list] = {"tokens": [rng.choice(vocabulary, number).tolist() for number in numbers]}
    for task in fed:
        of_words = task.kind.labels_words
        labels = [rng.choice(task.labels, number if of_words else 1).tolist() for number in numbers]
        columns[task.name] = labels if of_words else [label for (label,) in labels]
    names = {task.name: task.name for task in fed}
    return encode(
        Dataset.from_dict(columns), inputs={"tokens": "tokens"}, labels=names, tasks=tasks, tokenizer=tokenizer
    )
