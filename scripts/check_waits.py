"""Check on a GPU that the watch over losses and gradients never makes the host wait, and measure its cost.

    python scripts/check_waits.py

The script needs a GPU, and neither a network nor data. A random encoder of the size of BERT-base trains on random texts
with torch's synchronization check set to raise an error inside the watch, with each kind of optimizer, in float32, bf16
and fp16. A loss that overflows must then end the run.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, PreTrainedTokenizerFast
from transformers.utils import logging

from mtl_nlp import (
    MultitaskConfig,
    MultitaskModel,
    MultitaskTrainer,
    MultitaskTrainingArguments,
    Regression,
    TaskMixture,
    TextClassification,
    encode,
)
from mtl_nlp.errors import RunError
from mtl_nlp.training.callbacks import StepHooks
from mtl_nlp.training.divergence import DivergenceWatch

ROWS = 256
TASKS = [TextClassification(name="topic", labels=["a", "b"]), Regression(name="score")]
SETTINGS: tuple[dict[str, Any], ...] = (
    {"optim": "adamw_torch_fused"},
    {"optim": "adamw_torch_fused", "bf16": True},
    {"optim": "adamw_torch", "bf16": True},
    {"optim": "sgd"},
    {"optim": "adamw_torch_fused", "fp16": True},
)


@contextlib.contextmanager
def no_waits() -> Iterator[None]:
    """Raise an error if the host waits for the GPU in this context."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


class Checked(DivergenceWatch):
    """A watch that raises an error where the host waits, and measures its time on the host and on the GPU."""

    def reset(self) -> None:
        super().reset()
        self.host_seconds: list[float] = []
        self.events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def observe(self, loss_sums: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begun = time.perf_counter()
        start.record()
        with no_waits():
            super().observe(loss_sums, optimizer)
        end.record()
        self.host_seconds.append(time.perf_counter() - begun)
        self.events.append((start, end))

    def protect(self, optimizer: torch.optim.Optimizer) -> None:
        with no_waits():
            super().protect(optimizer)
        if not self._has_scaler:
            torch.cuda.set_sync_debug_mode("error")  # until `release`: the optimizer step must not wait either

    def release(self, optimizer: torch.optim.Optimizer) -> None:
        torch.cuda.set_sync_debug_mode("default")
        super().release(optimizer)


def mixture_of(scores: list[float], tokenizer: PreTrainedTokenizerFast) -> TaskMixture:
    columns = {"text": ["the quick brown fox " * 12] * ROWS, "topic": ["a", "b"] * (ROWS // 2), "score": scores}
    labels = {"topic": "topic", "score": "score"}
    data = Dataset.from_dict(columns)
    return TaskMixture({"d": encode(data, inputs={"text": "text"}, labels=labels, tasks=TASKS, tokenizer=tokenizer)})


def train(mixture: TaskMixture, tokenizer: PreTrainedTokenizerFast, folder: str, **settings: Any) -> Checked:
    torch.manual_seed(0)
    model = MultitaskModel(MultitaskConfig(text_config=AutoConfig.for_model("bert"), tasks=TASKS))
    arguments = MultitaskTrainingArguments(
        folder, max_steps=ROWS // 16, per_device_train_batch_size=16, disable_tqdm=True, save_strategy="no",
        logging_steps=ROWS // 16, learning_rate=1e-5, **settings,
    )  # fmt: skip
    trainer = MultitaskTrainer(model, arguments, None, mixture, processing_class=tokenizer)
    watch = Checked([task.name for task in TASKS], trainer.accelerator)
    hooks = next(callback for callback in trainer.callback_handler.callbacks if isinstance(callback, StepHooks))
    trainer.watch = hooks.watch = watch
    try:
        trainer.train()
    finally:
        torch.cuda.set_sync_debug_mode("default")
        is_finite = all(bool(weight.isfinite().all()) for weight in model.parameters())
    assert is_finite, "a weight is not finite"
    return watch


def main() -> None:
    if not torch.cuda.is_available():
        sys.exit("check_waits.py needs a GPU. Found none.")
    logging.set_verbosity_error()
    words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "the", "quick", "brown", "fox"]
    vocabulary = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, "[UNK]"))
    vocabulary.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=vocabulary, pad_token="[PAD]", unk_token="[UNK]", model_max_length=64
    )
    scores = [row / ROWS for row in range(ROWS)]
    with tempfile.TemporaryDirectory() as folder:
        for settings in SETTINGS:
            watch = train(mixture_of(scores, tokenizer), tokenizer, str(Path(folder) / "run"), **settings)
            torch.cuda.synchronize()
            on_gpu = statistics.median(start.elapsed_time(end) for start, end in watch.events)
            on_host = 1000 * statistics.median(watch.host_seconds)
            print(
                f"{settings}: no waits; {on_gpu:.3f} ms per step on the GPU, {on_host:.3f} ms on the host", flush=True
            )
        for settings in SETTINGS:
            bad = mixture_of([*scores[:-1], 3e38], tokenizer)
            try:
                train(bad, tokenizer, str(Path(folder) / "run"), **settings)
            except RunError as error:
                assert "the loss of task 'score' became infinite or NaN" in str(error), error
                print(f"{settings}: {error}", flush=True)
            else:
                sys.exit(f"{settings}: the run did not end")


if __name__ == "__main__":
    main()
