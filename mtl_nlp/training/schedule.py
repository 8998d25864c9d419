"""The batches that a training run takes from a mixture."""

from __future__ import annotations

import math

from mtl_nlp.mixture.mixture import TaskMixture
from mtl_nlp.mixture.sampler import MixtureBatchSampler
from mtl_nlp.training.arguments import MultitaskTrainingArguments


def batch_sampler(mixture: TaskMixture, args: MultitaskTrainingArguments) -> MixtureBatchSampler:
    """The batches that training with these arguments takes from a mixture.

    Raises:
        ValueError: if there are more processes than rows, a row is longer than the token budget, or a stream should be
            read by several workers.
    """
    if mixture.is_streamed and args.dataloader_num_workers > 1:
        raise ValueError(
            f"`dataloader_num_workers` should be 0 or 1, since a streamed dataset is read in one go. "
            f"Found {args.dataloader_num_workers}."
        )
    sampler = MixtureBatchSampler(
        mixture,
        args.per_device_train_batch_size,
        max_tokens=args.max_tokens_per_batch,
        seed=args.seed if args.data_seed is None else args.data_seed,
        process_index=args.process_index,
        num_processes=args.world_size,
    )
    accumulated = args.gradient_accumulation_steps
    steps = args.max_steps
    if steps <= 0:
        steps = math.ceil(args.num_train_epochs * math.ceil(len(sampler) / accumulated))
    sampler.total_batches = steps * accumulated
    return sampler
