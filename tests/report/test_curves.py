"""The section on the training."""

from __future__ import annotations

import json
import shutil

from mtl_nlp.report.blocks import Fold, Plots, Text
from mtl_nlp.report.curves import training_section
from mtl_nlp.report.material import read_material


def folds(section) -> dict[str, Fold]:
    return {block.summary: block for block in section.blocks if isinstance(block, Fold)}


def test_every_task_has_its_losses_scores_and_weights_for_each_seed(comparison):
    material = read_material(comparison)
    section = training_section(material, material.task_names)
    found = folds(section)
    assert list(found) == [
        "Training loss",
        "Scores on validation",
        "Loss weights",
        "Learning rate and sampling",
        "Best evaluation of each task",
    ]
    (losses,) = found["Training loss"].blocks
    assert isinstance(losses, Plots)
    assert [plot.table.caption for plot in losses.plots] == [f"Training loss of {task}" for task in material.task_names]
    assert len(losses.plots[0].table.rows) == 9
    assert losses.plots[0].table.rows[0][0] == "single, seed 1"
    (weights,) = found["Loss weights"].blocks
    assert len(weights.plots) == 2  # the weight of ner is 1 at all steps


def test_values_at_the_quarters_of_the_training_need_five_points(comparison, tmp_path):
    folder = shutil.copytree(comparison, tmp_path / "c")

    def heads() -> list[str]:
        material = read_material(folder)
        (losses,) = folds(training_section(material, ["ner"]))["Training loss"].blocks
        return list(losses.plots[0].table.head)

    assert heads() == ["run", "first", "25 %", "50 %", "75 %", "last"]
    short = "".join(json.dumps({"step": step, "loss_ner": 1.0}) + "\n" for step in (1, 2))
    (folder / "runs" / "hard-1-0" / "training_log.jsonl").write_text(short)
    assert heads() == ["run", "first", "last"]


def test_sampling_is_shown_as_planned_and_as_drawn(run):
    (plots,) = folds(training_section(read_material(run), ["ner"]))["Learning rate and sampling"].blocks
    assert plots.plots[1].table.rows == [
        ["ewt", "1,000", "60.00", "60.00", "1,800"],
        ["wnut", "200", "40.00", "40.00", "1,200"],
    ]


def test_an_early_peak_is_named(run):
    section = training_section(read_material(run), ["ner", "genre"])
    assert any("Best long before the kept model: ner." in str(block) for block in section.blocks)
    assert folds(section)["Best evaluation of each task"].blocks[0].rows[0] == [
        *("ner", "run", "f1", "0.7000"),
        *(100, "0.6000"),
    ]


def test_tasks_that_are_not_drawn_are_counted(run):
    assert any("2 further tasks" in str(block) for block in training_section(read_material(run), ["ner"]).blocks)


def test_a_run_without_a_log_says_so(tmp_path):
    (tmp_path / "results.json").write_text('{"training": {}}')
    (text,) = training_section(read_material(tmp_path), []).blocks
    assert text.text == "The runs have no training log."


def test_a_frozen_task_is_named_and_marked(run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "r")
    results = json.loads((folder / "results.json").read_text())
    section = training_section(read_material(folder), ["ner", "genre"])
    before = [plot.svg for plot in folds(section)["Loss weights"].blocks[0].plots]
    results["training"]["frozen"] = {"genre": {"step": 200, "best_step": 100}}
    (folder / "results.json").write_text(json.dumps(results))
    section = training_section(read_material(folder), ["ner", "genre"])
    text = "genre has the weight 0 from step 200 on: until then, its score on validation was best at step 100"
    assert any(text in block.text for block in section.blocks if isinstance(block, Text))
    (plots,) = folds(section)["Loss weights"].blocks
    assert "solid line" in plots.note
    assert [plot.svg for plot in plots.plots] != before
    assert not any(
        "has the weight 0" in str(block) for block in training_section(read_material(folder), ["ner"]).blocks
    )


def test_logged_probabilities_are_drawn(run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "r")
    with (folder / "training_log.jsonl").open("a") as log:
        log.writelines(
            json.dumps({"step": 100 * epoch, "epoch": float(epoch), "probability_ewt": share}) + "\n"
            for epoch, share in enumerate((0.5, 0.4, 0.3))
        )
    (plots,) = folds(training_section(read_material(folder), ["ner"]))["Learning rate and sampling"].blocks
    (table,) = (plot.table for plot in plots.plots if plot.table.caption == "Probability of ewt")
    assert table.rows == [["run", "0.5", "0.3"]]


def test_skipped_shares_are_named(run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "r")
    results = json.loads((folder / "results.json").read_text())
    results["training"]["skipped"] = {"ner": 3, "gradient": 1}
    (folder / "results.json").write_text(json.dumps(results))
    section = training_section(read_material(folder), ["ner"])
    texts = [block.text for block in section.blocks if isinstance(block, Text)]
    assert any(text.startswith("the loss of ner was infinite or NaN in 3 steps, ") for text in texts)
    assert any(text.startswith("the gradient was infinite or NaN in 1 step with finite losses") for text in texts)
