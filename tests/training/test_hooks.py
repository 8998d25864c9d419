"""The parts of Trainer that the subclasses use exist, with their names and arguments."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest
from transformers import Trainer, TrainerCallback

from mtl_nlp import MultitaskTrainer
from mtl_nlp.training import callbacks, evaluation, pushing, restoring, stopping, trainer, watching

OVERRIDDEN = {
    "__init__",
    "_clip_grad_norm",
    "_evaluate",
    "_finalize_training",
    "_hp_search_setup",
    "_prepare_inputs",
    "_push_from_checkpoint",
    "_save_checkpoint",
    "_save_rng_state",
    "call_model_init",
    "compute_loss",
    "create_model_card",
    "create_optimizer",
    "evaluate",
    "evaluation_loop",
    "floating_point_ops",
    "get_batch_samples",
    "get_decay_parameter_names",
    "get_eval_dataloader",
    "get_test_dataloader",
    "get_train_dataloader",
    "hyperparameter_search",
    "init_hf_repo",
    "log",
    "num_examples",
    "pop_callback",
    "predict",
    "prediction_step",
    "push_to_hub",
    "remove_callback",
    "save_model",
    "set_initial_training_values",
    "train",
    "training_step",
}
"""A method that transformers renames is no longer among those found, and would never be called."""

NOT_OURS = {
    "create_model_card": set(inspect.signature(Trainer.create_model_card).parameters) - {"self"},
    "evaluation_loop": set(inspect.signature(Trainer.evaluation_loop).parameters) - {"self"},
    "push_to_hub": {"kwargs"},
}
"""Parameters of Trainer's that are refused: those of a card of a different form, and of a loop for one task."""

OTHER_DEFAULTS = {"__init__", "hyperparameter_search", "push_to_hub"}

OURS = [each for each in MultitaskTrainer.__mro__ if issubclass(each, Trainer) and each is not Trainer]

METHODS = {name: method for each in reversed(OURS) for name, method in vars(each).items() if inspect.isfunction(method)}


def test_exactly_these_methods_of_trainer_are_overridden():
    assert {name for name in METHODS if name in dir(Trainer)} == OVERRIDDEN


PRIVATE = {
    "_evaluate": "a resumed run does not repeat the evaluation at the start",
    "_hp_search_setup": "a search sets the arguments of a trial before the model is built",
    "_finalize_training": "the end of a stopped training deletes no checkpoint and loads no best model",
    "_prepare_inputs": "the host does not wait for copies to the device",
    "_clip_grad_norm": "the norm of the gradients is computed once per step, also for the check for infinite gradients",
    "_push_from_checkpoint": "a push is one commit without secrets, of files that no later save changes",
    "_save_checkpoint": "a checkpoint shows whether it is complete",
    "_save_rng_state": "all processes have written their parts before the previous checkpoint is deleted",
}
"""The private methods that are overridden, with the reasons: Trainer has no public method or callback for them."""


def test_only_these_overridden_methods_are_private():
    assert {name for name in OVERRIDDEN if name.startswith("_")} == {"__init__", *PRIVATE}


@pytest.mark.parametrize("name", sorted(OVERRIDDEN))
def test_overridden_method_has_the_arguments_of_trainer(name):
    theirs, ours = (inspect.signature(method).parameters for method in (vars(Trainer)[name], METHODS[name]))
    shared = [parameter for parameter in theirs if parameter not in NOT_OURS.get(name, ())]
    order = sorted if name == "__init__" else list  # called with keywords, and the tokenizer has an earlier position
    assert order(parameter for parameter in ours if parameter in theirs) == order(shared)
    for parameter in shared:
        assert ours[parameter].kind == theirs[parameter].kind, parameter
        assert ours[parameter].default == theirs[parameter].default or name in OTHER_DEFAULTS, parameter
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    added = (each for each in ours.keys() - theirs.keys() if ours[each].kind not in several)
    for parameter in added:  # never positional
        assert ours[parameter].default is not inspect.Parameter.empty, parameter
        assert ours[parameter].kind == inspect.Parameter.KEYWORD_ONLY or name == "__init__", parameter


MODULES = [trainer, evaluation, pushing, callbacks, restoring, stopping, watching]


def private_names(file: Path) -> set[str]:
    """Return the names of the private attributes that a file reads from any object."""
    nodes = (node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.Attribute))
    return {node.attr for node in nodes if node.attr.startswith("_") and not node.attr.startswith("__")}


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_every_used_private_name_exists(module, trainer_of):
    instance = trainer_of()
    missing = {name for name in private_names(Path(module.__file__)) if name not in dir(instance)}
    assert not missing


def test_exactly_these_private_names_of_trainer_are_used():
    used = set().union(*(private_names(Path(module.__file__)) for module in MODULES))
    assert {name for name in used if name in dir(Trainer)} == {
        "_evaluate", "_finalize_training", "_get_output_dir", "_save_checkpoint", "_save_rng_state"
    }  # fmt: skip


@pytest.mark.parametrize("name", ["CurrentArguments", "EpochStart", "StepHooks"])
def test_every_hook_of_the_callbacks_is_a_hook_of_trainer(name):
    hooks = {hook for hook in vars(vars(callbacks)[name]) if hook.startswith("on_")}
    assert hooks
    assert hooks <= set(dir(TrainerCallback))
