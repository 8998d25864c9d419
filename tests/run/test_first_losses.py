"""The losses at the start, and the recipes of tasks on different scales."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
from command_line import fails, write

from mtl_nlp.cli.main import main
from mtl_nlp.errors import RecipeError
from mtl_nlp.export.stock import stock_model
from mtl_nlp.hub.loading import load_model
from mtl_nlp.modeling.tasks_multitask import Regression
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.run.build import build_model
from mtl_nlp.run.first_losses import describe_first_losses, first_losses
from mtl_nlp.run.prepare import prepare
from mtl_nlp.run.train import train

WORDS = {"login": "help", "billing": "card"}
URGENCY = ["quick", "brown", "lazy", "river", "bank"]
"""A word for each priority from 1 to 5."""


@pytest.fixture
def tickets(encoder_folder, tmp_path) -> dict[str, Any]:
    """Return a recipe for tickets with a category and a priority from 1 to 5, whose words tell both."""
    for split, count in (("train", 64), ("validation", 24), ("test", 24)):
        with open(tmp_path / f"{split}.csv", "w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(["text", "category", "priority", "sure"])
            for number in range(count):
                category = ["login", "billing"][number % 2]
                word, priority = WORDS[category], 1 + number % 5
                rows.writerow([f"{word} {URGENCY[priority - 1]}", category, priority, 1 + number % 2])
    return {
        "encoder": encoder_folder("bert"),
        "output_dir": str(tmp_path / "run"),
        "tasks": {"category": {"type": "text-classification"}, "priority": {"type": "regression"}},
        "datasets": {
            "tickets": {
                "path": "csv",
                "data_files": {split: str(tmp_path / f"{split}.csv") for split in ("train", "validation", "test")},
                "inputs": {"text": "text"},
                "labels": {"category": "category", "priority": "priority"},
                "weight": "sure",
            }
        },
        "training": {"max_steps": 2, "per_device_train_batch_size": 8, "save_strategy": "no", "use_cpu": True},
    }


def described(recipe: dict[str, Any]) -> tuple[dict[str, float], str]:
    run = prepare(Recipe.from_dict(recipe))
    losses = first_losses(run)
    return losses, describe_first_losses(run, losses)


def test_standardised_numbers_start_near_the_loss_of_a_class(tickets):
    losses, text = described(tickets)
    assert losses["category"] == pytest.approx(math.log(2), abs=0.1)
    assert losses["priority"] == pytest.approx(1.0, abs=0.8)
    assert text == (
        f"loss at the start: category {losses['category']:.4g}, priority {losses['priority']:.4g} (priority: of "
        f"standardised numbers, whose mean as the answer has the loss 1)"
    )


def test_loss_that_would_drown_another_is_named_with_its_cure(tickets):
    tickets["tasks"]["priority"]["normalize"] = False
    losses, text = described(tickets)
    assert losses["priority"] == pytest.approx(11.0, abs=4.0)
    assert text.splitlines()[1].startswith("note: the weighted loss of priority starts at ")
    assert text.endswith("Set tasks.priority.normalize: true")
    assert "note" not in described({**tickets, "loss": {"weighting": "equal-start"}})[1]
    assert "note" not in described({**tickets, "loss": {"weights": {"priority": 0.05}}})[1]


def test_ratio_counts_the_weights_of_the_recipe_and_no_default_weights(run):
    def weigh(**weights: float | list[float]) -> None:
        run.recipe = run.recipe.model_copy(update={"loss": run.recipe.loss.model_copy(update={"weights": weights})})

    weigh()
    losses = {"pos": 2.8, "ner": 1.95, "topic": 1.8}
    assert "note" not in describe_first_losses(run, losses)  # as in the quickstart; the defaults are 1, 3 and 0.6
    weigh(ner=10.0)
    text = describe_first_losses(run, losses)
    assert "note: the weighted loss of ner starts at 10.8 times that of topic, so that topic may hardly be lea" in text
    assert text.endswith("With loss.weights.ner: 0.9, both start about equal; mtl-nlp compare shows whether that helps")
    weigh(ner=10.0, topic=[3.0, 1.0], pos=3.0)
    assert "note" not in describe_first_losses(run, losses)


def test_plan_prints_the_losses_unless_it_leaves_out_the_model(tickets, tmp_path, capsys):
    recipe = write(tmp_path / "recipe.yaml", tickets)
    assert main(["plan", recipe]) == 0
    assert "\nloss at the start: category 0." in capsys.readouterr().out
    assert main(["plan", recipe, "--no-model"]) == 0
    assert "loss at the start" not in capsys.readouterr().out


def test_learned_options_are_in_the_config_and_are_kept_by_a_training_from_the_model(tickets, tmp_path):
    run = prepare(Recipe.from_dict(tickets))
    stored = {task["name"]: task for task in run.config.tasks}["priority"]
    assert (stored["mean"], stored["sd"]) == (pytest.approx(2.96875), pytest.approx(1.4028, abs=1e-3))
    build_model(run).save_pretrained(tmp_path / "saved")
    run.tokenizer.save_pretrained(tmp_path / "saved")
    model = load_model(str(tmp_path / "saved"))
    assert model.tasks == run.tasks
    path = Path(tickets["datasets"]["tickets"]["data_files"]["train"])
    path.write_text(path.read_text().replace(",5,", ",50,"))
    changed = Recipe.from_dict({**tickets, "encoder": str(tmp_path / "saved")})
    assert prepare(changed).tasks == run.tasks
    assert prepare(Recipe.from_dict(tickets)).tasks != run.tasks
    run.config.save_pretrained(tmp_path / "checkpoint")
    assert prepare(Recipe.from_dict(tickets), tmp_path / "checkpoint").tasks == run.tasks
    run.config.tasks = [Regression(name="priority", pooling="cls").to_dict()]  # as in an earlier release
    run.config.save_pretrained(tmp_path / "checkpoint")
    assert prepare(Recipe.from_dict(tickets), tmp_path / "checkpoint").tasks["priority"].kind.scale is None


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("priority", {"mean": 3.0}, "tasks: task 'priority': leave out `mean` (computed from the data)"),
        ("category", {"class_weights": {"bills": 2}}, "`class_weights` should name labels of the task. Found 'bills'"),
        ("category", {"focal": -1}, "`focal` should be a finite number of at least 0. Found -1"),
        ("category", {"balanced_weights": {"login": 2}}, "leave out `balanced_weights` (computed from the data)"),
    ],
)
def test_options_that_are_not_valid_are_refused_in_one_line(tickets, tmp_path, capsys, task, options, message):
    tickets["tasks"][task] |= options
    assert message in fails(capsys, "plan", write(tmp_path / "recipe.yaml", tickets))


def test_tuned_threshold_needs_validation_rows(tickets, tmp_path):
    rows = [{"text": "card", "tags": ["a"]}, {"text": "fox", "tags": ["b"]}]
    (tmp_path / "tags.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tickets["tasks"]["tags"] = {"type": "multi-label-classification", "threshold": "tuned"}
    tickets["datasets"]["tags"] = {
        "path": "json",
        "data_files": {"train": str(tmp_path / "tags.jsonl")},
        "inputs": {"text": "text"},
        "labels": {"tags": "tags"},
    }
    with pytest.raises(RecipeError, match=r"^tasks\.tags: `threshold: tuned` needs a validation split with labels"):
        prepare(Recipe.from_dict(tickets))
    tickets["datasets"]["tags"]["data_files"]["validation"] = str(tmp_path / "tags.jsonl")
    assert prepare(Recipe.from_dict(tickets)).tasks["tags"].needs_tuning


@pytest.mark.slow
def test_number_beside_a_class_lets_both_learn(tickets):
    tickets["training"] |= {"max_steps": 500, "learning_rate": 1e-3, "head_learning_rate": 1e-3}
    trained = train(Recipe.from_dict(tickets))
    scores = trained.results["tasks"]
    assert scores["category"]["accuracy"] > 0.9
    assert scores["priority"]["pearson"] > 0.6
    assert scores["priority"]["mse"] < 1.9  # in the unit of the priorities, whose variance is 2
    assert stock_model(trained.model, "priority").classifier.bias.item() == pytest.approx(3.0, abs=1.0)
