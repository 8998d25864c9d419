"""The figures of an accelerator, of encoders with random weights on random words: scripts/benchmark_gpu runs them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, PrinterCallback, pipeline

from benchmarks.answering import bare_answers
from benchmarks.measuring import Figure, Setting, figure, ratio, seconds, take_turns
from benchmarks.subjects import (
    NOTHING_WRITTEN,
    SHAPES,
    bare_seconds,
    batches_of,
    random_encoder,
    random_rows,
    step_seconds,
    tokenizer_of,
)
from benchmarks.training import packed_batch, pass_seconds, register_packed, rows_in
from mtl_nlp import (
    MultitaskModel,
    MultitaskTrainer,
    MultitaskTrainingArguments,
    Task,
    TaskMixture,
    TextClassification,
    TokenClassification,
)

TASKS: list[Task] = [
    TokenClassification(name="pos", labels=[f"P{number}" for number in range(17)]),
    TokenClassification(name="ner", labels=["O", *(f"{tag}-{of}" for of in ("LOC", "ORG", "PER") for tag in "BI")],
                        scheme="iob2"),
    TextClassification(name="genre", labels=["answers", "email", "newsgroup", "reviews", "weblog"]),
]  # fmt: skip
CASES = [(32, 25), (128, 25), (32, 115), (128, 115), (288, 115)]
"""Rows of a batch, and mean sub-words of a row. The last has 33,120 sub-words."""
FULL = 2**15
"""The number of sub-words of a step from which on the device should be busy."""


def trainer_for(setting: Setting, shape: str, batch: int, length: int, steps: int, **more: Any) -> MultitaskTrainer:
    """Return a trainer in bf16 of an encoder with random weights, on rows with all labels.

    Args:
        setting: the sizes.
        shape: the shape of the encoder.
        batch: number of rows of a batch.
        length: mean number of sub-words of a row; the lengths are spread evenly over half of it to one and a half.
        steps: number of batches in the data.
        **more: further training arguments.
    """
    lengths = np.random.default_rng(0).integers(max(4, length // 2), 3 * length // 2, batch * steps, endpoint=True)
    tokenizer = tokenizer_of(setting)
    arguments = MultitaskTrainingArguments(
        str(setting.folder / "device"), per_device_train_batch_size=batch, bf16=True, disable_tqdm=True,
        **NOTHING_WRITTEN, **more,
    )  # fmt: skip
    trainer = MultitaskTrainer(
        model_for(setting, shape),
        arguments,
        train_dataset=TaskMixture({"random": random_rows(TASKS, TASKS, lengths, 0, tokenizer)}),
        processing_class=tokenizer,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def model_for(setting: Setting, shape: str) -> MultitaskModel:
    """Return a model with the three tasks on an encoder with random weights."""
    return MultitaskModel.from_encoder(random_encoder(setting, shape), TASKS)


def matrix_rate(setting: Setting) -> float:
    """Return the measured rate of a large matrix product in bf16, in operations per second."""
    size = 8192 if setting.device.type == "cuda" else 512
    factors = torch.randn(2, size, size, device=setting.device, dtype=torch.bfloat16)
    return 2 * size**3 / min(seconds(lambda: factors[0] @ factors[1], 10) for _ in range(6))


def operations(shape: str, batches: list[Any]) -> float:
    """Return the mean operations of a step: 6 for each parameter without embeddings and sub-word, and the attention."""
    hidden, layers = SHAPES[shape]["hidden_size"], SHAPES[shape]["num_hidden_layers"]
    parameters = layers * (4 * hidden**2 + 2 * hidden * SHAPES[shape]["intermediate_size"])
    lengths = [batch["attention_mask"].sum(1).double() for batch in batches]
    return float(np.mean([6 * parameters * of.sum() + 12 * layers * hidden * (of**2).sum() for of in lengths]))


def device_steps(setting: Setting) -> Iterator[Figure]:
    """Compare a step of the trainer with the bare loop, and with the rate of the device: eager, compiled and packed."""
    number, rate = setting.size(8, 2), matrix_rate(setting)
    yield figure("rate of a matrix product, bf16", [rate / 1e12], "Tflop/s", "", str(setting.device))
    shapes = setting.size(("MiniLM", "BERT-base"), ("toy",))
    for shape, (batch, length) in itertools.product(shapes, setting.size(CASES, [(4, 8)])):
        trainer = trainer_for(setting, shape, batch, length, number + 1)
        batches = batches_of(trainer, number + 1)
        bare = model_for(setting, shape).to(setting.device)
        sides = {
            "trainer": step_seconds(trainer, number),
            "bare": bare_seconds(bare, batches, torch.bfloat16),
        }
        is_full = batch * length >= FULL
        if is_full and shape == shapes[-1]:
            compiled = trainer_for(setting, shape, batch, length, number + 1, torch_compile=True)
            sides["compiled"] = step_seconds(compiled, number)
        found = take_turns(sides, setting.repeat)
        how = f"{shape}, bf16, {batch} rows of {length} sub-words, {number} steps"
        for side, values in found.items():
            yield figure(f"step, {side}, {shape}, {batch} x {length}", [1000 * each for each in values], "ms", "", how)
            done = operations(shape, batches)
            shares = [100 * done / each / rate for each in values]
            bar = ">= 45" if is_full and shape == "BERT-base" and side != "bare" else ""
            yield figure(f"share of the rate, {side}, {shape}, {batch} x {length}", shares, "%", bar, how)
        bar = "<= 1.05" if is_full else "<= 1.1"
        name = f"trainer / bare loop, {shape}, {batch} x {length}"
        yield ratio(name, found["trainer"], found["bare"], bar, how)
        if "compiled" in found:
            yield ratio(f"compiled / eager, {shape}, {batch} x {length}", found["compiled"], found["trainer"], "", how)
        if is_full or setting.tiny:
            yield from _packed_share(setting, shape, batches, rate, how)


def _packed_share(setting: Setting, shape: str, batches: list[Any], rate: float, how: str) -> Iterator[Figure]:
    """Compare the encoder over packed rows with the encoder over padded rows."""
    register_packed(setting.device.type == "cuda")
    sides = {}
    for side, of in (("padded", batches), ("packed", [packed_batch(list(rows_in(batch))) for batch in batches])):
        implementation = "packed" if side == "packed" else "sdpa"
        folder = random_encoder(setting, shape)
        model = AutoModel.from_pretrained(
            folder, attn_implementation=implementation, attention_probs_dropout_prob=0.0, dtype=torch.float32
        )
        keys = ("input_ids", "attention_mask") if side == "padded" else tuple(of[0])
        inputs = [{key: batch[key] for key in keys} for batch in of]
        sides[side] = partial(pass_seconds, model.to(setting.device).train(), inputs, torch.bfloat16)
    found = take_turns(sides, setting.repeat)
    done = operations(shape, batches)
    for side, values in found.items():
        shares = [100 * done / each / rate for each in values]
        yield figure(f"share of the rate, encoder, {side}, {shape}", shares, "%", "", f"{how}, without optimizer")
    yield ratio(f"encoder, packed / padded, {shape}", found["packed"], found["padded"], "", how)


def device_answers(setting: Setting) -> Iterator[Figure]:
    """Compare the pipeline with the bare loop in texts per second."""
    number = setting.size(2048, 8)
    tokenizer = tokenizer_of(setting)
    lengths = np.random.default_rng(0).integers(8, 43, number)
    rows = random_rows(TASKS, TASKS, lengths, 0, tokenizer).inputs["tokens"]
    texts = [" ".join(row) for row in rows]
    shapes = setting.size(("MiniLM", "BERT-base"), ("toy",))
    for shape, dtype in itertools.product(shapes, (torch.float32, torch.bfloat16)):
        model = model_for(setting, shape).eval().to(setting.device, dtype)
        for batch in setting.size((32, 256), (4,)):
            own = pipeline("multitask", model=model, tokenizer=tokenizer, device=setting.device)
            found = take_turns(
                {
                    "pipeline": partial(seconds, partial(own, texts, batch_size=batch)),
                    "bare": partial(seconds, partial(bare_answers(model, tokenizer, batch), texts)),
                },
                setting.repeat,
            )
            of = f"{shape}, {str(dtype).removeprefix('torch.')}, batch {batch}"
            for side, values in found.items():
                yield figure(f"texts per second, {side}, {of}", [number / each for each in values], "texts/s", "", of)
            yield ratio(f"speed, pipeline / bare loop, {of}", found["bare"], found["pipeline"], "", f"{number} texts")
