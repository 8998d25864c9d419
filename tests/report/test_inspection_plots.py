"""The tables and plots of an inspection."""

from __future__ import annotations

import json

from insight_folder import HEADS, LAYERS, inspection, write_insight
from toys import build_config

from mtl_nlp import MultitaskConfig, TextClassification
from mtl_nlp.report.blocks import Plots, Table, Text
from mtl_nlp.report.inspection_plots import inspection_blocks
from mtl_nlp.report.material import RunFiles

TASKS, METRICS = ["ner", "genre", "rating"], ["f1", "accuracy", "pearson"]


def blocks_of(folder, shown=TASKS, **options):
    write_insight(folder, TASKS, METRICS, **options)
    return inspection_blocks(RunFiles(folder), "p", shown)


def tables_of(blocks):
    return {each.caption: each for each in blocks if isinstance(each, Table)}


def test_every_part_has_a_sentence_on_how_to_read_it(tmp_path):
    blocks = blocks_of(tmp_path)
    tables = tables_of(blocks)
    assert [*tables] == ["Movement of the encoder", "Score from each layer", "Heads that tasks need", "Norm of ΔW"]
    for place, block in enumerate(blocks):
        if isinstance(block, Table) and block.caption != "Heads that tasks need":
            assert isinstance(blocks[place - 1], Text)
    plots = [plot.table.caption for each in blocks if isinstance(each, Plots) for plot in each.plots]
    assert plots == [
        "Change without a layer",
        "Change of ner f1 (points) without a head",
        "Change of genre accuracy (points) without a head",
        "Change of rating pearson without a head",
        "Rank correlation of needs",
        "Cosine of ΔW",
        "Cosine of ΔW by layer",
    ]


def test_values_have_the_units_of_their_scores(tmp_path):
    blocks = blocks_of(tmp_path)
    need = tables_of(blocks)["Score from each layer"]
    assert need.rows[0] == ["embeddings", "50.00", "50.00", "0.5000"]
    assert need.rows[-1] == ["the task's head", "80.00", "80.00", "0.8000"]
    assert need.heat[0] == [0.0] * 3
    assert need.heat[len(LAYERS) - 1] == [1.0] * 3
    layer = next(each for each in blocks if isinstance(each, Plots)).plots[0].table
    assert layer.rows[0] == ["layer 0", "−20.00", "−20.00", "−0.2000"]
    heads = tables_of(blocks)["Heads that tasks need"].rows
    assert heads[0][2:] == ["layer 1 head 0", "layer 0 head 2"]
    assert heads[2][1].endswith(f"of {4 * HEADS}")


def test_only_the_shown_tasks_are_drawn(tmp_path):
    blocks = blocks_of(tmp_path, ["genre"])
    assert tables_of(blocks)["Norm of ΔW"].head == ["layer", "genre", "shared"]
    assert tables_of(blocks)["Score from each layer"].head == ["read by a probe", "genre accuracy (%)"]
    assert blocks_of(tmp_path, []) == []


def test_missing_parts_have_their_reason(tmp_path):
    content = inspection(TASKS, METRICS, adapters=False)
    content |= {"need": None, "ablation": None}
    content["movement"][0]["weights"] = None
    (tmp_path / "inspection.json").write_text(json.dumps(content))
    blocks = inspection_blocks(RunFiles(tmp_path), "p", TASKS)
    assert tables_of(blocks)["Movement of the encoder"].head == ["layer", "1 − CKA"]
    assert blocks[-1] == Text("Left out: need: the training split is streamed.")
    assert not any(isinstance(each, Plots) for each in blocks)


def test_the_description_of_a_map_has_the_numbers_of_its_cells(tmp_path):
    blocks = blocks_of(tmp_path)
    (without_layer,) = next(each for each in blocks if isinstance(each, Plots)).plots
    assert "layer 0 and ner f1 (points): −20.00; " in without_layer.svg


def test_changes_without_a_rank_correlation_have_a_sentence_instead_of_a_plot(tmp_path):
    content = inspection(TASKS, METRICS)
    content["ablation"]["correlation"] = [[1.0 if a == b else None for a in TASKS] for b in TASKS]
    (tmp_path / "inspection.json").write_text(json.dumps(content))
    blocks = inspection_blocks(RunFiles(tmp_path), "p", TASKS)
    assert Text("No head changes the scores of two tasks, so that their needs have no rank correlation.") in blocks
    assert "Rank correlation of needs" not in [
        plot.table.caption for each in blocks if isinstance(each, Plots) for plot in each.plots
    ]


def test_an_inspection_of_other_weights_is_not_drawn(tmp_path):
    tasks = [TextClassification(name=name, labels=["x", "y"]) for name in TASKS]
    MultitaskConfig(text_config=build_config("bert"), tasks=tasks, weights_sha256="a" * 64).save_pretrained(tmp_path)
    (block,) = blocks_of(tmp_path, weights_sha256="b" * 64)
    assert "different weights" in block.text
    assert len(blocks_of(tmp_path, weights_sha256="a" * 64)) > 5
    assert len(blocks_of(tmp_path, weights_sha256=None)) > 5
