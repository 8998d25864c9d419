"""What answering costs: the multitask pipeline, three stock pipelines, a bare loop, ONNX. Prints a Markdown table.

    mtl-nlp train recipes/ewt.yaml
    python scripts/benchmark_serving.py runs/ewt         on a machine that does nothing else

All sides answer the sentences of English-EWT's test split at batch 32, in turns, in one process. Needs MTL_NLP_DATA
as recipes/ewt.yaml does, and the extra `onnx`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedTokenizerBase,
    pipeline,
)
from transformers.utils import logging

from mtl_nlp import MultitaskModel, Recipe
from mtl_nlp.export import compare_scores
from mtl_nlp.onnx_model import export_onnx
from mtl_nlp.run import load_model, load_model_tokenizer, prepare_evaluation

RECIPE = Path(__file__).parents[1] / "recipes" / "ewt.yaml"
BATCH = 32
SPLIT = "test"


def stock_pipelines(model: MultitaskModel, tokenizer: PreTrainedTokenizerBase) -> Callable[[list[str]], object]:
    """A stock pipeline for each task, each with an encoder of its own, of the same shape."""
    answers = []
    for task in model.tasks.values():
        auto_class = AutoModelForTokenClassification if task.level == "token" else AutoModelForSequenceClassification
        config = model.config.text_config.__class__.from_dict(model.config.text_config.to_dict())
        config.num_labels = task.num_labels
        name = "token-classification" if task.level == "token" else "text-classification"
        options = {} if task.level == "sequence" or task.scheme is None else {"aggregation_strategy": "simple"}
        answers.append(pipeline(name, auto_class.from_config(config).eval(), tokenizer=tokenizer, **options))
    return lambda texts: [answer(texts, batch_size=BATCH) for answer in answers]


def bare_loop(model: MultitaskModel, tokenizer: PreTrainedTokenizerBase) -> Callable[[list[str]], object]:
    """The least that can be done: length-sorted batches, one encoder pass, a linear layer and the argmax a task."""
    hidden = model.config.text_config.hidden_size
    layers = [(task.level, torch.nn.Linear(hidden, task.num_labels)) for task in model.tasks.values()]

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
    """Texts a second of every side in every round; the sides take turns."""
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    for side in sides.values():
        side(texts[: 2 * BATCH])
    for _ in range(rounds):
        for name, side in sides.items():
            started = time.perf_counter()
            side(texts)
            speeds[name].append(len(texts) / (time.perf_counter() - started))
    return speeds


def line(name: str, pairs: list[float], bar: float, found: str) -> str:
    """A line of the table: a ratio of speeds, the median over rounds, which should be at least the bar."""
    ratio, every = statistics.median(pairs), ", ".join(f"{pair:.2f}" for pair in pairs)
    return f"| {name} | {found}; all ratios: {every} | {ratio:.2f} | >= {bar} | {'yes' if ratio >= bar else 'no'} |"


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
    print(f"{len(texts)} texts, torch {torch.__version__}, {torch.get_num_threads()} threads, batch {BATCH}\n")
    with tempfile.TemporaryDirectory() as folder:
        exported = export_onnx(model, tokenizer, Path(folder) / "onnx")
        small = export_onnx(model, tokenizer, Path(folder) / "int8", int8=True)
        answer = pipeline("multitask", model=model, tokenizer=tokenizer)
        answer_onnx = pipeline("multitask", model=exported, tokenizer=tokenizer)
        answer_int8 = pipeline("multitask", model=small, tokenizer=tokenizer)
        sides: dict[str, Callable[[list[str]], object]] = {
            "pipeline": lambda texts: answer(texts, batch_size=BATCH),
            "bare": bare_loop(model, tokenizer),
            "stock": stock_pipelines(model, tokenizer),
            "onnx": lambda texts: answer_onnx(texts, batch_size=BATCH),
            "int8": lambda texts: answer_int8(texts, batch_size=BATCH),
        }
        speeds = measure(sides, texts, options.rounds)
        middle = {name: statistics.median(values) for name, values in speeds.items()}
        print("| figure | measured, texts/s | ratio | bar | met |\n|---|---|---|---|---|")
        for name, one, other, bar in (
            ("pipeline against three stock pipelines", "pipeline", "stock", 6.0),
            ("pipeline against a bare loop", "pipeline", "bare", 0.8),
            ("ONNX int8 against torch fp32, both in the pipeline", "int8", "pipeline", 1.5),
            ("ONNX fp32 against torch fp32, both in the pipeline", "onnx", "pipeline", 1.0),
        ):
            pairs = [a / b for a, b in zip(speeds[one], speeds[other], strict=True)]
            print(line(name, pairs, bar, f"{middle[one]:.0f} and {middle[other]:.0f}"))
        for task, metric, before, after, points in compare_scores(model, small, run.splits[SPLIT], tokenizer):
            print(
                f"| int8, {task} {metric} | {before} and {after} | {points:+.2f} points | > -1.0 | {'yes' if points > -1 else 'no'} |"
            )
    size = (Path(options.model) / "model.safetensors").stat().st_size
    content = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    met = "yes" if size <= 1.01 * content else "no"
    print(f"| file size | {size:,} bytes; encoder and heads {content:,} | {size / content:.4f} | <= 1.01 | {met} |")


if __name__ == "__main__":
    main()
