"""The cost of training: steps, the making of batches, joint training against stock runs, many tasks, and packing."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from torch import nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface, AutoModel, PrinterCallback, set_seed

from benchmarks.measuring import Figure, Setting, figure, minus, ratio, seconds, take_turns
from benchmarks.subjects import (
    NOTHING_WRITTEN,
    bare_seconds,
    batches_of,
    encoders,
    many_tasks,
    random_encoder,
    random_rows,
    real_encoder,
    recipe_of,
    run_of,
    step_seconds,
    stock_dataset,
    stock_trainer,
    tokenizer_of,
    trainer_of,
)
from mtl_nlp import MultitaskModel, MultitaskTrainer, MultitaskTrainingArguments, TaskMixture
from mtl_nlp.evaluation.evaluator import score
from mtl_nlp.run.build import Run, build_model
from mtl_nlp.run.prepare import prepare
from mtl_nlp.training.schedule import batch_sampler


def steps(setting: Setting) -> Iterator[Figure]:
    """Compare a step of the trainer with the bare loop, and its overhead with that of the stock Trainer."""
    number = setting.size(40, 3)
    for (name, encoder), batch in itertools.product(encoders(setting).items(), setting.size((32, 128), (8,))):
        training = {"per_device_train_batch_size": batch, "bf16": False, "optim": "adamw_torch_fused"}
        run = run_of(setting, encoder, **training)
        task = next(iter(run.tasks))
        trainer = trainer_of(run)
        stock = stock_trainer(run, task, setting.folder / "stock", **training)
        found = take_turns(
            {
                "trainer": step_seconds(trainer, number),
                "bare": bare_seconds(build_model(run).to(setting.device), batches_of(trainer, number + 1), None),
                "stock": step_seconds(stock, number),
                "stock, bare": bare_seconds(stock.model, batches_of(stock, number + 1), None),
            },
            setting.repeat,
        )
        how = f"{name}, fp32, batch {batch}, {number} steps"
        yield figure(f"step of the trainer, {name}, {batch}", [1000 * each for each in found["trainer"]], "ms", "", how)
        bar = "<= 1.03" if name == "MiniLM" else ""
        yield ratio(f"trainer / bare loop, {name}, {batch}", found["trainer"], found["bare"], bar, how)
        own, of_stock = (
            minus(found[side], found[bare], 1000) for side, bare in (("trainer", "bare"), ("stock", "stock, bare"))
        )
        yield figure(f"overhead of the trainer, {name}, {batch}", own, "ms", "", f"{how}, step minus bare loop")
        yield figure(f"overhead of stock Trainer, {name}, {batch}", of_stock, "ms", "", f"{how}, one task ({task})")
        share = statistics.median(own) / statistics.median(of_stock)
        yield Figure(f"overhead / stock's, {name}, {batch}", share, share, share, "", "<= 0.5", "ratio of the medians")


def loader(setting: Setting) -> Iterator[Figure]:
    """Measure the time to make a batch, and the share of padding in the batches of an epoch."""
    for batch, bar in setting.size(((32, "<= 0.3"), (128, "<= 0.8")), ((8, "<= 0.3"),)):
        run = run_of(setting, random_encoder(setting, "toy"), per_device_train_batch_size=batch)
        trainer = trainer_of(run)
        task = next(iter(run.tasks))
        stock = stock_trainer(run, task, setting.folder / "stock", per_device_train_batch_size=batch)
        number = setting.size(60, 3)
        found = take_turns(
            {
                "own": partial(seconds, partial(batches_of, trainer, number)),
                "stock": partial(seconds, partial(batches_of, stock, number)),
            },
            setting.repeat,
        )
        own, of_stock = ([1000 * each / number for each in found[side]] for side in ("own", "stock"))
        yield figure(f"making a batch of {batch}", own, "ms", bar, f"all tasks, {number} batches")
        yield figure(f"making a batch of {batch}, stock", of_stock, "ms", "", f"one task, {number} batches")
    for name, bar in (("ewt", "<= 0.08"), ("mixed", "<= 0.15")):
        run = run_of(setting, random_encoder(setting, "toy"), name=name, per_device_train_batch_size=32)
        batches = list(batch_sampler(run.mixture, run.training_arguments()))
        rows = np.random.default_rng(0).permutation(np.concatenate(batches))
        shuffled = _padding(run.mixture, np.split(rows, range(32, len(rows), 32)))
        how = f"first epoch, {len(rows):,} rows, batch 32; the same rows in random order: {shuffled:.1%}"
        yield figure(f"padding, {name}.yaml", [_padding(run.mixture, batches)], "", bar, how)


def _padding(mixture: TaskMixture, batches: Sequence[Any]) -> float:
    lengths = [mixture.lengths[batch] for batch in batches]
    return 1 - sum(int(of.sum()) for of in lengths) / sum(int(of.max()) * len(of) for of in lengths)


def joint(setting: Setting) -> Iterator[Figure]:
    """Compare joint training with one stock run per task: the seconds, and the scores on the test split.

    The stock runs have the defaults of transformers: fp32 and random batches. All sides make the same passes over the
    same rows, in batches of 32. The joint side is measured in fp32 and in the format that the defaults choose.
    """
    encoder, scores = real_encoder(setting), {}
    passes = {"num_train_epochs": setting.epochs, "per_device_train_batch_size": 32}
    of = {"rows": setting.rows, "bf16": None, **passes}

    def train_joint(side: str, precision: dict[str, Any], seed: list[int]) -> float:
        run = prepare(recipe_of(setting, encoder, **of | precision, seed=next_seed(seed)))
        trainer = trainer_of(run)
        took = seconds(trainer.train)
        found = trainer.score(run.splits["test"]).scores
        for task, values in found.items():
            scores.setdefault((side, task), []).append(100 * values[run.tasks[task].kind.primary_score])
        return took

    def train_stock(seed: list[int]) -> float:
        run, number, took = run_of(setting, encoder, **of), next_seed(seed), 0.0
        for task in run.tasks:
            set_seed(number)
            trainer = stock_trainer(run, task, setting.folder / "stock", seed=number, learning_rate=2e-4, **passes)
            took += seconds(trainer.train)
            scores.setdefault(("stock", task), []).append(_stock_score(trainer, run, task))
        return took

    sides: dict[str, Callable[[], float]] = {
        "fp32": partial(train_joint, "joint, fp32", {"bf16": False}, [0]),
        "defaults": partial(train_joint, "joint, defaults", {}, [0]),
        "stock": partial(train_stock, [0]),
    }
    found = take_turns(sides, setting.repeat, warm_up=False)
    how = f"{setting.size(setting.rows, 48)} rows of each dataset, {setting.epochs:g} epochs, batch 32"
    for side, values in found.items():
        yield figure(f"training, {'three stock runs' if side == 'stock' else f'joint, {side}'}", values, "s", "", how)
    yield ratio("joint, fp32 / three stock runs", found["fp32"], found["stock"], "<= 0.15", how)
    yield ratio("joint, defaults / three stock runs", found["defaults"], found["stock"], "<= 0.1", how)
    for (side, task), values in sorted(scores.items(), key=lambda entry: entry[0][1]):
        yield figure(f"{task}, {side}", values, "points", "", "primary score on test, one seed per turn")


def next_seed(seed: list[int]) -> int:
    """Count one further in a list of one number, and return the number."""
    seed[0] += 1
    return seed[0]


def _stock_score(trainer: Any, run: Run, task: str) -> float:
    """Return the primary score of a stock model on test: the argmax without constraints on spans."""
    name, encoded = next(iter(run.splits["test"].items()))
    logits, labels = trainer.predict(stock_dataset(encoded, task)).predictions, run.tasks[task].labels
    predictions: list[Any] = []
    for window, of in zip(encoded.windows, logits, strict=True):
        is_text = not isinstance(window[f"label:{task}"], list)
        best = of.argmax(-1) if is_text else of[window["positions"]].argmax(-1)
        predictions.append(labels[int(best)] if is_text else [labels[index] for index in best])
    return 100 * score({name: {task: predictions}}, {name: encoded}, {task: run.tasks[task]}).mtl_score


def adapters(setting: Setting) -> Iterator[Figure]:
    """Compare a step with adapters with a step of full fine-tuning."""
    encoder, number = real_encoder(setting), setting.size(20, 2)
    options = {"r": 8, "target_modules": "all-linear"}
    sides = {}
    for side, section in {
        "full": {},
        "adapters only": {"adapters": {**options, "train_encoder": False}},
        "encoder and adapters": {"adapters": options},
    }.items():
        recipe = recipe_of(setting, encoder, "mixed", rows=2000)
        run = prepare(type(recipe).from_dict(recipe.model_dump(exclude_defaults=True) | section))
        sides[side] = step_seconds(trainer_of(run), number)
    found = take_turns(sides, setting.repeat)
    for side, bar in (("adapters only", "<= 1.1"), ("encoder and adapters", "")):
        yield ratio(f"step, {side} / full fine-tuning", found[side], found["full"], bar, "r 8 on all linear layers")


def growth(setting: Setting) -> Iterator[Figure]:
    """Compare a step of many tasks with a step of two tasks, with the same number of rows in all.

    Every row has a label of one task, so that a batch of 32 rows has rows of some 30 of the many tasks.
    """
    batch, number, many = 32, setting.size(32, 3), setting.size(128, 16)
    tokenizer = tokenizer_of(setting)
    for name, encoder in encoders(setting).items():
        sides = {}
        for count in (2, many):
            tasks = many_tasks(count)
            lengths = np.full(number * batch // count, 25)
            parts = {f"d{n}": random_rows([task], tasks, lengths, n, tokenizer) for n, task in enumerate(tasks)}
            arguments = MultitaskTrainingArguments(
                str(setting.folder / "growth"), per_device_train_batch_size=batch, disable_tqdm=True, **NOTHING_WRITTEN
            )
            model = MultitaskModel.from_encoder(encoder, tasks)
            trainer = MultitaskTrainer(model, arguments, train_dataset=TaskMixture(parts), processing_class=tokenizer)
            trainer.remove_callback(PrinterCallback)
            sides[str(count)] = step_seconds(trainer, number)
        found = take_turns(sides, setting.repeat)
        for count, values in found.items():
            yield figure(f"step, {name}, {count} tasks", [1000 * each for each in values], "ms", "", "fp32, batch 32")
        bar = "" if name == "toy" else "<= 1.2"
        yield ratio(f"step, {name}, {many} tasks / 2", found[str(many)], found["2"], bar, "one label per row")


def packing(setting: Setting) -> Iterator[Figure]:
    """Compare rows without padding in one sequence with padded batches, grouped by length and in random order.

    The encoder runs forward and backward. On CUDA in bf16 the attention is torch's `varlen_attn`; elsewhere, the rows
    are attended one by one.
    """
    encoder, on_cuda = real_encoder(setting), setting.device.type == "cuda"
    run = run_of(setting, encoder, rows=4000, per_device_train_batch_size=32)
    trainer = trainer_of(run)
    epoch = list(trainer.get_train_dataloader())  # batches of a window are similar, so that some of all are chosen
    grouped = [epoch[n] for n in np.linspace(0, len(epoch) - 1, setting.size(20, 2)).astype(int)]
    every = [row for batch in grouped for row in rows_in(batch)]
    order = np.random.default_rng(0).permutation(len(every))
    shuffled = [_padded([every[n] for n in part]) for part in np.array_split(order, len(grouped))]
    packed = [packed_batch(list(rows_in(batch))) for batch in grouped]
    register_packed(on_cuda)
    found = {}
    for dtype in (None, torch.bfloat16):
        if dtype is None and on_cuda:
            continue  # `varlen_attn` needs half precision
        sides = {}
        for side, batches in {"grouped": grouped, "random": shuffled, "packed": packed}.items():
            implementation = "packed" if side == "packed" else "sdpa"
            model = AutoModel.from_pretrained(
                encoder, attn_implementation=implementation, attention_probs_dropout_prob=0.0, dtype=torch.float32
            )
            model = model.to(setting.device).train()
            sides[side] = partial(pass_seconds, model, batches, dtype)
        found = take_turns(sides, setting.repeat)
        share = 1 - sum(map(len, every)) / sum(batch["input_ids"].numel() for batch in grouped)
        name = "fp32" if dtype is None else "bf16"
        how = f"{name}, forward and backward of the encoder, {np.mean([*map(len, every)]):.0f} sub-words per row"
        yield ratio(f"packed / grouped by length, {name}", found["packed"], found["grouped"], "", f"{how}, {share:.1%}")
        yield ratio(f"packed / random order, {name}", found["packed"], found["random"], "", how)


def register_packed(on_cuda: bool) -> None:
    """Register the attention of packed rows, which needs half precision on CUDA."""
    AttentionInterface.register("packed", _varlen if on_cuda else _row_by_row)
    AttentionMaskInterface.register("packed", lambda *args, **kwargs: None)


def rows_in(batch: Any) -> Iterator[torch.Tensor]:
    """Yield the sub-words of each row of a padded batch."""
    for row, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
        yield row[: int(mask.sum())]


def _padded(rows: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    ids = nn.utils.rnn.pad_sequence(rows, batch_first=True)
    lengths = torch.tensor([len(row) for row in rows])
    return {"input_ids": ids, "attention_mask": (torch.arange(ids.shape[1]) < lengths[:, None]).long()}


def packed_batch(rows: list[torch.Tensor]) -> dict[str, Any]:
    """Return rows as one sequence without padding, with the arguments that the attention of packed rows reads."""
    lengths = [len(row) for row in rows]
    ends = torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32)
    positions = torch.cat([torch.arange(length) for length in lengths])
    return {
        "input_ids": torch.cat(rows)[None], "position_ids": positions[None], "lengths": lengths, "ends": ends,
        "longest": max(lengths),
    }  # fmt: skip


def _row_by_row(
    module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *args: Any, lengths: list[int],
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    parts = zip(*(tensor.split(lengths, dim=2) for tensor in (query, key, value)), strict=True)
    return torch.cat([functional.scaled_dot_product_attention(*part) for part in parts], dim=2).transpose(1, 2), None


def _varlen(
    module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *args: Any, ends: torch.Tensor,
    longest: int, **kwargs: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    from torch.nn.attention.varlen import varlen_attn

    flat = [tensor.transpose(1, 2).squeeze(0) for tensor in (query, key, value)]
    return varlen_attn(*flat, ends, ends, longest, longest)[None], None


def pass_seconds(model: nn.Module, batches: Sequence[Any], dtype: torch.dtype | None) -> float:
    """Return the mean seconds of forward and backward over some batches."""
    device = next(model.parameters()).device

    def run() -> None:
        for batch in batches:
            with torch.autocast(device.type, dtype, enabled=dtype is not None):
                states = model(**send_to_device(batch, device, non_blocking=True)).last_hidden_state
            states.float().pow(2).mean().backward()
            model.zero_grad()

    return seconds(run) / len(batches)
