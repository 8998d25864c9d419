"""Adapters in training: recipes, the pull, trained parameters, and the addition of a task to a trained model."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import pytest
import torch
from command_line import fails, write
from torch import nn
from toys import build_config

from mtl_nlp import Recipe, RecipeError, load_tokenizer
from mtl_nlp.balancing.pull import adapter_deviation
from mtl_nlp.cli.main import main
from mtl_nlp.errors import ModelError
from mtl_nlp.hub.loading import load_model
from mtl_nlp.run.adapters import check_encoder
from mtl_nlp.run.arguments import training_arguments
from mtl_nlp.run.build import build_meta_model, build_trainer
from mtl_nlp.run.build import build_model as build_run_model
from mtl_nlp.run.plan import describe_parameters
from mtl_nlp.run.prepare import prepare, prepare_evaluation

ADAPTERS = {"r": 4, "target_modules": "all-linear"}


@pytest.fixture
def adapting(quick_recipe):
    quick_recipe["adapters"] = {**ADAPTERS, "train_encoder": False}
    return quick_recipe


def trainable(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_recipe_adds_an_adapter_per_task_and_trains_adapters_and_heads(adapting):
    model = build_run_model(prepare(Recipe.from_dict(adapting)))
    assert model.adapter_names == ["pos", "ner", "topic"]
    assert all("lora_" in name or name.startswith("heads.") for name in trainable(model))
    assert {name for name in model.state_dict() if "lora_" in name} <= trainable(model)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"tasks": ["ner"]}, ["ner"]),
        ({"tasks": ["ner"], "shared": True}, ["shared", "ner"]),
        ({"tasks": [], "shared": True}, ["shared"]),
    ],
)
def test_only_listed_tasks_have_adapters(adapting, changes, names):
    adapting["adapters"] |= {**changes, "train_encoder": True}
    model = build_run_model(prepare(Recipe.from_dict(adapting)))
    assert model.adapter_names == names
    assert trainable(model) == set(dict(model.named_parameters()))


def test_trained_parameters_are_reported_before_training(adapting):
    run = prepare(Recipe.from_dict(adapting))
    model, outline = build_run_model(run), build_meta_model(run)
    text = describe_parameters(outline)
    assert text == describe_parameters(model)
    assert all(parameter.is_meta for parameter in outline.parameters())
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    total = sum(parameter.numel() for parameter in model.parameters())
    one = sum(parameter.numel() for name, parameter in model.named_parameters() if "task_ner" in name)
    plain = sum(p.numel() for name, p in model.encoder.named_parameters() if "lora_" not in name)
    assert text.startswith(f"{trained:,} of {total:,} parameters trained ({trained / total:.2%}): encoder 0, ")
    assert f"adapter of ner {one:,} ({one / plain:.2%} of the encoder)" in text


def test_without_adapters_all_parameters_are_trained(quick_recipe):
    run = prepare(Recipe.from_dict(quick_recipe))
    total = sum(parameter.numel() for parameter in build_run_model(run).parameters())
    assert describe_parameters(build_meta_model(run)) == f"{total:,} parameters, all of them trained."


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"target_modules": ["quary"]},
            r"^adapters: `target_modules` should name linear layers of the encoder \(.*\)\. Found 'quary'\.$",
        ),
        ({"r": 33}, r"^adapters: `r` should be between 1 and 32"),
        ({"pull": 1.0, "tasks": ["pos"]}, r"^adapters: `pull` draws .* needs two\. Found 1"),
    ],
)
def test_unsuitable_adapters_are_reported_before_training(adapting, changes, message):
    adapting["adapters"] |= changes
    recipe = Recipe.from_dict(adapting)
    with pytest.raises(RecipeError, match=message):
        build_meta_model(prepare(recipe))


def test_encoder_without_peft_defaults_is_reported(quick_recipe):
    quick_recipe["adapters"] = {}
    with pytest.raises(
        RecipeError, match=r"^adapters: PEFT has no default `target_modules` for a modernbert encoder\. Give"
    ):
        check_encoder(Recipe.from_dict(quick_recipe), build_config("modernbert"))
    check_encoder(Recipe.from_dict(quick_recipe), build_config("bert"))


def test_outdated_peft_is_reported(adapting, monkeypatch):
    monkeypatch.setattr("mtl_nlp.modeling.lora_multitask._MIN_PEFT_VERSION", "999")
    with pytest.raises(RecipeError, match=r"^adapters: The version of PEFT .* version >= 999"):
        prepare(Recipe.from_dict(adapting))


def test_the_pull_moves_adapters_together(adapting):
    spreads = []
    for pull in (0.0, 1.0):
        adapting["adapters"]["pull"] = pull
        adapting["training"] |= {"adapter_learning_rate": 0.01, "max_steps": 12}
        recipe = Recipe.from_dict(adapting)
        run = prepare(recipe)
        trainer = build_trainer(run, build_run_model(run), training_arguments(recipe))
        trainer.train()
        spreads.append(adapter_deviation(trainer.model).item())
    assert 0 < spreads[1] < spreads[0] / 2


@pytest.fixture
def first(quick_recipe, tmp_path):
    """Train a model of the tasks pos and topic, the first with an adapter; return its folder."""
    recipe = copy.deepcopy(quick_recipe)
    recipe["output_dir"] = str(tmp_path / "first")
    del recipe["tasks"]["ner"], recipe["datasets"]["sample"]["labels"]["ner"]
    recipe["adapters"] = {**ADAPTERS, "tasks": ["pos"]}
    assert main(["train", write(tmp_path / "first.yaml", recipe)]) == 0
    return tmp_path / "first"


@pytest.fixture
def one_more(quick_recipe):
    """Return the recipe of an additional task."""
    quick_recipe["tasks"] = {"ner": quick_recipe["tasks"]["ner"]}
    quick_recipe["datasets"]["sample"]["labels"] = {"ner": "ner"}
    quick_recipe["adapters"] = ADAPTERS
    quick_recipe["freeze"] = ["encoder", "pos", "topic"]
    return quick_recipe


def logits(model: nn.Module) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return model.eval()(torch.randint(5, 300, (4, 9))).logits


def test_added_task_leaves_existing_answers_bit_equal(first, one_more, tmp_path, capsys):
    assert main(["train", write(tmp_path / "one_more.yaml", one_more), "--from", str(first)]) == 0
    printed = capsys.readouterr().out
    before, after = load_model(str(first)), load_model(one_more["output_dir"])
    assert list(after.tasks) == ["pos", "topic", "ner"]
    assert after.adapter_names == ["pos", "ner"]
    old, new = logits(before), logits(after)
    assert all(torch.equal(old[task], new[task]) for task in old)
    assert new["ner"].shape == (4, 9, 7)
    weights = after.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in before.state_dict().items())
    # The new adapter and head were trained, and only the new task was scored.
    untrained = build_run_model(prepare(Recipe.load(tmp_path / "one_more.yaml", [f"encoder={first}"])))
    own = {name for name in weights if name not in before.state_dict()}
    assert own == trainable(untrained)
    start = untrained.state_dict()
    assert any("lora_A" in name for name in own) and all(not torch.equal(weights[name], start[name]) for name in own)
    assert list(json.loads((tmp_path / "run" / "results.json").read_text())["tasks"]) == ["ner"]
    assert "encoder 0, adapter of pos 0 " in printed and "no dataset has labels for pos" not in printed


def test_existing_task_continues_with_its_head_and_adapter(first, one_more, tmp_path):
    one_more["tasks"]["pos"] = {"type": "token-classification"}
    one_more["datasets"]["sample"]["labels"]["pos"] = "upos"
    one_more["freeze"] = ["topic"]
    model = build_run_model(prepare(Recipe.from_dict({**one_more, "encoder": str(first)})))
    start = load_model(str(first)).state_dict()
    state = model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in start.items())
    assert model.adapter_names == ["pos", "ner"]
    assert not any(parameter.requires_grad for parameter in model.parameters_of("topic"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"freeze": ["encodr"]}, "freeze: No part 'encodr'. The model has encoder, pos, topic, ner"),
        (
            {"freeze": ["encoder", "ner"]},
            "freeze: nothing is left to train for ner. Remove ner or parts of the encoder from `freeze`.",
        ),
        (
            {"freeze": ["embeddings", "layers 0-2"]},
            "freeze: The encoder has the layers 0-1, the lowest first. Found 'layers 0-2'.",
        ),
        (
            {"tasks": {"ner": {"type": "token-classification"}, "pos": {"type": "text-classification"}}},
            "tasks.pos: no dataset",
        ),
        ({"adapters": {**ADAPTERS, "pull": 0.1, "tasks": []}}, "adapters: `tasks` is empty"),
    ],
)
def test_invalid_additions_are_reported_in_one_line(first, one_more, tmp_path, capsys, changes, message):
    recipe = write(tmp_path / "one_more.yaml", {**one_more, **changes})
    assert message in fails(capsys, "train", recipe, "--from", str(first))


def test_existing_task_name_with_different_options_or_labels_is_refused(first, one_more, tmp_path, capsys):
    one_more["tasks"] = {"pos": {"type": "token-classification", "scheme": "iob2"}}
    one_more["datasets"]["sample"]["labels"] = {"pos": "ner"}
    line = fails(capsys, "plan", write(tmp_path / "a.yaml", one_more), "--from", str(first))
    assert "tasks.pos: " in line and "has a task of this name with different options" in line
    one_more["tasks"] = {"pos": {"type": "token-classification"}}
    line = fails(capsys, "plan", write(tmp_path / "a.yaml", one_more), "--from", str(first))
    assert "was trained without the labels B-LOC, B-ORG" in line
    one_more["datasets"]["sample"]["labels"] = {"pos": "upos"}
    one_more["adapters"] = {**ADAPTERS, "r": 2}
    line = fails(capsys, "plan", write(tmp_path / "a.yaml", one_more), "--from", str(first))
    assert f"adapters: the adapter of pos in {first} has different options, " in line
    assert "'r': 4" in line and "Found {'r': 2" in line


def test_training_continues_only_from_a_multitask_model(one_more, encoder_folder, tmp_path, capsys):
    recipe = write(tmp_path / "one_more.yaml", one_more)
    assert "holds a bert model without multitask heads" in fails(
        capsys, "train", recipe, "--from", encoder_folder("bert")
    )
    assert "cannot be loaded" in fails(capsys, "train", recipe, "--from", str(tmp_path / "no"))


def text_model(quick_recipe: dict, folder: str) -> str:
    """Train a model of the task topic alone, which reads unsplit texts; return its folder."""
    texts = [{"text": f"{word} {word}-like!", "topic": word} for word in ("fox", "river", "card", "train")] * 4
    data = write(Path(folder) / "texts.jsonl", "\n".join(map(json.dumps, texts)) + "\n")
    recipe = {
        **{key: quick_recipe[key] for key in ("encoder", "training")},
        "output_dir": str(Path(folder) / "texts"),
        "tasks": {"topic": {"type": "text-classification"}},
    }
    files = {"train": data, "test": data}
    recipe["datasets"] = {
        "texts": {"path": "json", "data_files": files, "inputs": {"text": "text"}, "labels": {"topic": "topic"}}
    }
    assert main(["train", write(Path(folder) / "texts.yaml", recipe)]) == 0
    return recipe["output_dir"]


def test_word_task_is_not_added_to_frozen_tasks_on_raw_texts(one_more, tmp_path, capsys):
    start = text_model(one_more, str(tmp_path))
    recipe = {**one_more, "freeze": ["encoder", "topic"]}
    line = fails(capsys, "train", write(tmp_path / "a.yaml", recipe), "--from", start)
    note = "the new task on words needs texts split into words; topic were trained on unsplit texts"
    assert f"freeze: {note}, so the answers of frozen tasks would change" in line
    assert main(["plan", write(tmp_path / "a.yaml", {**one_more, "freeze": []}), "--from", start]) == 0
    assert f"note: {note}" in capsys.readouterr().out


def test_model_without_its_word_tasks_keeps_its_way_of_reading_texts(first, quick_recipe, tmp_path):
    dropped = tmp_path / "dropped"
    assert main(["drop", str(first), str(dropped), "--task", "pos"]) == 0
    model = load_model(str(dropped))
    quick_recipe["tasks"] = {"topic": quick_recipe["tasks"]["topic"]}
    quick_recipe["datasets"]["sample"]["labels"] = {"topic": "topic"}
    whole = prepare_evaluation(Recipe.from_dict(quick_recipe), load_model(str(first)), str(first), "test")
    scored = prepare_evaluation(Recipe.from_dict(quick_recipe), model, str(dropped), "test")
    trained = prepare(Recipe.from_dict({**quick_recipe, "encoder": str(dropped)}))
    expected = whole.splits["test"]["sample"].windows["input_ids"][:]
    assert scored.splits["test"]["sample"].windows["input_ids"][:] == expected
    assert trained.splits["test"]["sample"].windows["input_ids"][:] == expected


def test_trained_encoder_is_loaded_with_model_init_kwargs_in_full_precision(first, one_more, tmp_path):
    load_model(str(first)).to(torch.bfloat16).save_pretrained(tmp_path / "half")
    load_tokenizer(str(first), reads_words=True).save_pretrained(tmp_path / "half")
    one_more["encoder"] = str(tmp_path / "half")
    assert build_run_model(prepare(Recipe.from_dict(one_more))).dtype == torch.float32
    one_more["model_init_kwargs"] = {"attn_implementation": "eager", "dtype": "bfloat16"}
    model = build_run_model(prepare(Recipe.from_dict(one_more)))
    assert model.dtype == torch.bfloat16
    assert model.encoder.config._attn_implementation == "eager"
    one_more["model_init_kwargs"] = {"no_such": 1}
    with pytest.raises(ModelError, match=r"cannot be loaded: .*no_such"):
        build_run_model(prepare(Recipe.from_dict(one_more)))


def test_encoder_that_cannot_be_built_is_reported(quick_recipe, encoder_folder, tmp_path):
    shutil.copytree(encoder_folder("bert"), tmp_path / "bert")
    config = json.loads((tmp_path / "bert" / "config.json").read_text())
    (tmp_path / "bert" / "config.json").write_text(json.dumps({**config, "num_attention_heads": 5}))
    for more in ({}, {"adapters": ADAPTERS}):
        recipe = Recipe.from_dict({**quick_recipe, **more, "encoder": str(tmp_path / "bert")})
        with pytest.raises(RecipeError, match=r"^encoder: .* cannot be built: .*num"):
            build_meta_model(prepare(recipe))


def test_stride_of_a_trained_model_must_fit_a_smaller_limit(first, one_more):
    config = json.loads((first / "config.json").read_text())
    (first / "config.json").write_text(json.dumps({**config, "stride": 20}))
    with pytest.raises(RecipeError, match=r"^stride: should be below 14, .* Found 20"):
        prepare(Recipe.from_dict({**one_more, "encoder": str(first), "max_length": 16}))


def test_adapter_settings_need_adapters(quick_recipe):
    quick_recipe["training"]["adapter_learning_rate"] = 1e-3
    recipe = Recipe.from_dict(quick_recipe)
    run = prepare(recipe)
    with pytest.raises(RecipeError, match="`adapter_learning_rate` needs a model with adapters"):
        build_trainer(run, build_run_model(run), training_arguments(recipe))
