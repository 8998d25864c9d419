"""The Python, YAML and commands in documents and docstrings work as shown."""

from __future__ import annotations

import argparse
import ast
import doctest
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import yaml
from toys import build_config, build_tokenizer
from transformers import AutoModel, PreTrainedTokenizerBase

from mtl_nlp import TASK_TYPES, MultitaskModel, Recipe, TextClassification, TokenClassification
from mtl_nlp.cli.main import _parser
from mtl_nlp.evaluation.own_metrics import OWN_METRICS
from mtl_nlp.export.onnx import export_onnx
from mtl_nlp.modeling.head_types_multitask import HEADS
from mtl_nlp.recipe.own_code import uses_code

REPOSITORY = Path(__file__).parents[1]
DOCUMENTS = [
    path for pattern in ("*.md", "docs/**/*.md", "recipes/**/README.md") for path in sorted(REPOSITORY.glob(pattern))
]
MODULES = sorted((REPOSITORY / "mtl_nlp").rglob("*.py"))
SENTENCE, TAGS = ["Ada", "lives", "in", "Paris", "."], ["B-PER", "O", "O", "B-LOC", "O"]

NOT_RUN: dict[str, str] = {}
"""A text that a Python block contains -> the reason that the block cannot run in a test."""

NOT_CHECKED = {
    "pip install": "It needs a network.",
    "accelerate config": "It asks questions, and belongs to accelerate.",
}
"""The start of a shell line that runs neither `mtl-nlp` nor a script -> the reason that it is not checked."""


class Block(NamedTuple):
    """A block of code between fences."""

    document: Path
    line: int
    language: str
    code: str


class Docstring(NamedTuple):
    """A docstring with `>>>` examples."""

    module: Path
    name: str
    line: int
    text: str


def name_of(case: Block | Docstring | Path) -> str:
    if isinstance(case, Path):
        return str(case.relative_to(REPOSITORY))
    file = case.document if isinstance(case, Block) else case.module
    return f"{file.relative_to(REPOSITORY)}:{case.line}"


def blocks(document: Path) -> Iterator[Block]:
    """Yield the blocks of a document, which may be indented."""
    text = document.read_text(encoding="utf-8")
    for match in re.finditer(r"^([ \t]*)```(\w*)[^\n]*\n(.*?)^\1```[ \t]*$", text, re.MULTILINE | re.DOTALL):
        indent, language, code = match.groups()
        code = re.sub(rf"^{indent}", "", code, flags=re.MULTILINE)
        yield Block(document, text.count("\n", 0, match.start()) + 1, language, code)


def docstrings(module: Path) -> Iterator[Docstring]:
    """Yield the docstrings of a module that have examples."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            text = ast.get_docstring(node)
            if text and ">>>" in text:
                first = node.body[0].lineno
                yield Docstring(module, "" if isinstance(node, ast.Module) else node.name, first, text)


BLOCKS = [block for document in DOCUMENTS for block in blocks(document)]
DOCSTRINGS = [docstring for module in MODULES for docstring in docstrings(module)]
# The changelog shows code from before a breaking change, too, which no longer runs.
PYTHON_DOCUMENTS = [
    document
    for document in DOCUMENTS
    if document.name != "CHANGELOG.md" and any(b.document == document and b.language == "python" for b in BLOCKS)
]


def toy_tokenizer() -> PreTrainedTokenizerBase:
    """Return a tokenizer that knows the words of the examples."""
    tokenizer = build_tokenizer("wordpiece")
    tokenizer.add_tokens(["dogs", "bark"])
    return tokenizer


def trained_model(encoder: Path) -> MultitaskModel:
    """Return a model that has learnt one sentence by heart, so that its answers are certain."""
    tasks = [
        TokenClassification(name="pos", labels=["PROPN", "VERB", "ADP", "PUNCT"]),
        TokenClassification(name="ner", labels=["O", "B-PER", "I-PER", "B-LOC", "I-LOC"], scheme="iob2"),
        TextClassification(name="topic", labels=["travel", "science"]),
    ]
    torch.manual_seed(0)
    model = MultitaskModel.from_encoder(str(encoder), tasks)
    encoding = toy_tokenizer()(SENTENCE, is_split_into_words=True, return_tensors="pt")
    words = encoding.word_ids()
    first = [word is not None and word != before for before, word in zip([None, *words], words, strict=False)]
    ids = {
        "pos": [0, 1, 2, 0, 3],
        "ner": [tasks[1].labels.index(tag) for tag in TAGS],
    }
    labels = {
        name: torch.tensor([[values[w] if f else -100 for w, f in zip(words, first, strict=True)]])
        for name, values in ids.items()
    }
    labels["topic"] = torch.tensor([0])
    rows = {name: torch.tensor([0]) for name in labels}
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    loss = torch.tensor(1.0)
    for _ in range(300):
        loss = model(**encoding, rows=rows, labels=labels).loss
        if loss < 0.01:
            return model.eval()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    raise AssertionError(f"The sentence is not learnt: the loss is {loss}.")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a folder with the folders that examples name: an encoder, trained models and an ONNX export."""
    folder = tmp_path_factory.mktemp("examples")
    torch.manual_seed(0)
    encoder = folder / "bert-base-uncased"
    AutoModel.from_config(build_config("bert")).save_pretrained(encoder)
    toy_tokenizer().save_pretrained(encoder)
    model = trained_model(encoder)
    for name in ("runs/ewt", "runs/quickstart"):
        model.save_pretrained(folder / name)
        toy_tokenizer().save_pretrained(folder / name)
    export_onnx(model, toy_tokenizer(), folder / "ewt-onnx")
    return folder


@pytest.fixture
def inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Change to the folder of the examples, and use the CPU."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MINILM", "bert-base-uncased")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")


def run_examples(text: str, namespace: dict, name: str, line: int) -> None:
    """Run `>>>` examples and compare what they print; `...` in the expected output stands for anything."""
    example = doctest.DocTestParser().get_doctest(text, namespace, name, name, line)
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    runner.run(example, out=report.append, clear_globs=False)
    assert not runner.summarize(verbose=False).failed, "".join(report)


@pytest.mark.parametrize("docstring", DOCSTRINGS, ids=name_of)
@pytest.mark.usefixtures("inside")
def test_docstring_examples_run_and_print_the_shown_output(docstring):
    run_examples(docstring.text, {}, docstring.name, docstring.line)


@pytest.mark.parametrize("document", PYTHON_DOCUMENTS, ids=name_of)
@pytest.mark.usefixtures("inside")
def test_python_blocks_of_a_document_run_in_order(document, capsys):
    namespace: dict = {"__name__": "__main__"}
    for block in BLOCKS:
        if (block.document, block.language) != (document, "python") or any(part in block.code for part in NOT_RUN):
            continue
        if ">>>" in block.code:
            run_examples(block.code, namespace, name_of(block), block.line)
        else:
            exec(compile(block.code, name_of(block), "exec"), namespace)


def completed(shown: dict, recipe: dict) -> dict:
    """Return a recipe with the sections that a document shows, and all other sections from the sample recipe."""
    training = {**recipe["training"], **shown.get("training", {})}
    return {**recipe, **shown, "training": training}


@pytest.fixture(autouse=True)
def _own_code_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget the code that a document registers, so that a document may show it as a module too."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = [(registry, dict(registry)) for registry in (HEADS, OWN_METRICS, TASK_TYPES)]
    yield
    sys.modules.pop("my_module", None)
    for registry, entries in before:
        registry.clear()
        registry.update(entries)


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "yaml"], ids=name_of)
def test_a_yaml_block_is_a_valid_part_of_a_recipe(block, quick_recipe, monkeypatch, tmp_path):
    monkeypatch.setenv("MTL_NLP_DATA", "data")
    shown = yaml.safe_load(block.code)
    if uses_code(shown):  # of the module that the document shows before the recipe
        modules = [each for each in BLOCKS if (each.document, each.language) == (block.document, "python")]
        (tmp_path / "my_module.py").write_text([each for each in modules if each.line < block.line][-1].code)
    if "datasets" in shown and "tasks" not in shown:
        fed = {task for dataset in shown["datasets"].values() for task in dataset.get("labels", {})}
        shown["tasks"] = {task: {"type": "text-classification"} for task in sorted(fed)}
    elif "tasks" in shown and "datasets" not in shown:
        (dataset,) = quick_recipe["datasets"].values()
        shown["datasets"] = {"sample": {**dataset, "labels": dict.fromkeys(shown["tasks"], "topic")}}
    assert Recipe.from_dict(completed(shown, quick_recipe), tmp_path, allow_code=True).tasks


# Commands


class Line(NamedTuple):
    """A command line that a file shows."""

    file: Path
    text: str


_COMMAND = r"(?:mtl-nlp|python\S* -m mtl_nlp|accelerate launch [^`\n]*?(?:-m mtl_nlp|scripts/train\.py))"


def command_lines(file: Path) -> Iterator[Line]:
    """Yield the command lines of `mtl-nlp` in a file, from inline code, shell blocks and the comments of recipes."""
    text = re.sub(r"\\\n\s*", " ", file.read_text(encoding="utf-8"))
    inline = re.sub(r"^[ \t]*```.*?^[ \t]*```", "", text, flags=re.MULTILINE | re.DOTALL)
    for span in re.findall(r"`([^`]+)`", inline):
        if re.match(rf"(?:\w+=\S* )*{_COMMAND}(?: |$)", " ".join(span.split())):
            yield Line(file, " ".join(span.split()))
    for line in text.splitlines():
        if found := re.match(rf"\s*(?:# (?:launch|override): +|\$ |# )?(?:\w+=\S* )*(?:\S+/)?({_COMMAND} .*)", line):
            yield Line(file, re.split(r"\s{2,}[#(]|\s#\s|\s\(", found[1])[0])


def check_command(parser: argparse.ArgumentParser, line: str) -> None:
    """Check that the parser accepts a command line; a command without arguments must only exist."""
    words = [word for word in shlex.split(re.split(r" [|<>&;]+ ", line)[0]) if word not in {"…", "..."}]
    start = next(n for n, word in enumerate(words) if word in {"mtl-nlp", "mtl_nlp"} or word.endswith("train.py"))
    arguments = ["train"] * words[start].endswith("train.py") + words[start + 1 :]
    if len(arguments) == 1 and not arguments[0].startswith("-"):
        arguments = [*arguments, "--help"]
    try:
        parser.parse_args(arguments)
    except SystemExit as stopped:
        assert stopped.code == 0, line


SHOWN = [
    line
    for pattern in ("*.md", "docs/**/*.md", "recipes/**/*.md", "recipes/*.yaml", "scripts/*")
    for file in sorted(REPOSITORY.glob(pattern))
    if file.is_file()
    for line in command_lines(file)
]


@pytest.mark.parametrize("line", sorted({line.text for line in SHOWN}))
def test_shown_command_lines_are_valid(line, capsys):
    check_command(_parser(), line)


def test_every_document_with_commands_is_read():
    files = {line.file.name for line in SHOWN}
    assert {"README.md", "quickstart.yaml", "add_task.yaml", "quickstart"} <= files


@pytest.mark.parametrize("line", ["mtl-nlp plan", "mtl-nlp train RECIPE --set a=1 --resume", "mtl-nlp plan R | head"])
def test_a_correct_command_line_passes(line, capsys):
    check_command(_parser(), line)


@pytest.mark.parametrize("line", ["mtl-nlp plot R", "mtl-nlp train R --resum-e", "mtl-nlp evaluate M --split all"])
def test_a_wrong_command_line_is_found(line, capsys):
    with pytest.raises(AssertionError):
        check_command(_parser(), line)


def commands_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the parser of each command by its name."""
    (choices,) = (action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return choices


@pytest.mark.parametrize("command", commands_of(_parser()))
def test_examples_in_command_help_are_valid(command, capsys):
    parser = _parser()
    _, *examples = (commands_of(parser)[command].epilog or "").splitlines()
    assert examples
    for example in examples:
        check_command(parser, example.strip())


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if block.language in {"bash", "sh", "console", "shell"}], ids=name_of
)
def test_every_line_of_a_shell_block_is_checked_or_named_as_not_checked(block):
    code = re.sub(r"\\\n\s*", " ", block.code)
    for line in code.splitlines():
        line = line.removeprefix("$ ").strip()
        if not line or line.startswith("#") or re.match(rf"(?:\w+=\S* )*(?:\S+/)?{_COMMAND}(?: |$)", line):
            continue
        if script := re.search(r"(?:^|\s)(scripts/[\w.-]+)", line):
            assert (REPOSITORY / script[1]).is_file(), line
        else:
            assert line.startswith(tuple(NOT_CHECKED)), f"{line}: name it in NOT_CHECKED, with the reason"


def test_every_block_that_is_not_run_exists():
    shown = [block.code for block in BLOCKS if block.language == "python"]
    assert [part for part in NOT_RUN if not any(part in code for code in shown)] == []
