"""The inspection of a trained model: what its tasks share, and what is a task's own.

The content of `inspection.json`, where every list over layers starts with the embeddings unless it says otherwise:

```
{"split": "validation", "rows": {"sample": 96},                               the texts of each dataset
 "tasks": {"pos": {"metric": "accuracy", "score": 0.96, "units": 1358, "unit": "words"}},
 "layers": ["embeddings", "layer 0", …],
 "movement": [{"tasks": ["pos", …], "weights": [0.01, …], "cka": [0.99, …]}], one entry per set of adapters
 "need": {"scores": {"pos": [0.87, …]}, "units": {"pos": 4014}},              scores of probes; units they learned from
 "ablation": {"heads": {"pos": [[-0.01, …], …]},                              changes of the score, layers × heads
              "layers": {"pos": [-0.05, …]},                                  without each layer; no embeddings
              "correlation": [[1, 0.3], [0.3, 1]],                            Spearman's, of the changes by heads
              "shared": [{"layer": 0, "head": 2, "tasks": ["pos", "ner"]}],   heads that several tasks need most
              "own": {"pos": [[1, 8]]},                                       heads that one task needs most
              "harmless": {"pos": 50}},                                       number of heads without a fall
 "adapters": {"names": ["pos", "shared"], "norms": {"pos": [0, 0.4, …]},
              "similarity": [[1, 0.2], [0.2, 1]], "similarity_by_layer": [[[null, …], …], …]},
 "left_out": ["ablation: …"],                                                 a reason for each part that is null
 "provenance": {…, "weights_sha256": "…"}}
```

A part that does not apply is null.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtl_nlp.data.encoding import EncodedDataset
from mtl_nlp.errors import CommandError
from mtl_nlp.evaluation.results import provenance
from mtl_nlp.hub.loading import load_model
from mtl_nlp.messages import json_text
from mtl_nlp.modeling.layers_multitask import EMBEDDINGS
from mtl_nlp.modeling.modeling_multitask import MultitaskModel
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.run.arguments import evaluation_arguments
from mtl_nlp.run.build import load_start
from mtl_nlp.run.encoder import load_encoder_parts
from mtl_nlp.run.prepare import prepare_evaluation
from mtl_nlp.run_folder import write_file
from mtl_nlp.transfer.ablation import ablate, overlap
from mtl_nlp.transfer.adapter_changes import adapter_changes
from mtl_nlp.transfer.encoder_layers import EncoderLayers, find_layers, layer_labels
from mtl_nlp.transfer.inspected_texts import InspectedTexts, draw_texts, score_texts
from mtl_nlp.transfer.movement import measure_movement
from mtl_nlp.transfer.probes import probe_tasks

DEFAULT_ROWS = 300
FEWEST_ROWS = 2


def inspect_model(model: str, recipe: Recipe, split: str = "validation", rows: int = DEFAULT_ROWS) -> dict[str, Any]:
    """Measure how far the encoder of a trained model moved, and what each task needs of it.

    Args:
        model: folder or Hub id of the trained model.
        recipe: the recipe of its training, which names the data and the encoder that the training started from.
        split: the held-out split to measure on: `train`, `validation` or `test`.
        rows: the largest number of texts of each dataset, drawn at random, always the same ones.

    Returns:
        The content of `inspection.json`, see this module.

    Raises:
        CommandError: if `rows` is less than 2.
        ModelError: if there is no multitask model.
        RecipeError: if the model lacks the recipe's tasks, no dataset has the split, or the recipe's encoder cannot be
            loaded or is not the encoder that the training started from.
        DataError: if the data cannot be loaded or a row is not valid.
    """
    if rows < FEWEST_ROWS:
        raise CommandError(
            f"rows: should be at least {FEWEST_ROWS}, since one text shows no differences. Found {rows}."
        )
    device = evaluation_arguments(recipe, Path()).device
    trained = load_model(model).to(device)
    start = load_start(recipe, load_encoder_parts(recipe)[1], list(trained.tasks.values())).to(device).eval()
    run = prepare_evaluation(recipe, trained, model, split)
    held_out = run.splits[split]
    texts = draw_texts(held_out, trained.tasks, run.tokenizer, device, rows)
    layers = find_layers(trained.encoder, {key: value[:1] for key, value in texts.batches[0].inputs.items()})
    left_out: list[str] = []
    movement = measure_movement(trained, start, layers, texts)
    scores, units = score_texts(trained, texts), texts.units
    content = {
        "split": split,
        "rows": texts.rows,
        "tasks": {
            name: {
                "metric": task.kind.primary_score,
                "score": scores[name],
                "units": units[name],
                "unit": "words" if task.kind.labels_words else "texts",
            }
            for name, task in texts.tasks.items()
        },
        "layers": [EMBEDDINGS, *layer_labels(len(movement[0].cka) - 1)],
        "movement": [each._asdict() for each in movement],
        "need": _need(trained, recipe, model, texts, left_out),
        "ablation": _ablation(trained, layers, texts, scores, left_out),
        "adapters": _adapters(trained, layers, left_out),
        "left_out": left_out,
    }
    origin = provenance(held_out, recipe.sha256(), recipe.own_code)
    return {**content, "provenance": {**origin, "weights_sha256": trained.config.weights_sha256}}


def write_inspection(path: Path, content: Mapping[str, Any]) -> None:
    """Write `inspection.json`.

    Raises:
        ModelError: if the file is a symbolic link.
    """
    write_file(path, json_text(content, indent=2) + "\n")


def _need(
    model: MultitaskModel, recipe: Recipe, folder: str, texts: InspectedTexts, left_out: list[str]
) -> dict[str, Any] | None:
    streamed = [name for name, dataset in recipe.datasets.items() if dataset.streaming]
    if streamed:
        left_out.append(f"need: probes learn from the training split, and that of {streamed[0]} is streamed.")
        return None
    run = prepare_evaluation(recipe, model, folder, "train")
    training: dict[str, EncodedDataset] = run.splits["train"]
    return probe_tasks(model, training, texts, run.tokenizer)._asdict()


def _ablation(
    model: MultitaskModel,
    layers: EncoderLayers | None,
    texts: InspectedTexts,
    scores: Mapping[str, float],
    left_out: list[str],
) -> dict[str, Any] | None:
    if layers is None or layers.projections is None:
        what = "layers" if layers is None else "attention heads"
        left_out.append(f"ablation: the {what} of a {model.config.text_config.model_type} encoder are not known.")
        return None
    found = ablate(model, layers, texts, scores)
    return {
        "heads": {name: changes.tolist() for name, changes in found.heads.items()},
        "layers": {name: changes.tolist() for name, changes in found.layers.items()},
        **overlap(found.heads),
    }


def _adapters(model: MultitaskModel, layers: EncoderLayers | None, left_out: list[str]) -> dict[str, Any] | None:
    if not model.adapter_names:
        return None
    if layers is None:
        left_out.append(f"adapters: the layers of a {model.config.text_config.model_type} encoder are not known.")
        return None
    if any(options["use_dora"] for options in model.config.adapters or ()):
        left_out.append("adapters: the change of a DoRA adapter is not a product of two factors.")
        return None
    return adapter_changes(model, layers)._asdict()
