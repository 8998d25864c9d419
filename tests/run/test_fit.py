from __future__ import annotations

import dataclasses
import resource
from pathlib import Path

import pytest
import torch
from command_line import fails, write
from toys import build_config, sample_recipe
from transformers import AutoModel

from mtl_nlp import Recipe
from mtl_nlp.errors import CommandError, RecipeError
from mtl_nlp.run.arguments import training_arguments
from mtl_nlp.run.fit import Fit, check_fit, describe_fit, fit_batches, largest
from mtl_nlp.run.prepare import prepare


@pytest.fixture
def run(quick_recipe):
    """The sample recipe with two rows."""
    quick_recipe["datasets"]["sample"]["max_rows"] = {"train": 2}
    return prepare(Recipe.from_dict(quick_recipe))


@pytest.mark.parametrize("first", [1, 8, 500])
@pytest.mark.parametrize("limit", [0, 1, 7, 100, 333, 720])
def test_the_largest_number_that_fits_is_found_to_a_twentieth(first, limit):
    tried = []

    def does_fit(number: int) -> bool:
        tried.append(number)
        return number <= limit

    found = largest(does_fit, first, 720)
    assert limit * 0.95 <= found <= limit
    assert len(tried) == len(set(tried)) <= 15
    assert max(tried) <= 720


def test_rows_that_all_fit_are_tried_in_one_batch_without_a_trace_of_the_attempts(run):
    arguments = training_arguments(run.recipe)
    before = dataclasses.asdict(arguments)
    plain, checkpointed = fit_batches(run, arguments)
    rows, longest = run.mixture.lengths.size, int(run.mixture.lengths.max())
    assert plain == Fit(False, rows, longest, rows)
    assert checkpointed == Fit(True, rows, longest, rows)
    assert plain.suggested == plain.sub_words == rows * longest
    assert dataclasses.asdict(arguments) == before
    assert not Path(arguments.output_dir).exists()


def memory_in_use() -> int:
    """Return the size of the address space of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


@pytest.mark.slow
def test_the_memory_limits_the_batch_and_recomputed_activations_make_room(encoder_folder, tmp_path):
    folder = tmp_path / "wide"  # large activations and small weights
    AutoModel.from_config(build_config("bert", num_hidden_layers=4, intermediate_size=8192)).save_pretrained(folder)
    for file in Path(encoder_folder("bert")).glob("*token*"):
        (folder / file.name).write_bytes(file.read_bytes())
    recipe = sample_recipe(str(folder), tmp_path / "run", max_steps=4)
    # More rows than fit into memory that earlier tests have left free in this process.
    recipe["datasets"]["sample"]["max_rows"] = {"train": 40}
    run = prepare(Recipe.from_dict(recipe))
    arguments = training_arguments(run.recipe)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (memory_in_use() + 400 * 2**20, limits[1]))
    try:
        plain, checkpointed = fit_batches(run, arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert 0 < plain.rows < checkpointed.rows <= plain.most == run.mixture.lengths.size
    assert plain.longest <= plain.suggested <= plain.sub_words == plain.rows * plain.longest
    text = describe_fit([plain, checkpointed], torch.device("cpu"))
    assert f"training: {{max_tokens_per_batch: {plain.suggested}}}" in text
    assert f"max_tokens_per_batch: {checkpointed.suggested}, activation_checkpointing: true" in text


def test_the_lines_for_the_recipe_name_only_what_fits():
    nothing, all_rows = Fit(False, 0, 512, 100), Fit(True, 100, 512, 100)
    text = describe_fit([nothing, all_rows], torch.device("cpu"))
    assert text.count("training: ") == 1
    assert "max_tokens_per_batch: 51200, activation_checkpointing: true" in text
    assert "not one row" in text
    assert "Lower `max_length`" in describe_fit([nothing, nothing._replace(checkpointing=True)], torch.device("cpu"))
    assert Fit(False, 1, 512, 100).suggested == 512


def test_a_mixture_that_has_no_token_budget_is_refused(quick_recipe):
    quick_recipe["datasets"]["sample"]["max_rows"] = {"train": 2}
    quick_recipe["datasets"]["other"] = quick_recipe["datasets"]["sample"]
    run = prepare(Recipe.from_dict(quick_recipe | {"mixture": {"headroom": True}}))
    with pytest.raises(RecipeError, match="`max_tokens_per_batch` cannot be combined with `headroom`"):
        fit_batches(run, training_arguments(run.recipe))


def test_a_cpu_and_sharded_training_are_refused_in_one_line(capsys, quick_recipe, tmp_path):
    line = fails(capsys, "plan", write(tmp_path / "recipe.yaml", quick_recipe), "--fit")
    assert "--fit: there is no accelerator" in line
    arguments = training_arguments(Recipe.from_dict(quick_recipe))
    arguments.__dict__["_setup_devices"] = torch.device("meta")
    check_fit(arguments)
    arguments.fsdp_plugin_args = {}
    with pytest.raises(CommandError, match="with the complete model in one process"):
        check_fit(arguments)
