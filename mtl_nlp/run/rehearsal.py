"""The building of a trainer, its optimizer and its schedule without weights, which finds arguments that do not fit."""

from __future__ import annotations

import contextlib
import copy
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.utils.checkpoint
from accelerate.utils import FullyShardedDataParallelPlugin
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau
from transformers.optimization import GreedyLR

from mtl_nlp.errors import MtlNlpError, RunError
from mtl_nlp.messages import one_line
from mtl_nlp.modeling.modeling_multitask import MultitaskModel
from mtl_nlp.run.build import Run, build_trainer
from mtl_nlp.run.refusal import REFUSALS, is_of_own_code, refused
from mtl_nlp.training.arguments import MultitaskTrainingArguments
from mtl_nlp.training.completeness import describe_last_checkpoint
from mtl_nlp.training.trainer import MultitaskTrainer


class _Rehearsal(MultitaskTrainer):
    """A trainer that moves no weights to a device and reaches no Hub."""

    def _move_model_to_device(self, model: nn.Module, device: torch.device) -> None:
        pass

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Create no repository."""


def rehearse(run: Run, model: MultitaskModel, arguments: MultitaskTrainingArguments, steps: int) -> None:
    """Build the trainer of a run with its optimizer and schedule, from a model without weights, and train nothing.

    Sharded training needs its processes, so that only its configuration is checked.

    Args:
        run: the run.
        model: the model on the meta device, which is not changed.
        arguments: the training arguments of the run.
        steps: the number of optimizer steps.

    Raises:
        RecipeError: if the libraries refuse an argument.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            if arguments.fsdp_plugin_args is not None:
                FullyShardedDataParallelPlugin(**arguments.fsdp_plugin_args)
            if arguments.fsdp_plugin_args is None and arguments.deepspeed_plugin is None:
                _rehearse(run, _without_memory(model), _in_folder(arguments, folder), steps)
        except REFUSALS as error:
            if is_of_own_code(error, run.recipe.own_code):
                raise
            raise refused(error) from error


def _rehearse(run: Run, model: MultitaskModel, arguments: MultitaskTrainingArguments, steps: int) -> None:
    trainer = build_trainer(run, model, arguments, trainer_class=_Rehearsal, teaches=False)
    trainer.get_train_dataloader()
    trainer.create_optimizer_and_scheduler(steps)
    _follow(trainer.lr_scheduler, steps)
    if arguments.torch_compile:
        torch.compile(torch.relu, backend=arguments.torch_compile_backend, mode=arguments.torch_compile_mode)
    if arguments.neftune_noise_alpha is not None:
        model.get_input_embeddings()
    if arguments.activation_checkpointing:
        options: dict[str, Any] = dict(arguments.activation_checkpointing_kwargs or {})
        layers = {"every_n_layers": options.pop("every_n_layers", 1), "offload": options.pop("offload", False)}
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=options or None, **layers)
        _call_checkpoint(options)


def _follow(schedule: LRScheduler, steps: int) -> None:
    """Compute the learning rates of a schedule at the start, in the middle and at the end of training."""
    if isinstance(schedule, LambdaLR):
        for step in (0, 1, steps // 2, steps):
            for factor in schedule.lr_lambdas:
                factor(step)
    elif isinstance(schedule, ReduceLROnPlateau | GreedyLR):
        for loss in (1.0, 2.0):
            schedule.step(loss)


def _call_checkpoint(options: dict[str, Any]) -> None:
    """Call the function that recomputes activations with its options, which models pass on only in a forward pass."""
    values = torch.zeros(1, requires_grad=True)
    torch.utils.checkpoint.checkpoint(torch.relu, values, **{"use_reentrant": True, **options})


def _in_folder(arguments: MultitaskTrainingArguments, folder: str) -> MultitaskTrainingArguments:
    """Return a copy of training arguments whose trainer writes into a folder and pushes nothing."""
    arguments = copy.copy(arguments)
    arguments.output_dir, arguments.push_to_hub = folder, False
    return arguments


def _without_memory(model: MultitaskModel) -> MultitaskModel:
    """Return a copy of a model on the meta device whose parameters are on the CPU and take no memory.

    Optimizers refuse parameters on the meta device. Each parameter is one number that is seen as its shape.
    """
    model = copy.deepcopy(model)
    made: dict[nn.Parameter, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter not in made:
                values = torch.zeros((), dtype=parameter.dtype).expand(parameter.shape)
                made[parameter] = nn.Parameter(values, requires_grad=parameter.requires_grad)
            module.register_parameter(name, made[parameter])
    return model


@contextlib.contextmanager
def failures_reported(trainer: MultitaskTrainer, run: Run, folder: Path, *, is_resumed: bool = False) -> Iterator[None]:
    """Turn an error of the libraries in training into an error for users, unless the recipe runs code of its own.

    Args:
        trainer: the trainer.
        run: the run.
        folder: the folder of the run.
        is_resumed: whether the run resumes. The trainer checks the files of its checkpoint, and an error that no check
            has found is not one of the arguments.

    Raises:
        RecipeError: if the training fails before the end of its first step.
        RunError: if the training fails later.
    """
    before = trainer.state.global_step
    try:
        yield
    except REFUSALS as error:
        # The command line reports errors of files itself, such as a closed pipe.
        if isinstance(error, MtlNlpError | OSError) or run.recipe.own_code or is_resumed:
            raise
        if trainer.state.global_step == before:
            raise refused(error) from error
        raise RunError(
            f"training: step {trainer.state.global_step + 1}: {type(error).__name__}: {one_line(error)} "
            f"{describe_last_checkpoint(folder)}"
        ) from error
