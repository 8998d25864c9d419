"""Compare the multitask pipeline, three stock pipelines, a bare loop and ONNX, and print a Markdown table.

    mtl-nlp train recipes/ewt.yaml
    python scripts/benchmark_serving.py runs/ewt         on an otherwise idle machine

All sides predict on the sentences of the test split of English-EWT at batch 32, in turns, in one process. The script
needs MTL_NLP_DATA, as recipes/ewt.yaml does, and the extra `onnx`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerBase, pipeline
from transformers.utils import logging

from mtl_nlp import MultitaskModel, Recipe
from mtl_nlp.export.onnx import export_onnx
from mtl_nlp.export.scores import compare_scores
from mtl_nlp.export.stock import stock_model
from mtl_nlp.hub.loading import load_model, load_model_tokenizer
from mtl_nlp.modeling.heads_multitask import stock_class_problem, stock_config
from mtl_nlp.run.prepare import prepare_evaluation

RECIPE = Path(__file__).parents[1] / "recipes" / "ewt.yaml"
BATCH = 32
SPLIT = "test"


def stock_pipelines(model: MultitaskModel, tokenizer: PreTrainedTokenizerBase) -> Callable[[list[str]], object]:
    """Build one stock pipeline per task; each has its own encoder of the same shape."""
    answers = []
    for name, task in model.tasks.items():
        config = model.config.text_config
        if stock_class_problem(task, config) is None:
            stock = stock_model(model, name)
        else:  # its answers differ from those of the model, but take the same time
            stock = AutoModelForSequenceClassification.from_config(stock_config(task, config)).eval()
        kind = task.kind.pipeline_task
        options = {"aggregation_strategy": "simple"} if "scheme" in task.to_dict() else {}
        answers.append(pipeline(kind, stock, tokenizer=tokenizer, batch_size=BATCH, **options))
    return lambda texts: [answer(texts) for answer in answers]


def bare_loop(model: MultitaskModel, tokenizer: PreTrainedTokenizerBase) -> Callable[[list[str]], object]:
    """Build the minimal program: length-sorted batches, one encoder pass, one linear layer and argmax per task."""
    hidden = model.config.text_config.hidden_size
    layers = [(task.kind.level, torch.nn.Linear(hidden, task.num_labels)) for task in model.tasks.values()]

    @torch.no_grad()
    def run(texts: list[str]) -> list[list[list[int]]]:
        ids = tokenizer(texts)["input_ids"]
        order = sorted(range(len(ids)), key=lambda row: -len(ids[row]))
        found: list[list[list[int]]] = [[] for _ in texts]
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            batch = tokenizer.pad({"input_ids": [ids[row] for row in rows]}, return_tensors="pt", verbose=False)
            states = model.encoder(**batch).last_hidden_state
            best = [layer(states if level == "token" else states[:, 0]).argmax(-1).tolist() for level, layer in layers]
            for place, row in enumerate(rows):
                found[row] = [labels[place] for labels in best]
        return found

    return run


def measure(sides: dict[str, Callable[[list[str]], object]], texts: list[str], rounds: int) -> dict[str, list[float]]:
    """Measure the texts per second of every side in every round; the sides take turns."""
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    for side in sides.values():
        side(texts[: 2 * BATCH])
    for _ in range(rounds):
        for name, side in sides.items():
            started = time.perf_counter()
            side(texts)
            speeds[name].append(len(texts) / (time.perf_counter() - started))
    return speeds


def line(name: str, found: str, value: float, sign: str, bar: float, form: str = "{:.2f}") -> None:
    """Print a line of the table; `sign` (`<=` or `>=`) is the required relation of the value to the bar."""
    met = value <= bar if sign == "<=" else value >= bar
    print(f"| {name} | {found} | {form.format(value)} | {sign} {bar} | {'yes' if met else 'no'} |", flush=True)


def speed_lines(speeds: dict[str, list[float]]) -> None:
    """Print the ratios of the speeds of the sides."""
    middle = {name: statistics.median(values) for name, values in speeds.items()}
    for name, one, other, bar in (
        ("pipeline against three stock pipelines", "pipeline", "stock", 6.0),
        ("pipeline against a bare loop", "pipeline", "bare", 0.8),
        ("int8 against torch fp32, both in the pipeline", "int8", "pipeline", 1.5),
        ("onnx fp32 against torch fp32, both in the pipeline", "onnx", "pipeline", 1.0),
    ):
        ratios = [a / b for a, b in zip(speeds[one], speeds[other], strict=True)]
        every = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        found = f"{middle[one]:.0f} and {middle[other]:.0f} texts/s; all ratios: {every}"
        line(name, found, statistics.median(ratios), ">=", bar)


def size_line(folder: Path, model: MultitaskModel) -> None:
    """Print the size of the saved file relative to the size of its content."""
    size = (folder / "model.safetensors").stat().st_size
    content = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    line("file size", f"{size:,} bytes; encoder and heads {content:,}", size / content, "<=", 1.01, "{:.4f}")


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of a model trained by recipes/ewt.yaml")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model = load_model(options.model).eval()
    tokenizer = load_model_tokenizer(options.model, model.config)
    run = prepare_evaluation(Recipe.load(RECIPE), model, options.model, SPLIT)
    files = run.recipe.datasets["ewt"].data_files[SPLIT]
    texts = [json.loads(row)["text"] for file in files for row in Path(file).read_text("utf-8").splitlines()]
    with tempfile.TemporaryDirectory() as folder:
        exported = {
            "onnx": export_onnx(model, tokenizer, Path(folder) / "onnx"),
            "int8": export_onnx(model, tokenizer, Path(folder) / "int8", int8=True),
        }
        sides = {"stock": stock_pipelines(model, tokenizer), "bare": bare_loop(model, tokenizer)}
        for name, side in {"pipeline": model, **exported}.items():
            sides[name] = partial(pipeline("multitask", model=side, tokenizer=tokenizer), batch_size=BATCH)
        print(f"{len(texts)} texts, torch {torch.__version__}, {torch.get_num_threads()} threads, batch {BATCH}\n")
        print("| figure | measured | value | bar | met |\n|---|---|---|---|---|", flush=True)
        speed_lines(measure(sides, texts, options.rounds))
        for task, metric, before, after, points in compare_scores(
            model, exported["int8"], run.splits[SPLIT], tokenizer
        ):
            line(
                f"int8, {task} {metric}", f"{SPLIT}: torch {before}, int8 {after}", points, ">=", -1.0, "{:+.2f} points"
            )
    size_line(Path(options.model), model)


if __name__ == "__main__":
    main()
