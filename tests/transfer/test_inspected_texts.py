"""The choice of texts, and scores on them."""

from __future__ import annotations

import pytest
import torch
from adapted_models import adapted, batch
from inspected_models import inputs, model_of, texts_of

from mtl_nlp.evaluation.evaluator import score_model
from mtl_nlp.run.build import build_model
from mtl_nlp.transfer.inspected_texts import answer_batch, draw_texts, groups_of, hidden_states, score_texts

CPU = torch.device("cpu")


def test_scores_of_all_texts_are_those_of_the_evaluation(run):
    model = build_model(run).eval()
    split = run.splits["validation"]
    texts = draw_texts(split, run.tasks, run.tokenizer, CPU, 10_000)
    assert texts.rows == {"sample": split["sample"].num_rows}
    expected = score_model(model, split, run.tasks, run.tokenizer)
    found = score_texts(model, texts)
    assert found == {name: expected.scores[name][task.kind.primary_score] for name, task in run.tasks.items()}
    words = sum(len(label) for label in split["sample"].references["pos"])
    assert texts.units == {"pos": words, "ner": words, "topic": split["sample"].num_rows}


def test_a_part_of_the_texts_is_always_the_same_part_with_all_windows(run):
    split = run.splits["train"]
    first, second = (draw_texts(split, run.tasks, run.tokenizer, CPU, 7) for _ in range(2))
    assert first.rows == {"sample": 7}
    rows = {feature["row"] for each in first.batches for feature in each.features}
    assert rows == first.references["sample"]["pos"].keys() == second.references["sample"]["pos"].keys()
    assert rows != set(range(7))
    windows = [window for each in first.batches for window in each.windows]
    assert sum(row in rows for row in split["sample"].windows["row"]) == len(windows)


def test_tasks_without_logits_have_no_score():
    model, texts = model_of(), texts_of()
    pieces = [piece for each in texts.batches for piece in answer_batch(model, each, {"pos": texts.tasks["pos"]})]
    assert texts.scores(pieces).keys() == {"pos"}


def test_the_last_hidden_states_are_those_that_the_heads_read():
    model = model_of("modernbert")
    found = hidden_states(model, (), inputs())
    assert len(found) == 3
    with torch.no_grad():
        torch.testing.assert_close(found[-1], model.encoder(**inputs()).last_hidden_state)


def test_hidden_states_are_those_of_the_adapters():
    model = adapted(adapters=("pos", "ner"))
    groups = groups_of(model, model.tasks)
    assert groups == {("task_pos",): ["pos"], ("task_ner",): ["ner"], (): ["topic", "a.b"]}
    own = hidden_states(model, ("task_pos",), batch())[-1]
    with torch.no_grad():
        merged = model.merge_and_unload("pos").encoder(**batch()).last_hidden_state
    torch.testing.assert_close(own, merged, rtol=1e-4, atol=1e-4)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(own, hidden_states(model, (), batch())[-1])
