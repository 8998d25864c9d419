"""External task types: a task class and a label kind are enough for every stage of the package."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import datasets
import numpy as np
import pytest
import torch
from command_line import write
from transformers import Pipeline, pipeline

from mtl_nlp import MultitaskModel, Recipe, Task, register_task_type
from mtl_nlp.cli.main import main
from mtl_nlp.data.conll import read_conll
from mtl_nlp.errors import HubError
from mtl_nlp.export.peft import export_peft
from mtl_nlp.export.stock import stock_model
from mtl_nlp.hub.repository import repository_files
from mtl_nlp.modeling import tasks_multitask
from mtl_nlp.modeling.label_kinds_multitask import PREDICTED, Feature, LabelKind, TextKind, TopK, WordKind, sigmoid
from mtl_nlp.modeling.tasks_multitask import SequenceTask
from mtl_nlp.modeling.text_kinds_multitask import NumberPerText
from mtl_nlp.modeling.unit_losses_multitask import binary_cross_entropy_sum, squared_error_sum
from mtl_nlp.modeling.words_multitask import Word
from mtl_nlp.run.arguments import training_arguments
from mtl_nlp.run.build import build_trainer
from mtl_nlp.run.prepare import prepare
from mtl_nlp.serving.page import format_answer

# Two types like those of a user: a number per word, and ordered classes per text.


class NumberPerWord(WordKind):
    """A number per word."""

    problem_type = "regression"
    label_feature = Feature("float64", is_list=True)
    target_feature = Feature("float32", is_list=True)
    has_label_space = False
    primary_score = "closeness"

    def metric(self, predictions: list, references: list) -> dict[str, float]:
        errors = np.abs(np.concatenate(predictions) - np.concatenate(references))
        return {"mae": errors.mean(), "closeness": 1.0 / (1.0 + errors.mean())}

    def check(self, value: Any) -> list[float]:
        if not isinstance(value, list) or not all(isinstance(number, int | float) for number in value):
            raise ValueError(f"expected a list of numbers; found {value!r:.80}")
        return [float(number) for number in value]

    def target_of(self, label: Sequence[float]) -> list[float]:
        return list(label)

    def loss_sum(self, logits, targets, weights=None, *, label_smoothing=0.0):
        return squared_error_sum(logits.squeeze(-1), targets, weights)

    def decode(self, logits: np.ndarray) -> list[float]:
        return logits[:, 0].tolist()

    def answer(self, logits: np.ndarray, words: Sequence[Word], text: str, top_k: TopK) -> list[dict[str, Any]]:
        return [
            {"word": word.text, "score": number, "start": word.start, "end": word.end, "index": index}
            for index, (word, number) in enumerate(zip(words, self.decode(logits), strict=True), start=1)
        ]

    def shown(self, entry: Mapping[str, Any]) -> str:
        return f"{entry['score']:.3f}"


class TokenRegression(Task):
    """A task with a number per word."""

    type: ClassVar[str] = "token-regression"

    def make_kind(self) -> LabelKind:
        return NumberPerWord(self.name, self.labels)


class OrderedClass(TextKind):
    """One of K ordered classes per text, as K - 1 decisions: whether the class is above each class except the last."""

    problem_type = "multi_label_classification"
    label_feature = Feature("string")
    target_feature = Feature("float32", is_list=True)
    display = "class"
    metric = "classification"
    primary_score = "accuracy"

    @property
    def output_names(self) -> tuple[str, ...]:
        return tuple(f"above {label}" for label in self.labels[:-1])

    def check(self, value: Any) -> str:
        return str(value)

    def names_in(self, label: str) -> list[str]:
        return [label]

    def target_of(self, label: str) -> list[float]:
        if label not in self.label_ids:
            return [float("nan")] * len(self.output_names)
        return [float(self.label_ids[label] > index) for index in range(len(self.output_names))]

    def loss_sum(self, logits, targets, weights=None, *, label_smoothing=0.0):
        return binary_cross_entropy_sum(logits, targets, weights)

    def decode(self, logits: np.ndarray) -> str:
        return self.labels[int((logits > 0).sum())]

    def answer(self, logits: np.ndarray, words: Sequence[Word], text: str, top_k: TopK) -> list[dict[str, Any]]:
        above = np.minimum.accumulate(sigmoid(logits))
        scores = dict(zip(self.labels, -np.diff([1.0, *above, 0.0]), strict=True))
        best = [self.decode(logits)] if top_k == PREDICTED else sorted(scores, key=lambda label: -scores[label])[:top_k]
        return [{"label": label, "score": float(scores[label])} for label in best]


class OrdinalRegression(SequenceTask):
    """A task with one of several ordered classes per text."""

    type: ClassVar[str] = "ordinal-regression"

    def make_kind(self) -> LabelKind:
        return OrderedClass(self.name, self.labels)


WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "lazy", "dog", "ada", "lives"]
SENTENCE = "The quick fox jumps over Ada."
NAMES = ("length", "stars", "topic")


def rows_of(seed: int, count: int) -> list[dict[str, Any]]:
    """Return rows of random words with word lengths and, by the number of words, stars. The first row is very long."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        tokens = rng.choice(WORDS, size=90 if number == 0 else int(rng.integers(1, 12))).tolist()
        stars = 1 + min(len(tokens) // 4, 2)
        rows.append(
            {
                "tokens": tokens,
                "length": None if number % 5 == 1 else [len(word) / 5 for word in tokens],
                "stars": None if number % 7 == 1 else stars,
                "topic": "long" if stars == 3 else "short",
            }
        )
    return rows


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    """Register both types for the tests of this module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks_multitask, "TASK_TYPES", tasks_multitask.TASK_TYPES.copy())
        register_task_type(TokenRegression)
        register_task_type(OrdinalRegression)
        yield


@pytest.fixture(scope="module")
def folder(encoder_folder, tmp_path_factory) -> Path:
    """Return a folder with `recipe.yaml`, and with the run of the train command in `run`."""
    folder = tmp_path_factory.mktemp("outside")
    for number, split in enumerate(("train", "validation", "test")):
        lines = [json.dumps(row) for row in rows_of(number, 64 if split == "train" else 24)]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    recipe = {
        "encoder": encoder_folder("bert"),
        "output_dir": str(folder / "run"),
        "tasks": {
            "length": {"type": "token-regression"},
            "stars": {"type": "ordinal-regression", "pooling": "mean"},
            "topic": {"type": "text-classification"},
        },
        "datasets": {
            "d": {
                "path": "json",
                "data_files": {split: str(folder / f"{split}.jsonl") for split in ("train", "validation", "test")},
                "inputs": {"tokens": "tokens"},
                "labels": {name: name for name in NAMES},
            }
        },
        "adapters": {"r": 4, "alpha": 8, "tasks": ["length"], "train_encoder": True},
        "training": {
            "num_train_epochs": 12,
            "learning_rate": 3e-3,
            "per_device_train_batch_size": 8,
            "eval_strategy": "epoch",
            "save_strategy": "epoch",
            "save_total_limit": 1,
            "metric_for_best_model": "mtl_score",
            "load_best_model_at_end": True,
            "logging_steps": 10,
            "use_cpu": True,
        },
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
        assert main(["train", write(folder / "recipe.yaml", recipe)]) == 0
    return folder


@pytest.fixture(scope="module")
def answer(folder) -> Pipeline:
    return pipeline("multitask", model=str(folder / "run"), device="cpu")


def test_plan_counts_outputs_and_labels_of_external_types(folder, capsys):
    assert main(["plan", str(folder / "recipe.yaml")]) == 0
    words = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines() if line}
    assert words["length"] == ["length", "token-regression", "1", "a", "number", "d"]
    assert words["stars"] == ["stars", "ordinal-regression", "2", "1", "2", "3", "d"]


def test_external_types_learn_beside_a_built_in_type(folder):
    state = max((folder / "run").glob("checkpoint-*/trainer_state.json"), key=lambda path: path.stat().st_mtime)
    logs = json.loads(state.read_text())["log_history"]
    for name in ("length", "stars"):
        losses = [log[f"loss_{name}"] for log in logs if f"loss_{name}" in log]
        assert losses[-1] < 0.75 * losses[0]
    scores = json.loads((folder / "run" / "results.json").read_text())["tasks"]
    assert scores["length"]["mae"] < 0.2
    assert scores["stars"].keys() == {"accuracy", "macro_f1"}
    assert scores["stars"]["accuracy"] > 0.6


def test_evaluation_gives_scores_and_mean_losses_of_external_types(folder):
    recipe = Recipe.load(folder / "recipe.yaml")
    run = prepare(recipe)
    model = MultitaskModel.from_pretrained(folder / "run")
    trainer = build_trainer(run, model, training_arguments(recipe))
    metrics = trainer.evaluate()
    predicted = trainer.predict_rows(run.splits["validation"]["d"])
    rows = rows_of(1, 24)
    errors = np.concatenate(
        [np.subtract(numbers, row["length"]) for numbers, row in zip(predicted["length"], rows, strict=True) if numbers]
    )
    assert len(errors) == sum(len(row["tokens"]) for row in rows if row["length"])
    assert metrics["eval_length_loss"] == pytest.approx((errors**2).mean(), rel=1e-4)
    assert metrics["eval_length_mae"] == pytest.approx(np.abs(errors).mean(), rel=1e-4)
    assert [stars is None for stars in predicted["stars"]] == [row["stars"] is None for row in rows]
    assert set(predicted["stars"]) <= {None, "1", "2", "3"}
    means = [metrics["eval_length_closeness"], metrics["eval_stars_accuracy"], metrics["eval_topic_accuracy"]]
    assert metrics["eval_mtl_score"] == pytest.approx(np.mean(means))


def test_evaluate_command_gives_the_scores_of_the_run(folder, tmp_path):
    output = tmp_path / "results.json"
    command = ["evaluate", str(folder / "run"), "--recipe", str(folder / "recipe.yaml"), "--split", "test"]
    assert main([*command, "--output", str(output)]) == 0
    found, expected = (json.loads(path.read_text())["tasks"] for path in (output, folder / "run" / "results.json"))
    for name in NAMES:
        assert found[name] == pytest.approx(expected[name], abs=1e-6)


def test_pipeline_answers_in_the_form_of_external_types(answer):
    (words, stars, _) = answer(SENTENCE).values()
    assert [entry["word"] for entry in words] == ["The", "quick", "fox", "jumps", "over", "Ada", "."]
    assert all(SENTENCE[entry["start"] : entry["end"]] == entry["word"] for entry in words)
    assert len(stars) == 1
    every = answer(SENTENCE, top_k=None)["stars"]
    assert {entry["label"] for entry in every} == {"1", "2", "3"}
    assert sum(entry["score"] for entry in every) == pytest.approx(1.0)
    assert len(answer({"tokens": ["fox"] * 200})["length"]) == 200


def test_predict_command_writes_a_column_for_words_and_a_comment_for_texts(folder, answer, tmp_path):
    source, target = write(tmp_path / "a.txt", SENTENCE + "\n"), tmp_path / "out.conll"
    assert main(["predict", str(folder / "run"), source, "--output", str(target), "--output-format", "conll"]) == 0
    (sentence,) = read_conll(target, ["tokens", "length"])
    expected = answer(SENTENCE)
    assert sentence["stars"] == expected["stars"][0]["label"]
    assert [float(number) for number in sentence["length"]] == pytest.approx(
        [entry["score"] for entry in expected["length"]], abs=1e-3
    )


def test_page_shows_answers_of_external_types(answer):
    answers = answer(SENTENCE, top_k=None)
    tasks = answer.model.tasks
    marked = format_answer(tasks["length"], answers["length"], SENTENCE)
    assert f"<b>{answers['length'][0]['score']:.3f}</b>" in marked
    assert format_answer(tasks["stars"], answers["stars"], SENTENCE).keys() == {"1", "2", "3"}


def test_saved_model_loads_with_equal_tasks_and_logits(folder, tmp_path):
    model = MultitaskModel.from_pretrained(folder / "run").eval()
    model.save_pretrained(tmp_path)
    again = MultitaskModel.from_pretrained(tmp_path).eval()
    assert again.tasks == model.tasks
    assert [type(task) for task in again.tasks.values()][:2] == [TokenRegression, OrdinalRegression]
    ids = torch.randint(5, 100, (2, 9))
    with torch.no_grad():
        for name, logits in model(ids).logits.items():
            assert torch.equal(again(ids).logits[name], logits)


def test_external_type_is_exported_as_a_stock_class_and_as_an_adapter(folder, tmp_path):
    model = MultitaskModel.from_pretrained(folder / "run").eval()
    stock, ids = stock_model(model, "length"), torch.randint(5, 100, (2, 9))
    with torch.no_grad():
        torch.testing.assert_close(stock(ids).logits, model(ids, tasks=["length"]).logits["length"], rtol=0, atol=1e-5)
    assert stock.config.id2label == {0: "length"}
    tokenizer = pipeline("multitask", model=str(folder / "run"), device="cpu").tokenizer
    export_peft(model, tokenizer, "length", tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["task_type"] == "TOKEN_CLS"


def test_code_of_an_external_type_is_not_pushed_incomplete(folder):
    with pytest.raises(HubError, match=r"^Task 'length': its code is in the module .*, which is not part of"):
        repository_files(folder / "run", "ada/outside", with_code=True)
    assert "config.json" in repository_files(folder / "run", "ada/outside")


def test_type_without_a_name_is_refused():
    class Nameless(Task):
        def make_kind(self):
            return NumberPerText(self.name)

    with pytest.raises(ValueError, match=r"should define its name as `type`, a string\. .*Nameless has none"):
        register_task_type(Nameless)


def test_card_names_external_types_and_their_options(folder):
    card = (folder / "run" / "README.md").read_text(encoding="utf-8")
    assert "| length | token-regression | a number |" in card
    assert "| stars | ordinal-regression, pooling mean | 1, 2, 3 |" in card
