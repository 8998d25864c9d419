"""The batch sampler of a training, and data loaders."""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from mtl_nlp.data.collator import MultitaskDataCollator
from mtl_nlp.mixture.mixture import TaskMixture
from mtl_nlp.mixture.sampler import MixtureBatchSampler
from mtl_nlp.mixture.streaming import MixtureStream
from mtl_nlp.modeling.tasks_multitask import Task
from mtl_nlp.training.arguments import MultitaskTrainingArguments


def batch_sampler(mixture: TaskMixture, args: MultitaskTrainingArguments) -> MixtureBatchSampler:
    """Return the sampler of this process's training batches from a mixture.

    Raises:
        ValueError: if there are more processes than rows, a row is longer than the token budget, or several workers
            would read a stream.
    """
    if mixture.is_streamed and args.dataloader_num_workers > 1:
        raise ValueError(
            f"`dataloader_num_workers` should be 0 or 1, since several workers cannot share a streamed dataset. "
            f"Found {args.dataloader_num_workers}."
        )
    sampler = MixtureBatchSampler(
        mixture,
        args.per_device_train_batch_size,
        max_tokens=args.max_tokens_per_batch,
        bucket_limit=bucket_limit(mixture, args),
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


def bucket_limit(mixture: TaskMixture | None, args: MultitaskTrainingArguments) -> int | None:
    """Return the largest length to which the batches of a training are padded in buckets; None without buckets.

    A kernel in bfloat16 (oneDNN keeps some megabytes for every shape of a layer's input) and a compiled encoder exist
    for one shape, so that trainings in a chosen `precision` and compiled ones have few shapes.

    Args:
        mixture: the rows of the training, none of which an encoder must read beyond the longest; None without.
        args: the training arguments.
    """
    has_kernels = args.torch_compile or (args.precision is not None and args.number_format == "bf16")
    if mixture is None or mixture.is_streamed or not has_kernels:
        return None
    return int(mixture.lengths.max())


def default_collator(
    tokenizer: PreTrainedTokenizerBase,
    tasks: Mapping[str, Task],
    mixture: TaskMixture | None,
    args: MultitaskTrainingArguments,
) -> MultitaskDataCollator:
    """Return the collator of a trainer for which none is given."""
    return MultitaskDataCollator(tokenizer, tasks, bucket_limit=bucket_limit(mixture, args))


def data_loader(
    dataset: Any,
    batches: MixtureBatchSampler | Sequence[list[int]] | None,
    collate: Callable[[Any], Any],
    args: MultitaskTrainingArguments,
) -> DataLoader:
    """Return a loader of this process's batches, with the workers that the arguments specify.

    Args:
        dataset: the rows, or a stream of batches.
        batches: the rows of each batch; `None` for a stream.
        collate: the function that makes a batch from rows.
        args: the training arguments.
    """
    return DataLoader(
        dataset,
        **({"batch_size": None} if batches is None else {"batch_sampler": batches}),
        collate_fn=collate,
        num_workers=args.dataloader_num_workers,
        pin_memory=args.dataloader_pin_memory and args.device.type != "cpu",
        # Persistent workers of a stream would not receive the start of its next epoch.
        persistent_workers=args.dataloader_persistent_workers and not isinstance(dataset, MixtureStream),
        prefetch_factor=args.dataloader_prefetch_factor,
        multiprocessing_context=args.dataloader_multiprocessing_context if args.dataloader_num_workers else None,
        worker_init_fn=end_with_parent if args.dataloader_num_workers else None,
    )


def _ignore_lost_connections(kind: type[BaseException], error: BaseException, traceback: Any) -> None:
    """Print an error of a thread in a worker, unless the parent process has ended in the middle of a batch.

    torch sends the errors of the worker itself to the parent process.
    """
    if not isinstance(error, ConnectionError):
        sys.__excepthook__(kind, error, traceback)


def end_with_parent(worker: int) -> None:
    """Let a worker of a data loader end at a SIGTERM from its parent process only.

    Clusters, and `timeout`, send SIGTERM to all processes of a command. Without its workers, the training could not end
    its optimizer step and stop with a checkpoint. Where the sender of a signal is unknown (macOS and Windows), a worker
    ends at any SIGTERM.
    """
    sys.excepthook = _ignore_lost_connections
    if sys.platform != "linux":
        return
    parent = os.getppid()

    def wait() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
            pass
        os._exit(0)

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=wait, daemon=True).start()
