from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
import torch.distributed as dist
import yaml
from command_line import fails, write
from toys import sample_recipe

from mtl_nlp import __version__
from mtl_nlp.cli.main import main
from mtl_nlp.errors import DataError, RecipeError
from mtl_nlp.messages import counted

COMMANDS = (
    "init",
    "schema",
    "plan",
    "train",
    "evaluate",
    "inspect",
    "average",
    "predict",
    "push",
    "export",
    "drop",
    "demo",
    "affinity",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_an_example(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    assert f"example:\n  mtl-nlp {command} " in capsys.readouterr().out


COMMAND = """
import atexit, sys
heavy = ("torch", "transformers", "datasets", "accelerate", "peft")
atexit.register(lambda: print("imported:", *(name for name in heavy if name in sys.modules)))
from mtl_nlp import __version__
from mtl_nlp.cli.main import main
sys.exit(main())
"""


def seconds_of(*arguments: str) -> tuple[float, int, str]:
    """Run a command in a new interpreter; return its CPU time, exit code and output."""
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    with process.stdout:
        printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime, process.returncode, printed


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("--help",), 0, "usage: mtl-nlp"),
        (("train", "--help"), 0, "usage: mtl-nlp train"),
        (("--version",), 0, "mtl-nlp 0."),
        (("train", "--no-such-option", "recipe.yaml"), 2, "unrecognized arguments: --no-such-option"),
        (("train", "{recipe}"), 2, "encodr: unknown key"),
    ],
)
def test_commands_without_a_model_are_fast_and_do_not_import_torch(tmp_path, arguments, status, message):
    recipe = write(tmp_path / "recipe.yaml", {**sample_recipe("bert", tmp_path / "run", max_steps=2), "encodr": "x"})
    runs = [seconds_of(*(argument.format(recipe=recipe) for argument in arguments)) for _ in range(3)]
    for _, found, printed in runs:
        assert found == status, printed
        assert message in printed
        assert printed.splitlines()[-1] == "imported:"
    assert min(seconds for seconds, _, _ in runs) <= 0.6


def test_the_package_runs_as_a_module():
    finished = subprocess.run([sys.executable, "-m", "mtl_nlp", "--version"], capture_output=True, text=True)
    assert (finished.returncode, finished.stdout) == (0, f"mtl-nlp {__version__}\n"), finished.stderr


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("encodr=x", r"encodr: unknown key. Did you mean 'encoder'"),
        ("datasets.sample.data_files.test=/no/file", "datasets.sample.data_files.test: no file /no/file"),
        ("datasets.sample.labels.pos=upso", "no column or comment 'upso'. Did you mean 'upos'"),
        ("tasks.x={type: regression}", "tasks.x: no dataset has labels for this task"),
        ("encoder=/no/encoder", "encoder: /no/encoder cannot be loaded"),
        ("training.lr=1", "training.lr: no such training argument"),
        ("stride=47", "stride: should be below 46"),
    ],
)
def test_a_bad_recipe_is_refused_in_one_line(trained, tmp_path, capsys, override, message):
    more = ["--set", f"output_dir={tmp_path}", "--set", override]
    for command in ("plan", "train"):
        assert message in fails(capsys, command, str(trained / "recipe.yaml"), *more)


def test_a_missing_recipe_is_refused_in_one_line(capsys):
    assert "Recipe /no/recipe.yaml cannot be read" in fails(capsys, "plan", "/no/recipe.yaml")


@pytest.mark.parametrize(
    ("file", "content", "task", "message"),
    [
        ("a.jsonl", '{"tokens": ["a", "b"], "y": ["X"]}', "token-classification", "row 0, column 'y': 2 tokens but 1"),
        ("a.jsonl", "", "token-classification", "the file is empty"),
        ("a.jsonl", '{"tokens": ["a"], "z": 1}', "regression", "no column 'y' (for t). Valid: tokens, z"),
        ("a.jsonl", '{"tokens": ["a"], "y": [1]}', "token-classification", "expected a list of label names"),
        ("a.jsonl", '{"tokens": ["a"], "y": "x"}', "regression", "expected a finite number; found 'x'"),
        ("a.jsonl", '{"tokens": ["a"], "y": NaN}', "regression", "no training row of d has a label"),
        ("a.jsonl", '{"tokens": ["a"], "y": null}', "regression", "no training row of d has a label"),
        ("a.jsonl", '{"tokens": ["a"', "regression", "a.jsonl, line 1: not valid JSON"),
        ("a.conll", "a X\nb", "token-classification", "a.conll, line 2: expected 2 columns"),
        ("a.conll", "", "token-classification", "the split has no rows"),
    ],
)
def test_bad_data_is_refused_in_one_line(encoder_folder, tmp_path, capsys, file, content, task, message):
    conll = {"path": "conll", "columns": ["tokens", "y"]} if file.endswith("conll") else {"path": "json"}
    data = write(tmp_path / file, content + "\n" if content else "")
    dataset = {**conll, "data_files": {"train": data}, "inputs": {"tokens": "tokens"}, "labels": {"t": "y"}}
    recipe = sample_recipe(encoder_folder("bert"), tmp_path / "run", max_steps=2)
    recipe |= {"tasks": {"t": {"type": task}}, "datasets": {"d": dataset}}
    assert message in fails(capsys, "plan", write(tmp_path / "recipe.yaml", recipe))


def test_a_folder_without_a_multitask_model_is_refused_in_one_line(trained, encoder_folder, tmp_path, capsys):
    encoder, texts = encoder_folder("bert"), write(tmp_path / "a.txt", "Hi\n")
    message = "holds a bert model without multitask heads"
    assert message in fails(capsys, "predict", encoder, texts)
    more = ["--output", str(tmp_path / "out.json")]
    assert message in fails(capsys, "evaluate", encoder, "--recipe", str(trained / "recipe.yaml"), *more)


def test_truncated_weights_are_refused_in_one_line(trained, tmp_path, capsys):
    shutil.copytree(trained / "run", tmp_path / "run")
    weights = tmp_path / "run" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    texts = write(tmp_path / "a.txt", "Hi\n")
    assert "the weights file is damaged or truncated" in fails(capsys, "predict", str(tmp_path / "run"), texts)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a"}\n{"text":\n', "a.jsonl, line 2: not JSON"),
        ('["a"]\n', 'line 1: expected an object with "text" or "tokens"'),
        ('{"text": 3}\n', 'line 1: "text" should be a string'),
    ],
)
def test_a_bad_input_line_is_named_and_the_other_lines_are_answered(trained, tmp_path, capsys, content, message):
    source = write(tmp_path / "a.jsonl", content)
    assert main(["predict", str(trained / "run"), source]) == 2
    named, answered, error = capsys.readouterr().err.splitlines()[-3:]
    assert message in named
    assert answered == f"{counted(content.count(chr(10)) - 1, 'text')} answered."
    assert error.endswith(f"1 of {counted(content.count(chr(10)), 'text has', 'texts have')} no answer.")


def test_missing_files_are_refused_in_one_line(trained, tmp_path, capsys):
    model, texts = str(trained / "run"), write(tmp_path / "a.txt", "Hi\n")
    assert "There is no file /no/texts" in fails(capsys, "predict", model, "/no/texts")
    assert "--output /no/folder/x" in fails(capsys, "predict", model, texts, "--output", "/no/folder/x")
    recipe = str(trained / "recipe.yaml")
    assert "--output /no/folder/x" in fails(capsys, "evaluate", model, "--recipe", recipe, "--output", "/no/folder/x")
    more = ["--resume", "--set", f"output_dir={tmp_path}"]
    assert "--resume: there is no complete checkpoint" in fails(capsys, "train", recipe, *more)


def test_debug_raises_the_error(trained, capsys):
    with pytest.raises(RecipeError, match="cannot be read"):
        main(["plan", "/no/recipe.yaml", "--debug"])
    with pytest.raises(DataError, match="There is no file"):
        main(["predict", str(trained / "run"), "/no/texts", "--debug"])


def test_predict_does_not_write_over_its_input(trained, tmp_path, capsys):
    texts = tmp_path / "texts.txt"
    texts.write_text("Ada\n")
    assert main(["predict", str(trained), str(texts), "--output", str(texts)]) == 2
    assert "the command reads this file" in capsys.readouterr().err
    assert texts.read_text() == "Ada\n"


def test_a_token_in_a_recipe_is_refused(quick_recipe, tmp_path, capsys):
    quick_recipe["training"]["hub_token"] = "hf_secret"
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(quick_recipe))
    assert main(["plan", str(tmp_path / "r.yaml")]) == 2
    error = capsys.readouterr().err
    assert "training.hub_token: a recipe must not contain a token" in error
    assert "hf_secret" not in error


@pytest.mark.parametrize(
    ("variables", "output_format"),
    [
        ({"LC_ALL": "C", "PYTHONUTF8": "0"}, "jsonl"),
        ({"PYTHONIOENCODING": "ascii"}, "conll"),
        ({"PYTHONIOENCODING": "cp1252"}, "jsonl"),
    ],
)
def test_output_without_unicode_loses_no_answer(trained, tmp_path, variables, output_format):
    texts = tmp_path / "texts.txt"
    texts.write_text("Zoë lives in 東京 …\n", encoding="utf-8")
    command = [sys.executable, "-m", "mtl_nlp", "predict", str(trained / "run"), str(texts)]
    command += ["--output-format", output_format]
    finished = subprocess.run(command, capture_output=True, env={**os.environ, **variables})
    assert finished.returncode == 0, finished.stderr
    assert main([*command[3:], "--output", str(tmp_path / "answers")]) == 0
    assert finished.stdout == (tmp_path / "answers").read_bytes()


def test_output_without_unicode_ends_no_command(trained, tmp_path):
    variables = {"LC_ALL": "C", "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "mtl_nlp", "plan", str(tmp_path / "東京.yaml")]
    finished = subprocess.run(
        command, capture_output=True, env={**os.environ, **variables}, text=True, encoding="utf-8"
    )
    assert finished.returncode == 2
    assert len(finished.stderr.splitlines()) == 1
    # The sample corpus and the recipe have letters that ASCII lacks.
    shutil.copy(trained / "recipe.yaml", tmp_path / "東京.yaml")
    finished = subprocess.run(command, capture_output=True, env={**os.environ, **variables})
    assert finished.returncode == 0, finished.stderr


def test_command_ends_the_process_group_of_a_launcher(tmp_path, capsys):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        assert main(["schema"]) == 0
        assert not dist.is_initialized()
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
