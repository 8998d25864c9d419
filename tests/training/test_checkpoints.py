from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file, save_model
from toys import FAMILIES, SAMPLE_CORPUS, build_config, build_tokenizer, sample_recipe
from toys import build_model as build_tiny_model
from transformers import AutoModel

from mtl_nlp import MultitaskConfig, Regression, TextClassification, TokenClassification
from mtl_nlp.cli.main import main
from mtl_nlp.errors import CheckpointError
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.run.arguments import training_arguments
from mtl_nlp.run.build import build_model, build_trainer
from mtl_nlp.run.prepare import prepare
from mtl_nlp.training.checkpoints import (
    check_same_model,
    check_same_optimizer,
    describe_changes,
)
from mtl_nlp.training.completeness import checkpoint_problem, last_checkpoint

STEPS = (2, 4, 6)
READ = ("trainer_state.json", "config.json", "model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth")
IN_EFFECT = "in effect from here on"
KEPT = "kept from the checkpoint, so the new value has no effect"
IN_ANOTHER_ORDER = (
    "weights, optimizer and steps continue, but rows come in a different order, so some rows of the epoch may be "
    "repeated or skipped"
)


@pytest.fixture(scope="module")
def trained(encoder_folder: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `recipe.yaml` and, in `run`, the checkpoints of steps 2, 4 and 6, the first over an older one."""
    folder = tmp_path_factory.mktemp("checkpoints")
    recipe = sample_recipe(encoder_folder("bert"), folder / "run", max_steps=6)
    recipe["training"] |= {"save_strategy": "steps", "save_steps": 2}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    (folder / "run" / "checkpoint-2" / "global_step2").mkdir(parents=True)
    (folder / "run" / "checkpoint-2" / "rng_state_1.pth").write_bytes(b"of another process")
    (folder / "run" / "checkpoint-2" / "trainer_state.json").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
        assert main(["train", str(folder / "recipe.yaml"), "--overwrite"]) == 0
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the folder with the checkpoints."""
    return Path(shutil.copytree(trained / "run", tmp_path / "run"))


def cut(file: Path, keep: float) -> None:
    """Keep only the given share of a file, from its start."""
    content, age = file.read_bytes(), file.stat()
    file.write_bytes(content[: min(int(keep * len(content)), len(content) - 3)])
    os.utime(file, ns=(age.st_atime_ns, age.st_mtime_ns))


@pytest.fixture(scope="module")
def adapted(encoder_folder: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like `trained`, with a model with adapters."""
    folder = tmp_path_factory.mktemp("adapted")
    recipe = sample_recipe(encoder_folder("bert"), folder / "run", max_steps=2)
    recipe["training"] |= {"save_strategy": "steps", "save_steps": 1, "adapter_learning_rate": 0.01}
    recipe["adapters"] = {"r": 4, "tasks": ["pos", "ner"], "target_modules": ["query", "value"], "pull": 0.01}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
        assert main(["train", str(folder / "recipe.yaml")]) == 0
    return folder


def changed_recipe(trained: Path, *overrides: str) -> Recipe:
    return Recipe.load(trained / "recipe.yaml", overrides)


# The checkpoint to resume from


def test_last_complete_checkpoint_is_found(run):
    assert {path.name for path in run.glob("checkpoint-*")} == {f"checkpoint-{step}" for step in STEPS}
    assert last_checkpoint(run) == (run / "checkpoint-6", [])


@pytest.mark.parametrize("keep", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("file", READ)
def test_checkpoint_with_a_truncated_file_is_skipped(run, file, keep):
    cut(run / "checkpoint-6" / file, keep)
    assert last_checkpoint(run) == (run / "checkpoint-4", [f"checkpoint-6 is incomplete ({file} is cut off)"])


@pytest.mark.parametrize(
    ("file", "flaw"),
    [
        ("trainer_state.json", "trainer_state.json is missing"),
        ("config.json", "config.json is missing"),
        ("model.safetensors", "it has no weights"),
        ("optimizer.pt", "it has no optimizer state; was it saved with save_only_model?"),
        ("scheduler.pt", "scheduler.pt is missing"),
        ("rng_state.pth", "rng_state.pth is missing"),
        ("recipe.yaml", "recipe.yaml is missing"),
    ],
)
@pytest.mark.parametrize("is_renamed", [False, True])
def test_checkpoint_with_a_missing_file_is_skipped(run, file, flaw, is_renamed):
    path = run / "checkpoint-6" / file
    path.rename(path.with_name(f"{file}.old")) if is_renamed else path.unlink()
    assert last_checkpoint(run) == (run / "checkpoint-4", [f"checkpoint-6 is incomplete ({flaw})"])


def test_skipped_checkpoints_are_reported_highest_step_first(run):
    (run / "checkpoint-4" / "trainer_state.json").unlink()
    cut(run / "checkpoint-6" / "model.safetensors", 0.5)
    path, skipped = last_checkpoint(run)
    assert path.name == "checkpoint-2"
    assert skipped == [
        "checkpoint-6 is incomplete (model.safetensors is cut off)",
        "checkpoint-4 is incomplete (trainer_state.json is missing)",
    ]


def test_each_incomplete_checkpoint_is_reported_in_one_line(run):
    for step, file in zip(STEPS, ("trainer_state.json", "optimizer.pt", "rng_state.pth"), strict=True):
        cut(run / f"checkpoint-{step}" / file, 0.5)
    with pytest.raises(CheckpointError) as raised:
        last_checkpoint(run)
    assert str(raised.value) == (
        f"--resume: there is no complete checkpoint in {run}: checkpoint-6 is incomplete (rng_state.pth is cut off); "
        f"checkpoint-4 is incomplete (optimizer.pt is cut off); checkpoint-2 is incomplete (trainer_state.json is cut "
        f"off). Leave out --resume to start a new run."
    )


@pytest.mark.parametrize("exists", [True, False])
def test_folder_without_checkpoints_is_reported(tmp_path, exists):
    folder = tmp_path if exists else tmp_path / "none"
    message = rf"no complete checkpoint in {folder}\. Leave out --resume to start a new run\.$"
    with pytest.raises(CheckpointError, match=message):
        last_checkpoint(folder)


def test_highest_step_precedes_a_checkpoint_that_was_written_later(run):
    for path in (run / "checkpoint-4").iterdir():
        os.utime(path, (2_000_000_000, 2_000_000_000))
    assert last_checkpoint(run) == (run / "checkpoint-6", [])
    shutil.copytree(run / "checkpoint-6", run / "checkpoint-10")  # "10" < "6" as text
    assert last_checkpoint(run) == (run / "checkpoint-10", [])


def test_checkpoint_without_an_optimizer_is_refused_with_the_reason(trained, tmp_path, capsys):
    more = [f"output_dir={tmp_path / 'run'}", "training.save_only_model=true", "training.max_steps=2"]
    arguments = ["train", str(trained / "recipe.yaml"), *(part for each in more for part in ("--set", each))]
    assert main(arguments) == 0
    capsys.readouterr()
    assert main([*arguments, "--resume"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "checkpoint-2 is incomplete (it has no optimizer state; was it saved with save_only_model?)" in line


def test_saving_over_an_earlier_checkpoint_removes_it_first(trained):
    names = {path.name for path in (trained / "run" / "checkpoint-2").iterdir()}
    assert names == {path.name for path in (trained / "run" / "checkpoint-4").iterdir()}
    assert names >= {*READ, "recipe.yaml"}


def test_trainer_resumes_from_the_last_complete_checkpoint(trained, run):
    expected = torch.load(run / "checkpoint-6" / "optimizer.pt")["state"]
    cut(run / "checkpoint-6" / "optimizer.pt", 0.5)
    recipe = changed_recipe(trained, f"output_dir={run}")
    prepared = prepare(recipe)
    trainer = build_trainer(prepared, build_model(prepared), training_arguments(recipe))
    trainer.train(resume_from_checkpoint=True)
    assert checkpoint_problem(run / "checkpoint-6") is None
    found = torch.load(run / "checkpoint-6" / "optimizer.pt")["state"]
    assert {index: state["step"].item() for index, state in found.items()} == {
        index: state["step"].item() for index, state in expected.items()
    }
    assert all(torch.equal(found[index]["exp_avg"], state["exp_avg"]) for index, state in expected.items())


# The model and optimizer of a checkpoint


def refusal(trained: Path, *overrides: str) -> str:
    """Return the reason why the checkpoint does not belong to the model of a changed recipe."""
    model = build_model(prepare(changed_recipe(trained, *overrides)))
    with pytest.raises(CheckpointError) as raised:
        check_same_model(trained / "run" / "checkpoint-6", model)
    message = str(raised.value)
    assert "\n" not in message
    start = f"{trained / 'run' / 'checkpoint-6'} belongs to a different model: "
    end = " Resume with the model of the checkpoint, or start a new run."
    assert message.startswith(start)
    assert message.endswith(end)
    return message.removeprefix(start).removesuffix(end)


def test_checkpoint_of_the_same_model_is_accepted(trained):
    changes = ("training.learning_rate=1", "mixture.length_window=5")
    model = build_model(prepare(changed_recipe(trained, *changes)))
    check_same_model(trained / "run" / "checkpoint-6", model)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["tasks={pos: {type: token-classification}}", "datasets.sample.labels={pos: upos}"],
            "its tasks were pos, ner, topic and are now pos.",
        ),
        (
            ["tasks={a: {type: token-classification}}", "datasets.sample.labels={a: upos}"],
            "its tasks were pos, ner, topic and are now a.",
        ),
        (["tasks.ner.scheme=null"], "`scheme` of task 'ner' was 'iob2' and is now None."),
        (["tasks.ner.scheme=iob1"], "`scheme` of task 'ner' was 'iob2' and is now 'iob1'."),
        (["tasks.topic.pooling=mean"], "`pooling` of task 'topic' was 'cls' and is now 'mean'."),
    ],
)
def test_different_tasks_are_refused_with_the_difference(trained, overrides, message):
    assert refusal(trained, *overrides) == message


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_recognized(tmp_path, family):
    tasks = [
        TokenClassification(name="pos", labels=["A", "B"]),
        TextClassification(name="topic", labels=["x", "y", "z"]),
        Regression(name="score"),
    ]
    build_tiny_model(tasks, family).save_pretrained(tmp_path)
    check_same_model(tmp_path, build_tiny_model(tasks, family))


def test_tied_weights_are_recognized(tmp_path):
    model = build_tiny_model([TextClassification(name="topic", labels=["x", "y"])])
    first, second = (layer.output.dense for layer in model.encoder.encoder.layer)
    second.weight = first.weight
    save_model(model, str(tmp_path / "model.safetensors"))
    model.config.save_pretrained(tmp_path)
    check_same_model(tmp_path, model)


def test_different_labels_are_refused(trained, tmp_path):
    (tmp_path / "more.conll").write_text("# topic = gardening\nRoses\tNOUN\tO\n", encoding="utf-8")
    files = [str(SAMPLE_CORPUS / "train" / "*.conll"), str(tmp_path / "more.conll")]
    message = refusal(trained, f"datasets.sample.data_files.train={files}")
    assert message.startswith("`labels` of task 'topic' was ['email', ")
    assert " and is now ['email', 'gardening', " in message


def test_different_hidden_size_is_refused(trained, tmp_path):
    AutoModel.from_config(build_config("bert", hidden_size=64)).save_pretrained(tmp_path)
    build_tokenizer("wordpiece").save_pretrained(tmp_path)
    message = refusal(trained, f"encoder={tmp_path}")
    assert re.fullmatch(r"the shape of encoder\.\S+ was \[.*32.*\] and is now \[.*64.*\]\.", message)


def test_layers_missing_in_the_model_are_refused(trained, tmp_path):
    AutoModel.from_config(build_config("bert", num_hidden_layers=1)).save_pretrained(tmp_path)
    build_tokenizer("wordpiece").save_pretrained(tmp_path)
    message = refusal(trained, f"encoder={tmp_path}")
    assert re.fullmatch(r"the shape of encoder\.encoder\.layer\.1\.\S+ was \[[\d, ]+\] and is now None\.", message)


def test_layers_missing_in_the_checkpoint_are_refused(trained, tmp_path):
    AutoModel.from_config(build_config("bert", num_hidden_layers=3)).save_pretrained(tmp_path)
    build_tokenizer("wordpiece").save_pretrained(tmp_path)
    message = refusal(trained, f"encoder={tmp_path}")
    assert re.fullmatch(r"it has no encoder\.encoder\.layer\.2\.\S+\.", message)


def test_resuming_a_different_model_is_refused_in_one_line(trained, capsys):
    assert main(["train", str(trained / "recipe.yaml"), "--resume", "--set", "tasks.ner.scheme=null"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("mtl-nlp: error: ")
    assert "checkpoint-6 belongs to a different model: `scheme` of task 'ner' was 'iob2' and is now None." in line


@pytest.mark.parametrize(
    "override", ["training.optim=adafactor", "training.optim_args=x=1", "training.head_learning_rate=0.1"]
)
def test_different_optimizer_is_refused(trained, override):
    checkpoint = trained / "run" / "checkpoint-6"
    key, _, value = override.partition("=")
    message = rf"checkpoint-6 belongs to a different optimizer: {key} \(was not given, is {value}\)\. Set it back"
    with pytest.raises(CheckpointError, match=message):
        check_same_optimizer(checkpoint, changed_recipe(trained, override))


def test_learning_rate_of_the_optimizer_may_change(trained, run):
    overrides = ["training.learning_rate=0.1", "training.weight_decay=0.1", "training.max_steps=9"]
    check_same_optimizer(trained / "run" / "checkpoint-6", changed_recipe(trained, *overrides))
    # Heads had a separate learning rate, hence separate groups, and only the value of the rate changes.
    recipe = changed_recipe(trained, "training.head_learning_rate=0.1")
    (run / "checkpoint-6" / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    check_same_optimizer(run / "checkpoint-6", changed_recipe(trained, "training.head_learning_rate=0.2"))
    with pytest.raises(CheckpointError, match=r"head_learning_rate \(was 0\.1, is not given\)"):
        check_same_optimizer(run / "checkpoint-6", changed_recipe(trained))


# Adapters


def resume(folder: Path, *overrides: str) -> int:
    """Return the exit code of `train --resume`."""
    changed = [part for each in overrides for part in ("--set", each)]
    return main(["train", str(folder / "recipe.yaml"), "--resume", *changed])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["adapters.r=8"], "model: `r` of the adapter of pos was 4 and is now 8."),
        (["adapters.target_modules=[key]"], "model: `target_modules` of the adapter of pos was ['query', 'value']"),
        (["adapters.use_dora=true", "adapters.pull=0"], "model: `use_dora` of the adapter of pos was False and is now"),
        (["adapters.tasks=all"], "model: its adapters were pos, ner and are now pos, ner, topic."),
        (["adapters.tasks=[ner, pos]"], "model: its adapters were pos, ner and are now ner, pos."),
        (["adapters.shared=true"], "model: its adapters were pos, ner and are now shared, pos, ner."),
        (["freeze=[topic]"], "optimizer: freeze (was not given, is [topic]). Set it back"),
        (["adapters.train_encoder=false"], "optimizer: adapters.train_encoder (was not given, is false). Set"),
        (
            ["training.adapter_learning_rate=null"],
            "optimizer: training.adapter_learning_rate (was 0.01, is not given). Set it",
        ),
    ],
)
def test_different_adapters_or_trained_parts_are_refused_in_one_line(adapted, capsys, overrides, message):
    assert resume(adapted, *overrides) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("mtl-nlp: error: ")
    assert f"checkpoint-2 belongs to a different {message}" in line


@pytest.mark.parametrize("overrides", [["adapters.r=8"], ["adapters={}"]])
def test_checkpoint_without_adapters_is_refused_for_a_model_with_adapters(trained, capsys, overrides):
    assert resume(trained, *overrides, "adapters.target_modules=all-linear") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "checkpoint-6 belongs to a different model: its adapters were none and are now pos, ner, topic." in line


def test_changed_adapter_scaling_is_reported_and_accepted(adapted, tmp_path, capsys):
    shutil.copytree(adapted / "run", tmp_path / "run")
    overrides = ["adapters.pull=0.5", "adapters.alpha=4", "adapters.dropout=0.1", "adapters.use_rslora=true"]
    overrides += ["training.adapter_learning_rate=0.5", "training.max_steps=3", f"output_dir={tmp_path / 'run'}"]
    assert resume(adapted, *overrides) == 0
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: --resume: ")]
    start = "note: --resume: changed since checkpoint-2: "
    assert notes == [
        f"{start}training.adapter_learning_rate (was 0.01, is 0.5): {KEPT}",
        f"{start}adapters.alpha (was not given, is 4), adapters.dropout (was not given, is 0.1), "
        "adapters.pull (was 0.01, is 0.5), adapters.use_rslora (was not given, is true), "
        f"training.max_steps (was 2, is 3): {IN_EFFECT}",
        "note: --resume: resuming from checkpoint-2",
    ]
    config = MultitaskConfig.from_pretrained(tmp_path / "run")
    assert [options["lora_alpha"] for options in config.adapters] == [4, 4]


# Changes since a checkpoint


def changes(trained: Path, *overrides: str, processes: int = 1) -> list[str]:
    """Return the sentences about a changed recipe, without the name of the checkpoint."""
    notes = describe_changes(trained / "run" / "checkpoint-6", changed_recipe(trained, *overrides), processes)
    start = "changed since checkpoint-6: "
    assert all(note.startswith(start) for note in notes)
    return [note.removeprefix(start) for note in notes]


@pytest.mark.parametrize("overrides", [[], ["output_dir=/elsewhere"], ["mixture.temperature=1"], ["stride=null"]])
def test_unchanged_settings_are_not_reported(trained, overrides):
    assert changes(trained, *overrides) == []


@pytest.mark.parametrize(
    ("override", "change", "meaning"),
    [
        ("training.learning_rate=0.1", "training.learning_rate (was not given, is 0.1)", KEPT),
        ("training.weight_decay=0.1", "training.weight_decay (was not given, is 0.1)", KEPT),
        ("training.adam_beta1=0.8", "training.adam_beta1 (was not given, is 0.8)", KEPT),
        ("model_init_kwargs.revision=main", "model_init_kwargs.revision (was not given, is main)", KEPT),
        (
            "training.per_device_train_batch_size=4",
            "training.per_device_train_batch_size (was 8, is 4)",
            IN_ANOTHER_ORDER,
        ),
        (
            "training.gradient_accumulation_steps=2",
            "training.gradient_accumulation_steps (was not given, is 2)",
            IN_ANOTHER_ORDER,
        ),
        ("training.seed=7", "training.seed (was not given, is 7)", IN_ANOTHER_ORDER),
        ("training.data_seed=7", "training.data_seed (was not given, is 7)", IN_ANOTHER_ORDER),
        ("mixture.temperature=5", "mixture.temperature (was not given, is 5.0)", IN_ANOTHER_ORDER),
        ("mixture.batching=homogeneous", "mixture.batching (was not given, is homogeneous)", IN_ANOTHER_ORDER),
        (
            "datasets.sample.validation_size=3",
            "datasets.sample.validation_size (was not given, is 3)",
            IN_ANOTHER_ORDER,
        ),
        ("max_length=20", "max_length (was not given, is 20)", IN_ANOTHER_ORDER),
        ("training.max_steps=9", "training.max_steps (was 6, is 9)", IN_EFFECT),
        ("training.num_train_epochs=9", "training.num_train_epochs (was not given, is 9)", IN_EFFECT),
        ("training.eval_steps=3", "training.eval_steps (was not given, is 3)", IN_EFFECT),
        ("training.save_steps=3", "training.save_steps (was 2, is 3)", IN_EFFECT),
        ("training.save_strategy=no", "training.save_strategy (was steps, is no)", IN_EFFECT),
        ("training.bf16=no", "training.bf16 (was not given, is false)", IN_EFFECT),
        ("training.warmup_steps=0.1", "training.warmup_steps (was not given, is 0.1)", IN_EFFECT),
        ("loss.weights.ner=2", "loss.weights.ner (was not given, is 2.0)", IN_EFFECT),
        (
            "model_init_kwargs.attn_implementation=eager",
            "model_init_kwargs.attn_implementation (was not given, is eager)",
            IN_EFFECT,
        ),
    ],
)
def test_change_is_reported_with_its_consequence(trained, override, change, meaning):
    assert changes(trained, override) == [f"{change}: {meaning}"]


def test_removed_settings_are_reported(trained):
    assert changes(trained, "training.save_steps=null") == [f"training.save_steps (was 2, is not given): {IN_EFFECT}"]


def test_changed_encoder_is_reported_as_without_effect(trained, tmp_path):
    (note,) = changes(trained, f"encoder={tmp_path}")
    assert note.startswith("encoder (was ")
    assert note.endswith(f"is {tmp_path}): {KEPT}")


@pytest.mark.parametrize("processes", [2, 3])
def test_changed_number_of_processes_is_reported(trained, run, processes):
    assert changes(trained, processes=processes) == [
        f"the number of processes (was 1, is {processes}): {IN_ANOTHER_ORDER}"
    ]
    (run / "checkpoint-6" / "rng_state.pth").unlink()
    for rank in range(processes):
        (run / "checkpoint-6" / f"rng_state_{rank}.pth").write_bytes(b"")
    recipe = changed_recipe(trained)
    assert describe_changes(run / "checkpoint-6", recipe, processes) == []
    (note,) = describe_changes(run / "checkpoint-6", recipe, 1)
    assert f"the number of processes (was {processes}, is 1)" in note


def test_changes_are_grouped_by_consequence(trained):
    overrides = ("training.max_steps=9", "training.seed=1", "training.learning_rate=0.1", "training.logging_steps=5")
    assert changes(trained, *overrides, "mixture.temperature=5", processes=2) == [
        f"training.learning_rate (was not given, is 0.1): {KEPT}",
        "mixture.temperature (was not given, is 5.0), training.seed (was not given, is 1), "
        f"the number of processes (was 1, is 2): {IN_ANOTHER_ORDER}",
        f"training.logging_steps (was not given, is 5), training.max_steps (was 6, is 9): {IN_EFFECT}",
    ]


@pytest.mark.parametrize("content", [None, ""])
def test_without_a_recipe_only_the_processes_are_compared(trained, run, content):
    file = run / "checkpoint-6" / "recipe.yaml"
    file.unlink()
    if content is not None:  # as written by a trainer without a recipe
        file.write_text(content, encoding="utf-8")
    recipe = changed_recipe(trained, "training.learning_rate=0.1", "training.optim=adafactor")
    check_same_optimizer(run / "checkpoint-6", recipe)
    assert describe_changes(run / "checkpoint-6", recipe, 1) == []
    (note,) = describe_changes(run / "checkpoint-6", recipe, 2)
    assert "the number of processes (was 1, is 2)" in note


def test_variables_are_compared_and_printed_as_they_stand(trained, run, monkeypatch):
    monkeypatch.setenv("MTL_OLD", "qqold77")
    monkeypatch.setenv("MTL_NEW", "qqnew77")
    old = changed_recipe(trained, "training.run_name=${MTL_OLD}", "max_length=${MTL_LENGTH:-32}")
    checkpoint = run / "checkpoint-6"
    (checkpoint / "recipe.yaml").write_text(old.to_yaml(), encoding="utf-8")
    assert describe_changes(checkpoint, old, 1) == []
    new = changed_recipe(trained, "training.run_name=${MTL_NEW}", "max_length=${MTL_LENGTH:-32}")
    (note,) = describe_changes(checkpoint, new, 1)
    assert "training.run_name (was ${MTL_OLD}, is ${MTL_NEW})" in note
    # Earlier releases wrote the values of variables.
    values = changed_recipe(trained, "training.run_name=qqold77", "max_length=32")
    (checkpoint / "recipe.yaml").write_text(values.to_yaml(), encoding="utf-8")
    assert describe_changes(checkpoint, old, 1) == []
    assert "training.run_name (was ${MTL_OLD}, is ${MTL_NEW})" in describe_changes(checkpoint, new, 1)[0]


def test_secrets_of_earlier_releases_are_not_printed(trained, run):
    checkpoint = run / "checkpoint-6"
    text = yaml.safe_load((checkpoint / "recipe.yaml").read_text(encoding="utf-8"))
    text["datasets"]["sample"]["storage_options"] = {"key": "qq77"}
    text["training"]["api_key"] = "qq77"
    (checkpoint / "recipe.yaml").write_text(yaml.safe_dump(text), encoding="utf-8")
    notes = describe_changes(checkpoint, changed_recipe(trained), 1)
    assert "datasets.sample.storage_options.key (changed)" in notes[0]
    assert "training.api_key (changed)" in notes[1]
    assert "qq77" not in str(notes)


def test_checkpoint_with_weights_that_are_not_finite_is_refused(trained, run):
    file = run / "checkpoint-6" / "model.safetensors"
    weights = load_file(file)
    name = sorted(weights)[-1]
    weights[name].view(-1)[-1] = float("nan")
    save_file(weights, file, {"format": "pt"})
    model = build_model(prepare(changed_recipe(trained)))
    with pytest.raises(CheckpointError, match=rf"checkpoint-6: The weights should be finite\. Found .* in {name}\."):
        check_same_model(run / "checkpoint-6", model)
    assert main(["train", str(trained / "recipe.yaml"), "--set", f"output_dir={run}", "--resume"]) == 2
