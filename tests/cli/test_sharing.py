from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from command_line import fails, write
from comparison_folder import write_comparison
from local_hub import card_errors
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file
from toys import build_model, build_tokenizer, sample_recipe
from transformers import AutoModelForTokenClassification

from mtl_nlp import MultitaskModel, Recipe, TextClassification
from mtl_nlp.cli.main import main
from mtl_nlp.cli.sharing import _shared_report
from mtl_nlp.errors import HubError


def test_a_task_is_exported_for_the_stock_pipelines(trained, tmp_path, capsys):
    capsys.readouterr()
    assert main(["export", str(trained / "run"), "--task", "ner", "--format", "transformers", str(tmp_path)]) == 0
    line = f'The task is in {tmp_path}: pipeline("token-classification", "{tmp_path}")\n'
    assert capsys.readouterr().out == line
    stock = AutoModelForTokenClassification.from_pretrained(tmp_path)
    config = json.loads((trained / "run" / "config.json").read_text())
    (labels,) = (task["labels"] for task in config["tasks"] if task["name"] == "ner")
    assert list(stock.config.id2label.values()) == labels


def test_loss_through_int8_is_measured_and_printed(trained, tmp_path, capsys):
    model, recipe, scores = str(trained / "run"), str(trained / "recipe.yaml"), tmp_path / "scores.json"
    assert main(["evaluate", model, "--recipe", recipe, "--split", "validation", "--output", str(scores)]) == 0
    capsys.readouterr()
    folder = tmp_path / "small"
    assert main(["export", model, "--format", "onnx", "--int8", "--recipe", recipe, str(folder)]) == 0
    header, _, *rows, last = capsys.readouterr().out.splitlines()
    assert header.split() == ["task", "validation", "score", "torch", "onnx", "int8", "points"]
    assert last == f"The model is in {folder}. Try it: mtl-nlp predict {folder} FILE"
    found = {}
    for task, name, before, after, points in map(str.split, rows):
        found.setdefault(task, {})[name] = float(before)
        assert float(points) == pytest.approx(100 * (float(after) - float(before)), abs=0.011)
    evaluated = json.loads(scores.read_text())["tasks"]
    assert found == {task: {name: round(value, 4) for name, value in of.items()} for task, of in evaluated.items()}
    assert main(["predict", str(folder), write(tmp_path / "a.txt", "Ada\n")]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--format", "transformers"), "--format transformers: name the --task, one of pos, ner, topic."),
        (("--format", "transformers", "--task", "tpoic"), "--task tpoic: no such task. Did you mean 'topic'?"),
        (("--format", "transformers", "--task", "ner", "--int8"), "need --format onnx"),
        (("--format", "transformers", "--task", "ner", "--recipe", "r.yaml"), "need --format onnx"),
        (("--format", "transformers", "--task", "ner", "--set", "stride=4"), "need --format onnx"),
        (("--format", "onnx", "--task", "ner"), "--task needs --format transformers or peft"),
        (("--format", "onnx", "--int8"), "--int8 reduces accuracy. Name a --recipe"),
        (("--format", "onnx", "--int8", "--recipe", "/no/recipe.yaml"), "Recipe /no/recipe.yaml cannot be read"),
    ],
)
def test_impossible_export_is_refused_in_one_line(trained, tmp_path, capsys, arguments, message):
    assert message in fails(capsys, "export", str(trained / "run"), str(tmp_path / "out"), *arguments)
    assert not (tmp_path / "out").exists()


def test_export_writes_only_to_a_new_or_empty_folder(trained, tmp_path, capsys):
    model, how = str(trained / "run"), ("--format", "transformers", "--task", "ner")
    for output in (tmp_path, write(tmp_path / "file", "mine")):
        assert f"{output} should be a new or empty folder." in fails(capsys, "export", model, str(output), *how)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "mine"
    below = str(tmp_path / "file" / "out")
    assert f"OUT: {below} cannot be written to" in fails(capsys, "export", model, below, *how)


def test_a_push_needs_a_trained_folder_and_the_hub(trained, encoder_folder, capsys):
    assert "There is no folder ada/model." in fails(capsys, "push", "ada/model", "ada/copy")
    assert "holds a bert model without multitask heads" in fails(capsys, "push", encoder_folder("bert"), "ada/model")
    message = "mtl-nlp: error: ada/model: HF_HUB_OFFLINE is set, which forbids requests to the Hub. Unset it to push."
    assert fails(capsys, "push", str(trained / "run"), "ada/model") == message
    with pytest.raises(HubError, match="HF_HUB_OFFLINE"):
        main(["push", str(trained / "run"), "ada/model", "--debug"])


# Adapters


@pytest.fixture(scope="module")
def adapted(encoder_folder, tmp_path_factory) -> Path:
    """Train a recipe whose tasks have adapters and whose encoder is not trained; return the folder."""
    folder = tmp_path_factory.mktemp("adapted")
    recipe = sample_recipe(encoder_folder("bert"), folder / "run", max_steps=3)
    recipe["adapters"] = {"r": 2, "tasks": ["ner", "topic"], "target_modules": "all-linear", "train_encoder": False}
    recipe["training"]["learning_rate"] = 0.05
    assert main(["train", write(folder / "recipe.yaml", recipe)]) == 0
    return folder / "run"


def logits_of(model: Any, task: str | None = None) -> torch.Tensor:
    ids = torch.arange(5, 45).reshape(2, 20)
    with torch.no_grad():
        logits = model.eval()(input_ids=ids).logits
    return logits if task is None else logits[task]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT reads it
@pytest.mark.parametrize(("task", "trained"), [("ner", False), ("topic", False), ("ner", True)])
def test_peft_export_is_loaded_by_the_printed_line(adapted, tmp_path, capsys, task, trained):
    run, model = adapted, MultitaskModel.from_pretrained(adapted)
    if trained:  # this change has the same effect as training the encoder
        run = tmp_path / "run"
        shutil.copytree(adapted, run)
        model.encoder.embeddings.word_embeddings.weight.data *= 1.5
        model.save_pretrained(run)
    output = tmp_path / "out"
    capsys.readouterr()
    assert main(["export", str(run), "--task", task, "--format", "peft", str(output)]) == 0
    printed = capsys.readouterr()
    base = str(output / "base") if trained else Recipe.load(run / "recipe.yaml").encoder
    start = f"The adapter is in {output}, for {base}: "
    assert printed.out.startswith(start)
    assert printed.err == ""
    names = {each: getattr(transformers, each) for each in dir(transformers) if each.startswith("AutoModelFor")}
    loaded = eval(printed.out.removeprefix(start), {**names, "PeftModel": PeftModel})
    torch.testing.assert_close(logits_of(loaded), logits_of(model, task), rtol=0, atol=1e-5)
    assert not torch.equal(logits_of(loaded), logits_of(without_adapters(model), task))
    assert (output / "base").exists() == trained


def without_adapters(model: MultitaskModel) -> MultitaskModel:
    model.delete_adapter(model.adapter_names)
    return model


def test_a_trained_model_without_its_recipe_is_exported_for_peft_with_its_base(adapted, tmp_path):
    shutil.copytree(adapted, tmp_path / "run")
    (tmp_path / "run" / "recipe.yaml").unlink()
    command = ["export", str(tmp_path / "run"), "--task", "ner", "--format", "peft", str(tmp_path / "out")]
    assert main(command) == 0
    assert (tmp_path / "out" / "base" / "model.safetensors").is_file()


def test_adapters_are_merged_by_the_stock_export(adapted, tmp_path):
    assert main(["export", str(adapted), "--task", "ner", "--format", "transformers", str(tmp_path)]) == 0
    stock = AutoModelForTokenClassification.from_pretrained(tmp_path)
    expected = logits_of(MultitaskModel.from_pretrained(adapted), "ner")
    torch.testing.assert_close(logits_of(stock), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--format peft: name the --task, one of pos, ner, topic."),
        (("--task", "pos"), "--task pos: this task has no adapter. Export it with --format transformers."),
        (("--task", "nre"), "--task nre: no such task. Did you mean 'ner'?"),
        (("--task", "ner", "--int8"), "need --format onnx"),
        (("--task", "ner", "--recipe", "r.yaml"), "need --format onnx"),
    ],
)
def test_an_adapter_that_cannot_be_exported_is_refused_in_one_line(adapted, tmp_path, capsys, arguments, message):
    command = ("export", str(adapted), str(tmp_path / "out"), "--format", "peft", *arguments)
    assert message in fails(capsys, *command)
    assert not (tmp_path / "out").exists()


def test_mean_pooling_without_a_stock_class_is_not_exported_for_peft(tmp_path, capsys):
    model = build_model([TextClassification(name="mean", labels=["a", "b"], pooling="mean")])
    model.add_adapter(LoraConfig(target_modules="all-linear"), "mean")
    model.save_pretrained(tmp_path / "run")
    build_tokenizer("wordpiece").save_pretrained(tmp_path / "run")
    command = ("export", str(tmp_path / "run"), str(tmp_path / "out"), "--format", "peft", "--task", "mean")
    assert "--task mean: no bert class of transformers supports mean pooling" in fails(capsys, *command)
    assert not (tmp_path / "out").exists()


def test_peft_export_writes_only_to_a_new_or_empty_folder(adapted, tmp_path, capsys):
    (tmp_path / "mine").write_text("mine")
    how = ("--format", "peft", "--task", "ner")
    for output in (tmp_path, tmp_path / "mine"):
        assert f"{output} should be a new or empty folder." in fails(capsys, "export", str(adapted), str(output), *how)
    below = str(tmp_path / "mine" / "out")
    assert f"OUT: {below} cannot be written to" in fails(capsys, "export", str(adapted), below, *how)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


# Leaving tasks out


@pytest.mark.parametrize("dropped", [["ner"], ["pos"], ["topic", "pos"]])
def test_dropping_tasks_does_not_change_the_other_answers(adapted, tmp_path, capsys, dropped):
    model, output = MultitaskModel.from_pretrained(adapted), tmp_path / "out"
    before = [path.read_bytes() for path in sorted(adapted.iterdir()) if path.is_file()]
    kept = [name for name in model.tasks if name not in dropped]
    capsys.readouterr()
    options = [option for name in dropped for option in ("--task", name)]
    assert main(["drop", str(adapted), str(output), *options]) == 0
    assert capsys.readouterr() == (f"The model, with {', '.join(kept)}, is in {output}.\n", "")
    smaller = MultitaskModel.from_pretrained(output)
    assert list(smaller.tasks) == kept
    assert smaller.adapter_names == [name for name in model.adapter_names if name in kept]
    for name in kept:
        assert torch.equal(logits_of(smaller, name), logits_of(model, name))
    state = load_file(output / "model.safetensors")
    assert not [key for key in state for name in dropped if f"task_{name}" in key]
    assert before == [path.read_bytes() for path in sorted(adapted.iterdir()) if path.is_file()]
    card = (output / "README.md").read_text()
    assert card_errors(card) == []
    assert [row.split(" | ")[0] for row in card.split("## Tasks\n\n")[1].split("\n\n")[0].splitlines()[2:]] == [
        f"| {name}" for name in kept
    ]
    texts = write(tmp_path / "a.txt", "Ada lives in Paris.\n")
    assert main(["predict", str(output), texts]) == 0
    assert list(json.loads(capsys.readouterr().out)["answers"]) == kept


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (["nre"], "--task: No task 'nre'. The model has pos, ner, topic."),
        (["ner", "ner"], "--task: No task 'ner'. The model has pos, topic."),
        (
            ["pos", "ner", "topic"],
            "--task: 'topic' cannot be dropped, since it is the only task of the model.",
        ),
    ],
)
def test_invalid_drops_are_refused_in_one_line(adapted, tmp_path, capsys, tasks, message):
    options = [option for name in tasks for option in ("--task", name)]
    assert message in fails(capsys, "drop", str(adapted), str(tmp_path / "out"), *options)
    assert not (tmp_path / "out").exists()


def test_drop_writes_only_to_a_new_or_empty_folder(adapted, tmp_path, capsys):
    (tmp_path / "mine").write_text("mine")
    for output in (adapted, tmp_path):
        command = ("drop", str(adapted), str(output), "--task", "ner")
        assert f"{output} should be a new or empty folder." in fails(capsys, *command)
    below = str(tmp_path / "mine" / "out")
    assert f"OUT: {below} cannot be written to" in fails(capsys, "drop", str(adapted), below, "--task", "ner")
    assert "cannot be loaded" in fails(capsys, "drop", str(tmp_path), str(tmp_path / "out"), "--task", "ner")


@pytest.mark.parametrize("examples", [True, False])
def test_the_report_of_a_push_quotes_texts_only_if_the_recipe_allows_it(tmp_path, examples):
    folder = write_comparison(tmp_path / "c", seeds=(1,), sides=("hard",), texts=20)
    run = folder / "runs" / "hard-1-0"
    with open(run / "recipe.yaml", "a", encoding="utf-8") as recipe:
        recipe.write(f"card: {{examples: {str(examples).lower()}}}\n")
    page = _shared_report(run, "ada/x")["report.html"].decode()
    assert "Did sharing help?" in page
    assert ("Lovelace" in page) is examples
    assert "/home/ada" not in page
    assert str(tmp_path) not in page


def test_a_run_that_its_comparison_does_not_list_is_pushed_with_a_report_on_itself(tmp_path):
    folder = write_comparison(tmp_path / "c", seeds=(1,), sides=("hard",), texts=1)
    old = shutil.copytree(folder / "runs" / "hard-1-0", folder / "runs" / "hard-of-an-earlier-recipe")
    page = _shared_report(old, "ada/x")["report.html"].decode()
    assert "Nothing is known yet about the effect of sharing" in page


def test_a_model_without_results_is_pushed_without_a_report(tmp_path):
    assert _shared_report(tmp_path, "ada/x") == {}
