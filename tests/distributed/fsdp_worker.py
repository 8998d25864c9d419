"""Train and evaluate a model under FSDP2, each process on different tasks: `fsdp_worker.py TOKENIZER FOLDER`.

Trainer does not support FSDP2 on a CPU, so this script calls `fully_shard` like accelerate.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from builders import PULL, build_adapted_model, build_model, mixed_splits
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from toy_splits import TASKS
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from mtl_nlp import (
    MultitaskDataCollator,
    MultitaskModel,
    MultitaskTrainer,
    MultitaskTrainingArguments,
    joint_loss,
)
from mtl_nlp.balancing.pull import adapter_deviation
from mtl_nlp.evaluation.dealing import deal_batches
from mtl_nlp.modeling.loss_multitask import StepCounts, count_step
from mtl_nlp.training.divergence import DivergenceWatch

STEPS = [
    (("words", range(6)), ("texts", range(9))),  # one process has pos and ner, the other topic and score
    (("texts", range(9, 12)), ("words", range(6, 11))),
    (("words", range(4)), ("words", range(4, 11))),  # no process has topic or score
]


def counts_of_all(batch: dict[str, Any]) -> StepCounts:
    shares: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(shares, count_step([batch], TASKS))
    return sum(shares, StepCounts(0, {}, {}))


def train(model: MultitaskModel, batches: list[dict[str, Any]], processes: int, pull: float = 0.0) -> dict[str, Any]:
    """Train, and return the losses and gradients of each step and the final weights."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    found: dict[str, Any] = {"losses": [], "gradients": []}
    for batch in batches:
        counts = counts_of_all(batch) if processes > 1 else count_step([batch], TASKS)
        loss = joint_loss(model(**batch).loss_sums, counts) * processes
        if pull:
            loss = loss + pull * adapter_deviation(model)
        loss.backward()
        found["losses"].append(loss.item())
        trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        found["gradients"].append({name: whole(parameter.grad) for name, parameter in trained.items()})
        optimizer.step()
        optimizer.zero_grad()
    return {**found, "weights": {name: whole(value) for name, value in model.state_dict().items()}}


def whole(tensor: torch.Tensor) -> torch.Tensor:
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()


def sharded(model: MultitaskModel, checkpointing: bool = False, **settings: Any) -> MultitaskModel:
    """Shard each encoder layer as a group, and then the root with embeddings and heads."""
    if checkpointing:
        model.activation_checkpointing_enable()
    for layer in model.encoder.encoder.layer:
        fully_shard(layer, **settings)
    fully_shard(model, **settings)
    return model


def evaluate(model: MultitaskModel, tokenizer: PreTrainedTokenizerBase, folder: str, shard: bool) -> dict[str, Any]:
    """Return metrics and predictions of 17 texts in three batches: two for one process, and one for the other."""
    args = MultitaskTrainingArguments(folder, disable_tqdm=True, per_device_eval_batch_size=6)
    split = {"words": mixed_splits(tokenizer)["words"]}
    trainer = MultitaskTrainer(model, args, processing_class=tokenizer, eval_dataset=split)
    if shard:
        sharded(model)
        trainer.is_fsdp_enabled = True
    all_sharded = all(isinstance(parameter, DTensor) for parameter in model.parameters())
    own, repeated = deal_batches(split["words"], 6, args.world_size, equal_passes=shard)[args.process_index]
    metrics = {key: value for key, value in trainer.evaluate().items() if "per_second" not in key}
    metrics.pop("eval_runtime")
    return {
        "world_size": args.world_size,
        "all_sharded": all_sharded,
        "batches": len(own) - repeated,
        "passes": len(own),
        "metrics": metrics,
        "predictions": trainer.predict_rows(split["words"]),
    }


def diverge(batch: dict[str, Any], rank: int) -> dict[str, Any]:
    """Clip and protect a gradient of which one process has a part that is not finite."""
    model = sharded(build_model().train())
    found: dict[str, Any] = {}
    for name in ("finite", "diverged"):
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        watch = DivergenceWatch(list(TASKS), Accelerator())
        loss_sums = model(**batch).loss_sums
        joint_loss(loss_sums, count_step([batch], TASKS)).backward()
        if name == "diverged" and rank == 0:
            next(parameter.grad.to_local() for parameter in model.parameters())[0] = float("nan")
        watch.observe(torch.stack(list(loss_sums.values())).detach(), optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        watch.protect(optimizer)
        before = {name: whole(value) for name, value in model.state_dict().items()}
        optimizer.step()
        watch.release(optimizer)
        record = watch.record(model.named_parameters())
        dist.all_reduce(record)
        after = {name: whole(value) for name, value in model.state_dict().items()}
        moved = sum(not torch.equal(value, before[key]) for key, value in after.items())
        is_finite = all(bool(value.isfinite().all()) for value in after.values())
        found[name] = {"read": watch.read(record), "moved": moved, "is_finite": is_finite}
        optimizer.zero_grad()
    return {name: {**each, "read": each["read"] and tuple(each["read"])} for name, each in found.items()}


def main(tokenizer: str, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, processes = dist.get_rank(), dist.get_world_size()
    loaded = AutoTokenizer.from_pretrained(tokenizer)
    splits, collator = mixed_splits(loaded), MultitaskDataCollator(loaded, TASKS)

    def batch_of(*shares: tuple[str, range]) -> dict[str, Any]:
        return collator([splits[name].windows[position] for name, positions in shares for position in positions])

    own = [batch_of(step[rank]) for step in STEPS]
    together = [batch_of(*step) for step in STEPS]
    models: dict[str, Any] = {
        "plain": build_model,
        "adapters": build_adapted_model,
        "frozen": lambda: build_adapted_model(train_encoder=False),
    }
    found: dict[str, Any] = {
        "world_size": processes,
        "task_rows": [count_step([batch], TASKS).task_rows for batch in own],
        "one process": {
            **{name: train(build().train(), together, 1) for name, build in models.items()},
            "pull": train(build_adapted_model().train(), together, 1, PULL),
        },
    }
    variants: dict[str, dict[str, Any]] = {
        "sharded": {},
        "root too after forward": {"reshard_after_forward": True},
        "checkpointing": {"checkpointing": True},
        "bf16": {"mp_policy": MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)},
    }
    runs = [(kind, variant, 0.0) for kind in models for variant in variants]
    for kind, variant, pull in [*runs, ("adapters", "sharded", PULL)]:
        model = sharded(models[kind]().train(), **variants[variant])
        parameters = dict(model.named_parameters())
        found["pull" if pull else f"{kind}, {variant}"] = {
            "all_sharded": all(isinstance(parameter, DTensor) for parameter in parameters.values()),
            "own_elements": sum(parameter.to_local().numel() for parameter in parameters.values()),
            "elements": sum(parameter.numel() for parameter in parameters.values()),
            **train(model, own, processes, pull),
        }
    found["divergence"] = diverge(own[0], rank)
    for name, build in (("plain", lambda: build_model(std=0.3)), ("adapters", build_adapted_model)):
        for shard in (False, True):
            found[f"evaluation, {name}, {shard}"] = evaluate(build(), loaded, folder, shard)
    torch.save(found, Path(folder) / f"rank{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
