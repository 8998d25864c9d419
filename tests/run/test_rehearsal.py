from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
from toys import sample_recipe
from unusual_arguments import EVERY_STEP, UNUSUAL

from mtl_nlp import Recipe
from mtl_nlp.errors import RecipeError, RunError
from mtl_nlp.run.arguments import training_arguments
from mtl_nlp.run.build import build_meta_model, build_model, build_trainer, check_splits
from mtl_nlp.run.plan import describe_plan
from mtl_nlp.run.prepare import prepare
from mtl_nlp.run.rehearsal import failures_reported, rehearse


@pytest.fixture(scope="module")
def quick_recipe(encoder_folder, tmp_path_factory):
    """The sample recipe with a folder for this module."""
    return sample_recipe(encoder_folder("bert"), tmp_path_factory.mktemp("rehearsal") / "run", max_steps=2)


@pytest.fixture(scope="module")
def run(quick_recipe):
    """The sample recipe, loaded and encoded once."""
    return prepare(Recipe.from_dict(quick_recipe))


def planned(run, recipe, training):
    """Return a run with other training arguments and these arguments, as the plan accepts them."""
    changed = Recipe.from_dict(recipe | {"training": recipe["training"] | training})
    arguments = training_arguments(changed)
    with_arguments = dataclasses.replace(run, recipe=changed)
    check_splits(with_arguments, arguments)
    describe_plan(with_arguments, arguments)
    return with_arguments, arguments


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"optim": "adamw_8bit"}, "^training: .*bitsandbytes"),
        ({"optim": "sgd", "optim_args": "nesterov=True"}, "^training: Nesterov momentum requires a momentum"),
        ({"lr_scheduler_kwargs": {"nonsense": 1}}, "^training: TypeError: .*'nonsense'"),
        (
            {"lr_scheduler_type": "reduce_lr_on_plateau", "lr_scheduler_kwargs": {"patience": "x"}, **EVERY_STEP},
            r"^training: TypeError: ",
        ),
        ({"report_to": ["nonsense"]}, "^training: nonsense is not supported, only "),
        ({"dataloader_persistent_workers": True}, "^training: persistent_workers option needs num_workers > 0$"),
        (
            {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"nonsense": 1}},
            "^training: Unexpected keyword arguments: nonsense$",
        ),
        ({"metric_for_best_model": "ner_f2", **EVERY_STEP}, "^training: `metric_for_best_model` .* mean 'ner_f1'"),
        ({"fsdp": "nonsense"}, "^training: Unknown `fsdp` option: nonsense$"),
        ({"log_level": "loud"}, r"^training\.log_level: no such value 'loud'\. .*Valid: .*debug"),
    ],
)
def test_the_plan_finds_what_trainer_would_refuse(run, quick_recipe, training, message):
    with pytest.raises(RecipeError, match=message):
        planned(run, quick_recipe, training)


def test_the_plan_creates_no_files_and_changes_nothing(run, quick_recipe):
    _, arguments = planned(run, quick_recipe, {"push_to_hub": True, "hub_model_id": "ada/x"})
    assert not Path(quick_recipe["output_dir"]).exists()
    assert (arguments.output_dir, arguments.push_to_hub) == (quick_recipe["output_dir"], True)
    model = build_meta_model(run)
    rehearse(run, model, training_arguments(run.recipe), 2)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


def test_an_argument_for_several_processes_is_kept_for_them(run, quick_recipe, monkeypatch):
    _, arguments = planned(run, quick_recipe, {"ddp_backend": "gloo", "fsdp": "full_shard"})
    assert arguments.ddp_backend is None
    assert arguments.fsdp


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.slow
def test_each_of_many_unusual_arguments_trains_or_is_refused_by_the_plan(run, quick_recipe):
    folder = Path(quick_recipe["output_dir"])
    for training in UNUSUAL:
        shutil.rmtree(folder, ignore_errors=True)
        try:
            found, arguments = planned(run, quick_recipe, training)
        except RecipeError:
            continue
        if arguments.torch_compile or arguments.fsdp:  # a compiler takes minutes, and sharding takes two processes
            continue
        trainer = build_trainer(found, build_model(found), arguments)
        with failures_reported(trainer, found, folder):
            trainer.train()
        assert trainer.state.global_step == 2, training


def test_an_error_in_training_is_one_line_except_from_own_code(run):
    trainer = build_trainer(run, build_model(run), training_arguments(run.recipe))
    folder = Path(run.recipe.output_dir)
    before = pytest.raises(RecipeError, match=r"^training: KeyError: 'x'")
    with before, failures_reported(trainer, run, folder):
        raise KeyError("x")
    later = pytest.raises(RunError, match=r"^training: step 2: RuntimeError: bad There is no complete checkpoint")
    with later, failures_reported(trainer, run, folder):
        trainer.state.global_step = 1
        raise RuntimeError("bad")
    with pytest.raises(KeyError), failures_reported(trainer, run, folder, is_resumed=True):
        raise KeyError("x")
    own = dataclasses.replace(run, recipe=run.recipe.model_copy())
    own.recipe._own_code = {"mine": "sha"}
    with pytest.raises(KeyError), failures_reported(trainer, own, folder):
        raise KeyError("x")
