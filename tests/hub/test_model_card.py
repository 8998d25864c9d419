"""The model card: its content, the escaping of names, and the cards that it replaces."""

from __future__ import annotations

import ast
import html
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from interpreter import Interpreter
from local_hub import LocalHub, card_errors, card_header
from peft import LoraConfig
from toys import build_model

from mtl_nlp import MultiLabelClassification, Regression, TextClassification, TokenClassification
from mtl_nlp.errors import DataError, ModelError, RecipeError
from mtl_nlp.hub.markdown import escape
from mtl_nlp.hub.model_card import is_generated, model_card, write_model_card
from mtl_nlp.run_folder import shared_recipe

TASKS = [
    TokenClassification(name="ner", labels=["O", "B-PER", "I-PER"], scheme="iob2"),
    TextClassification(name="topic", labels=["news", "sport"], pooling="mean"),
    MultiLabelClassification(name="tags", labels=[f"t{number}" for number in range(203)]),
    Regression(name="score"),
]
RECIPE = {
    "encoder": "google-bert/bert-base-uncased",
    "output_dir": "/home/ada/runs/x",
    "tasks": {task.name: {"type": task.type} for task in TASKS},
    "datasets": {
        "ewt": {
            "path": "universal-dependencies/ewt",
            "revision": "abc123",
            "inputs": {"tokens": "words"},
            "labels": {"ner": "ner", "topic": "genre"},
        },
        "own": {
            "path": "json",
            "data_files": {"train": "/home/ada/data/own.jsonl"},
            "inputs": {"text": "text"},
            "labels": {"topic": "topic", "tags": "tags", "score": "score"},
        },
    },
    "mixture": {"temperature": 2.0},
    "training": {"learning_rate": 2e-4, "num_train_epochs": 3},
    "card": {"license": "apache-2.0", "language": ["en", "de"]},
}
SCORES = {
    "ner": {"f1": 0.5, "precision": 0.25, "recall": 0.75},
    "topic": {"accuracy": 0.625, "macro_f1": 0.5},
    "tags": {"micro_f1": 0.125},
    "score": {"pearson": -0.5},
}
RESULTS = {
    "split": "test",
    "tasks": SCORES,
    "mtl_score": 0.1875,
    "training": {
        "mixture": {"ewt": {"rows": 12345, "probability": 0.75}, "own": {"rows": 10, "probability": 0.25}},
    },
    "provenance": {
        "versions": {"torch": "2.13.0", "transformers": "5.23.0"},
        "data_fingerprints": {"ewt/test": "f00", "own/test": "beef"},
    },
}
NASTY = [
    *(
        "'one' \"two\"",
        "two\nlines",
        "\r\n\n---\n\n",
        "---",
        "- item",
        "key: value",
        "{a: b",
        "[1, 2",
        "null",
        "~",
        "1e3",
    ),
    *(
        "!!python/object:os.system x",
        "&anchor *alias",
        "{{ x }} ${HOME}",
        "a|b\\|c",
        "end\\",
        "\\",
        "`code` ``x``",
        "```",
    ),
    *("<script>alert(1)</script>", "<!-- x", "-->", "<b onclick='x'>", "&lt;b&gt; &#60;", "<https://evil.example>"),
    *("[link](https://evil.example)", "![image](x)", "https://evil.example/x", "www.evil.example", "me@evil.example"),
    *("*a* **b** _c_ __d__ ___e___ ~~f~~", "_", "x_y", "@user #1", "# head", "1. one", "$x$ $$y$$", ":smile:"),
    *("😀👩‍👩‍👧", "مرحبا", "a\u2028b\u0085c\x0bd", "tab\there", "\ufeffmark", "\x00\x1b[31m"),
]
"""Names of tasks, labels and datasets that break YAML, Markdown or HTML without escaping."""
PLAIN = [" ".join(name.split()) for name in NASTY]
NASTY_TASKS = [name for name in NASTY if not re.search(r"[\x00-\x1f\x7f-\x9f\u2028]", name)]
"""The names that a task can have."""
PLAIN_TASKS = [" ".join(name.split()) for name in NASTY_TASKS]


def write_folder(
    folder: Path, tasks: list, recipe: Mapping[str, Any] | None, results: Mapping[str, Any] | None
) -> Path:
    """Write the folder of a model as a run leaves it, without a tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    build_model(tasks).save_pretrained(folder)
    if recipe is not None:
        (folder / "recipe.yaml").write_text(
            yaml.safe_dump(recipe, allow_unicode=True, sort_keys=False), encoding="utf-8"
        )
    if results is not None:
        (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("card") / "run", TASKS, RECIPE, RESULTS)


@pytest.fixture(scope="module")
def card(folder: Path) -> str:
    return model_card(folder, "ada/model")


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Write the card of a model with one task and one dataset per hostile name, with all of these names as labels."""
    tasks = [TextClassification(name=name, labels=NASTY) for name in NASTY_TASKS]
    recipe = {
        "encoder": "<b>/enc\n---",
        "output_dir": "/x",
        "tasks": {name: {"type": "text-classification"} for name in NASTY_TASKS},
        "datasets": {
            name: {"path": name, "inputs": {"text": "t"}, "labels": dict.fromkeys(NASTY_TASKS, "y"), "revision": name}
            for name in NASTY
        },
        "training": {"run_name": "<b>|x|\n---\n"},
        "card": {"license": "mit\n---\nx: y", "language": ["en", "---\n"], "base_model": "<b>\n---\n"},
    }
    results = {
        "split": "test",
        "tasks": {name: {"accuracy": 0.5} for name in NASTY_TASKS},
        "mtl_score": 0.5,
        "training": {"mixture": {name: {"rows": 1, "probability": 0.1} for name in NASTY}},
        "provenance": {"versions": {"torch": "<b>|"}},
    }
    folder = write_folder(tmp_path_factory.mktemp("nasty") / "a\n---\n<b>`c`", tasks, recipe, results)
    return model_card(folder, folder.name)


def code_of(card: str) -> list[str]:
    """Return the code that a card shows."""
    return re.findall(r"```python\n(.*?)\n```", card, flags=re.DOTALL)


def table_of(card: str, heading: str) -> list[list[str]]:
    """Return the first table under a heading as text."""
    section = card.split(f"## {heading}\n\n")[1].split("\n\n")[0]
    rows = [line.removeprefix("| ").removesuffix(" |").split(" | ") for line in section.splitlines()]
    return [[html.unescape(cell) for cell in row] for row in [rows[0], *rows[2:]]]


# Content


def test_header_is_valid_and_complete_for_the_hub(card):
    assert card_errors(card) == []
    header = ModelCard(card).data.to_dict()
    assert {key: header[key] for key in header if key != "model-index"} == {
        "license": "apache-2.0",
        "language": ["en", "de"],
        "base_model": "google-bert/bert-base-uncased",
        "datasets": ["universal-dependencies/ewt"],
        "library_name": "mtl_nlp",
        "pipeline_tag": "token-classification",
        "tags": [
            *("multitask", "mtl_nlp"),
            *("multi-label-classification", "regression", "text-classification", "token-classification"),
        ],
        "metrics": ["accuracy", "f1", "macro_f1", "micro_f1", "pearson", "precision", "recall"],
    }


def test_header_has_the_scores_of_every_task_even_two_on_one_dataset(card):
    loaded = ModelCard(card).data.eval_results
    assert {(entry.task_name, entry.metric_type, entry.metric_value) for entry in loaded} == {
        (task, name, value) for task, scores in SCORES.items() for name, value in scores.items()
    }
    (model,) = card_header(card)["model-index"]
    assert model["name"] == "ada/model"
    results = {result["task"]["name"]: result for result in model["results"]}
    assert list(results) == list(SCORES)
    assert results["ner"]["dataset"] == {
        "name": "ewt",
        "type": "universal-dependencies/ewt",
        "split": "test",
        "revision": "abc123",
    }
    assert results["topic"]["dataset"]["name"] == "ewt, own"
    assert results["topic"]["dataset"]["revision"] == "abc123, beef"
    assert (
        results["tags"]["dataset"]
        == results["score"]["dataset"]
        == {
            "name": "own",
            "type": "json",
            "split": "test",
            "revision": "beef",
        }
    )
    assert results["tags"]["task"]["type"] == "text-classification"


def test_tasks_scores_and_training_are_tables(card):
    tasks = table_of(card, "Tasks")
    assert tasks[:3] == [
        ["task", "type", "labels"],
        ["ner", "token-classification, scheme iob2", "O, B-PER, I-PER"],
        ["topic", "text-classification, pooling mean", "news, sport"],
    ]
    assert tasks[3][2].endswith("t198, t199 and 3 more")
    assert tasks[4] == ["score", "regression, normalize True", "a number"]
    scores = table_of(card, "Scores")
    assert scores[0] == ["task", "test score", "value"]
    assert ["score", "pearson", "-0.5000"] in scores
    assert scores[-1] == ["all", "mtl_score, the mean of the tasks' primary scores", "0.1875"]
    assert table_of(card, "Training")[1:] == [
        ["ewt", "universal-dependencies/ewt at abc123", "ner, topic", "12,345", "0.7500"],
        ["own", "json (train)", "topic, tags, score", "10", "0.2500"],
    ]
    assert "| temperature | 2.0 |\n| learning_rate | 0.0002 |\n| num_train_epochs | 3 |" in card
    assert "torch 2.13.0, transformers 5.23.0" in card


def test_no_path_of_this_machine_is_in_a_card(card, folder):
    assert "/home/ada" not in card
    assert str(folder.parent) not in card


def test_model_without_recipe_and_results_has_a_card(tmp_path):
    for recipe in (None, {}):
        folder = write_folder(tmp_path / "run", TASKS, None, None)
        if recipe is not None:  # a trainer that was built in Python leaves an empty recipe
            (folder / "recipe.yaml").write_text("")
        assert shared_recipe(folder) is None
        card = model_card(folder, "run")
        assert card_errors(card) == []
        assert "## Tasks" in card
        assert "## Scores" not in card
        assert "## Training" not in card


def test_card_has_a_table_of_adapters_and_the_training_of_the_encoder(tmp_path):
    recipe = {**RECIPE, "adapters": {"r": 4, "train_encoder": False, "pull": 0.5}, "freeze": ["score"]}
    folder, model = write_folder(tmp_path, TASKS, recipe, None), build_model(TASKS)
    model.add_adapter(LoraConfig(r=4, lora_alpha=16, target_modules=["value", "query"], use_rslora=True), "ner")
    model.add_adapter(LoraConfig(), "topic")
    model.add_adapter(LoraConfig(target_modules="all-linear"), "shared")
    model.save_pretrained(folder)
    card = model_card(folder, "x")
    assert card_errors(card) == []
    section = card.split("| adapter of |")[1].split("\n\n")[0].splitlines()
    assert [[html.unescape(cell.strip()) for cell in row.strip("| ").split("|")] for row in section[2:]] == [
        ["ner", "LoRA, rank-stabilized", "4", "16", "query, value"],
        ["topic", "LoRA", "8", "8", "query, value"],
        ["all tasks", "LoRA", "8", "8", "all-linear"],
    ]
    assert card.index("## Training") < card.index("| adapter of |")
    for row in ("| freeze | score |", "| adapters.train_encoder | False |", "| adapters.pull | 0.5 |"):
        assert row in card
    passes = "run once per text for each task with its own adapter and once for all other tasks"
    assert f"One bert encoder, {passes}, and one head" in card


def test_card_states_that_one_pass_serves_tasks_without_own_adapters(card, tmp_path):
    once = "One bert encoder, run once per text, and one head for each of 4 tasks."
    assert once in card
    assert "adapter" not in card
    folder, model = write_folder(tmp_path, TASKS, RECIPE, None), build_model(TASKS)
    model.add_adapter(LoraConfig(), "shared")
    model.save_pretrained(folder)
    assert once in model_card(folder, "x")
    assert "| all tasks | LoRA | 8 | 8 |" in model_card(folder, "x")


def test_card_shows_dora_and_escapes_names_with_markup(tmp_path):
    tasks = [TextClassification(name=name, labels=["x"]) for name in NASTY if name.isprintable()]
    recipe = {
        **RECIPE,
        "tasks": {task.name: {"type": task.type} for task in tasks},
        "datasets": {"d": {"path": "json", "inputs": {"text": "t"}, "labels": {task.name: "y" for task in tasks}}},
    }
    folder, model = write_folder(tmp_path, tasks, recipe, None), build_model(tasks)
    for task in tasks:
        model.add_adapter(LoraConfig(r=1, use_dora=True), task.name)
    model.save_pretrained(folder)
    card = model_card(folder, "x")
    assert card_errors(card) == []
    rows = card.split("| adapter of |")[1].split("\n\n")[0].splitlines()[2:]
    cells = [[html.unescape(cell) for cell in row.removeprefix("| ").removesuffix(" |").split(" | ")] for row in rows]
    assert [row[:4] for row in cells] == [[" ".join(task.name.split()), "DoRA", "1", "8"] for task in tasks]


def test_base_model_of_the_recipe_replaces_a_local_encoder(tmp_path):
    recipe = {**RECIPE, "encoder": "/home/ada/bert"}
    card = model_card(write_folder(tmp_path, TASKS, recipe, None), "x")
    assert "base_model" not in ModelCard(card).data.to_dict()
    recipe["card"] = {"base_model": "google-bert/bert-base-cased"}
    card = model_card(write_folder(tmp_path, TASKS, recipe, None), "x")
    assert ModelCard(card).data.base_model == "google-bert/bert-base-cased"


# Names


def test_no_name_breaks_the_header(nasty):
    assert card_errors(nasty) == []
    assert ModelCard(nasty).data.license == "mit\n---\nx: y"
    assert ModelCard(nasty).data.language == ["en", "---\n"]
    results = card_header(nasty)["model-index"][0]["results"]
    assert [result["task"]["name"] for result in results] == PLAIN_TASKS


def test_tables_show_names_unchanged(nasty):
    rows = table_of(nasty, "Tasks")[1:]
    assert sorted(row[0] for row in rows) == sorted(PLAIN_TASKS)
    assert {row[2] for row in rows} == {", ".join(PLAIN)}
    assert {len(row) for row in rows} == {3}
    assert sorted(row[0] for row in table_of(nasty, "Training")[1:]) == sorted(PLAIN)
    assert {len(row) for row in table_of(nasty, "Training")} == {5}


def test_no_name_is_markup_or_html_to_a_markdown_reader(nasty):
    reader = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable(["table", "strikethrough"])
    tokens = reader.parse(ModelCard(nasty).text)
    assert [token.content.split(",")[0] for token in tokens if token.type == "html_block"] == [
        "<!-- generated by mtl_nlp"
    ]
    assert {token.type.removesuffix("_open").removesuffix("_close") for token in tokens} == {
        *("heading", "paragraph", "fence", "inline", "html_block", "table", "thead", "tbody", "tr", "th", "td")
    }
    inside = [child for token in tokens for child in token.children or []]
    assert {child.type for child in inside} == {"text", "code_inline"}
    assert {child.content for child in inside if child.type == "code_inline"} == {"mtl_nlp", "recipe.yaml"}


@pytest.mark.parametrize("name", NASTY)
def test_escaped_text_is_one_line_without_markup_and_reads_unchanged(name):
    escaped = escape(name)
    assert html.unescape(escaped) == " ".join(name.split())
    assert not re.search(r"[<>`*\[\]|\\~@$]|&(?!#\d+;)|https?:|www\.", escaped)


def test_the_snippet_of_any_folder_is_python(nasty):
    (code,) = code_of(nasty)
    assert ast.parse(code).body[2].value.keywords[0].value.value == "a\n---\n<b>`c`"


# Cards that are replaced


def test_card_is_recognised_as_generated_until_it_is_edited(card):
    assert is_generated(card)
    for changed in (card.replace("# ada/model", "# Mine"), card + "\nMore.", card.replace("\n", "\r\n"), "", "Mine."):
        assert not is_generated(changed)


def test_edited_card_is_kept_and_unedited_card_is_rewritten(folder):
    write_model_card(folder)
    first = (folder / "README.md").read_text(encoding="utf-8")
    assert first == model_card(folder, "run")
    (folder / "results.json").write_text(json.dumps({**RESULTS, "mtl_score": 0.875}), encoding="utf-8")
    write_model_card(folder)
    renewed = (folder / "README.md").read_text(encoding="utf-8")
    assert "| 0.8750 |" in renewed
    assert is_generated(renewed)
    edited = renewed.replace("# run\n", "# My model\n")
    (folder / "README.md").write_text(edited, encoding="utf-8")
    (folder / "results.json").write_text(json.dumps(RESULTS), encoding="utf-8")
    write_model_card(folder)
    assert (folder / "README.md").read_text(encoding="utf-8") == edited
    (folder / "README.md").write_bytes("Für mich.".encode("latin-1"))
    write_model_card(folder)
    assert (folder / "README.md").read_bytes() == "Für mich.".encode("latin-1")
    (folder / "README.md").unlink()


# On the Hub


def test_edited_card_is_pushed_unchanged_and_unedited_card_names_its_repository(
    hub: LocalHub, online: Interpreter, pushed_run: Path, tmp_path: Path
):
    run = tmp_path / "run"
    run.mkdir()
    for path in pushed_run.iterdir():
        if path.is_file():
            (run / path.name).write_bytes(path.read_bytes())
    local = (run / "README.md").read_text(encoding="utf-8")
    assert is_generated(local)
    assert 'model="run"' in local
    assert online.command("push", str(run), "ada/card").status == 0
    pushed = hub.files("ada/card")["README.md"].decode()
    assert pushed.replace("ada/card", "run").split("<!--")[0] == local.split("<!--")[0]
    assert card_errors(pushed) == []
    assert (run / "README.md").read_text(encoding="utf-8") == local
    (run / "README.md").write_text(local + "\nMy own words.\n", encoding="utf-8")
    assert online.command("push", str(run), "ada/card").status == 0
    assert hub.files("ada/card")["README.md"].decode() == local + "\nMy own words.\n"


def test_snippets_of_a_pushed_card_run_as_printed(hub, online, pushed_run):
    assert online.command("push", str(pushed_run), "snippets", "--with-code").status == 0
    own, without_mtl_nlp = code_of(hub.files("ada/snippets")["README.md"].decode())
    assert "mtl_nlp" not in without_mtl_nlp
    answers = []
    for snippet in (own, without_mtl_nlp):
        finished = online.run(snippet)
        assert finished.status == 0, finished.stderr
        answers.append(ast.literal_eval(finished.stdout))
    assert answers[0] == answers[1]
    assert list(answers[0]) == ["pos", "ner", "topic"]
    assert [word["word"] for word in answers[0]["pos"]] == ["Ada", "Lovelace", "was", "born", "in", "London", "."]


def test_no_text_of_the_results_is_markup(tmp_path):
    nasty = "<b>[x](https://evil.example)|`a`\n# head"
    results = {
        **RESULTS,
        "split": nasty,
        "tasks": {"topic": {nasty: 0.5}},
        "provenance": {"versions": {nasty: nasty}, "data_fingerprints": {f"own/{nasty}": nasty}},
    }
    text = model_card(write_folder(tmp_path / "run", TASKS, RECIPE, results), "ada/model")
    assert card_errors(text) == []
    body = text.split("---\n", 2)[2]
    assert "<b>" not in body
    assert "https:" not in body
    assert "\n# head" not in body
    assert html.unescape(body).count("<b>[x](https://evil.example)|`a` # head") == 4


def test_results_of_a_different_model_are_refused_in_one_line(tmp_path):
    results = {**RESULTS, "tasks": {"other": {"f1": 0.5}}}
    folder = write_folder(tmp_path / "run", TASKS, RECIPE, results)
    with pytest.raises(DataError, match=r"results\.json has scores of 'other', and the model has no such task\. Write"):
        model_card(folder, "ada/model")


def test_results_without_scores_give_a_card_without_scores(tmp_path):
    text = model_card(write_folder(tmp_path / "run", TASKS, RECIPE, {"training": {}}), "ada/model")
    assert "## Scores" not in text
    assert card_errors(text) == []


def test_variables_of_a_saved_recipe_are_shown_and_not_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("MTL_SECRET", "qq77qq77")
    recipe = {**RECIPE, "encoder": "${MTL_SECRET}", "max_length": "${MTL_SECRET}"}
    recipe["training"] = {"learning_rate": "${MTL_SECRET}", "run_name": "${MTL_SECRET:-/home/ada/x}"}
    text = model_card(write_folder(tmp_path / "run", TASKS, recipe, RESULTS), "ada/model")
    assert "qq77" not in text
    assert html.unescape(text).count("${MTL_SECRET}") == 2
    assert "/home" not in html.unescape(text)
    folder = write_folder(tmp_path / "run", TASKS, {**RECIPE, "card": {"license": "${MTL_SECRET}"}}, RESULTS)
    with pytest.raises(RecipeError, match=r"card\.license: \$\{MTL_SECRET\} is a variable, and the card is published"):
        model_card(folder, "ada/model")


def test_card_is_not_written_through_a_link(tmp_path):
    folder = write_folder(tmp_path / "run", TASKS, RECIPE, RESULTS)
    (folder / "README.md").symlink_to(tmp_path / "new")
    with pytest.raises(ModelError, match=r"README\.md is a symbolic link"):
        write_model_card(folder)
    assert not (tmp_path / "new").exists()


def test_score_that_is_not_defined_is_named_and_left_out_of_the_header(tmp_path):
    scores = {"tasks": {"topic": {"accuracy": None, "macro_f1": 0.5}}, "mtl_score": None, "split": "test"}
    tasks = [TextClassification(name="topic", labels=["a", "b"])]
    card = model_card(write_folder(tmp_path / "run", tasks, None, scores), "ada/model")
    assert "| topic | accuracy | not defined |" in card
    assert "primary scores | not defined |" in card
    (result,) = card_header(card)["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "macro_f1", "name": "macro_f1", "value": 0.5}]
