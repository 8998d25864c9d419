"""The cost of answers: the pipeline, its exports, scoring, and the preparation of a run."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerBase, pipeline

from benchmarks.measuring import Figure, Setting, figure, minus, ratio, seconds, take_turns
from benchmarks.subjects import encoders, real_encoder, recipe_of, run_of, trainer_of
from mtl_nlp import MultitaskModel
from mtl_nlp.export.scores import compare_scores
from mtl_nlp.export.stock import stock_model
from mtl_nlp.modeling.heads_multitask import stock_class_problem, stock_config
from mtl_nlp.run.build import Run, build_model
from mtl_nlp.run.prepare import prepare

Answer = Callable[[list[str]], object]


def texts_of(run: Run, most: int) -> list[str]:
    """Return the first texts of the test splits, with blanks between words."""
    inputs = (encoded.inputs for encoded in run.splits["test"].values())
    rows = itertools.chain.from_iterable(of["tokens"] if "tokens" in of else of["text"] for of in inputs)
    return [row if isinstance(row, str) else " ".join(row) for row in itertools.islice(rows, most)]


def stock_pipelines(model: MultitaskModel, tokenizer: PreTrainedTokenizerBase, batch: int) -> Answer:
    """Build one stock pipeline per task; each has its own encoder of the same shape."""
    answers = []
    for name, task in model.tasks.items():
        config = model.config.text_config
        if stock_class_problem(task, config) is None:
            stock = stock_model(model, name)
        else:  # its answers differ from those of the model, but take the same time
            stock = AutoModelForSequenceClassification.from_config(stock_config(task, config)).eval()
        options = {"aggregation_strategy": "simple"} if task.finds_spans else {}
        kind = task.kind.pipeline_task
        answers.append(pipeline(kind, stock, tokenizer=tokenizer, batch_size=batch, device=model.device, **options))
    return lambda texts: [answer(texts) for answer in answers]


def bare_answers(model: MultitaskModel, tokenizer: PreTrainedTokenizerBase, batch: int) -> Answer:
    """Build the minimal program: length-sorted batches, one encoder pass, one linear layer and argmax per task."""
    hidden, device = model.config.text_config.hidden_size, model.device
    layers = [
        (task.kind.labels_words, torch.nn.Linear(hidden, task.num_labels, device=device, dtype=model.dtype))
        for task in model.tasks.values()
    ]

    @torch.no_grad()
    def run(texts: list[str]) -> list[list[list[int]]]:
        ids = tokenizer(texts)["input_ids"]
        order = sorted(range(len(ids)), key=lambda row: -len(ids[row]))
        found: list[list[list[int]]] = [[] for _ in texts]
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            padded = tokenizer.pad({"input_ids": [ids[row] for row in rows]}, return_tensors="pt", verbose=False)
            states = model.encoder(**padded.to(device)).last_hidden_state
            best = [layer(states if of_words else states[:, 0]).argmax(-1).tolist() for of_words, layer in layers]
            for place, row in enumerate(rows):
                found[row] = [labels[place] for labels in best]
        return found

    return run


def answering(setting: Setting) -> Iterator[Figure]:
    """Compare the pipeline with a bare loop of the encoder and linear layers, and with one stock pipeline per task."""
    for (name, encoder), batch in itertools.product(encoders(setting).items(), (1, 32)):
        run = run_of(setting, encoder)
        model = build_model(run).eval().to(setting.device)
        texts = texts_of(run, setting.size(512 if batch == 1 else 2048, 8))
        sides: dict[str, Answer] = {
            "own": partial(
                pipeline("multitask", model=model, tokenizer=run.tokenizer, device=setting.device), batch_size=batch
            ),
            "bare": bare_answers(model, run.tokenizer, batch),
            "stock": stock_pipelines(model, run.tokenizer, batch),
        }
        found = take_turns({side: partial(seconds, partial(run, texts)) for side, run in sides.items()}, setting.repeat)
        how, of = f"{name}, fp32, batch {batch}, {len(texts)} texts", f"{name}, batch {batch}"
        above = minus(found["own"], found["bare"], 1e6 / len(texts))
        yield figure(f"pipeline minus bare loop, {of}", above, "µs per text", "<= 250" if name == "toy" else "", how)
        yield figure(f"texts per second, {of}", [len(texts) / each for each in found["own"]], "texts/s", "", how)
        bar = {("MiniLM", 32): ">= 8", ("MiniLM", 1): ">= 2.5"}.get((name, batch), "")
        yield ratio(f"speed, pipeline / stock pipelines, {of}", found["stock"], found["own"], bar, how)
        bar = ">= 0.93" if name == "MiniLM" and batch > 1 else ""
        yield ratio(f"speed, pipeline / bare loop, {of}", found["bare"], found["own"], bar, how)


def onnx(setting: Setting) -> Iterator[Figure]:
    """Compare ONNX in fp32 and int8 with torch in the pipeline, and the scores of int8. Needs the extra `onnx`."""
    if importlib.util.find_spec("onnxruntime") is None:
        yield Figure("onnx", *[float("nan")] * 3, how="onnxruntime is not installed")
        return
    from mtl_nlp.export.onnx import export_onnx

    run = run_of(setting, real_encoder(setting))
    model, texts = build_model(run).eval(), texts_of(run, setting.size(2048, 8))
    sides: dict[str, Any] = {
        "torch": model,
        "onnx": export_onnx(model, run.tokenizer, setting.folder / "onnx"),
        "int8": export_onnx(model, run.tokenizer, setting.folder / "int8", int8=True),
    }
    pipelines = {side: pipeline("multitask", model=of, tokenizer=run.tokenizer) for side, of in sides.items()}
    found = take_turns(
        {side: partial(seconds, partial(of, texts, batch_size=32)) for side, of in pipelines.items()}, setting.repeat
    )
    for side, bar in (("onnx", ">= 1"), ("int8", ">= 1.5")):
        yield ratio(f"speed, {side} / torch, both in the pipeline", found["torch"], found[side], bar, "batch 32")
    for task, metric, *_, points in compare_scores(model, sides["int8"], run.splits["test"], run.tokenizer):
        yield figure(f"int8, {task} {metric}", [points], "points", ">= -1", "test, int8 minus torch; random heads")


def scoring(setting: Setting) -> Iterator[Figure]:
    """Measure the scoring of the test split."""
    for name, encoder in encoders(setting).items():
        trainer = trainer_of(run := run_of(setting, encoder))
        rows = sum(encoded.num_rows for encoded in run.splits["test"].values())
        side = partial(seconds, partial(trainer.score, run.splits["test"]))
        found = take_turns({"score": side}, setting.repeat)["score"]
        bar = "<= 0.6" if name == "toy" else ""
        yield figure(f"scoring test, {name}", found, "s", bar, f"{rows} rows, all tasks")


def preparing(setting: Setting) -> Iterator[Figure]:
    """Measure the preparation of a run whose data has been read and encoded before."""
    recipe = recipe_of(setting, encoders(setting)["toy"])
    side = partial(seconds, partial(prepare, recipe))
    found = take_turns({"prepare": side}, setting.repeat)["prepare"]
    yield figure("prepare, the second time", found, "s", "<= 1", "all splits of ewt.yaml, data and encodings cached")
