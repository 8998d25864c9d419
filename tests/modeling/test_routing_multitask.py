"""Encoder passes: rows, adapters and routes."""

from __future__ import annotations

import pytest
import torch

from mtl_nlp.modeling.routing_multitask import Route, current_route, encoder_passes, mark_idle_adapters, routed

ADAPTERS = {"pos": ("pos",), "ner": ("ner",), "topic": (), "stars": ()}
ROWS = {
    "pos": torch.tensor([0, 1, 4]),
    "ner": torch.tensor([1]),
    "topic": torch.tensor([3, 1]),
    "stars": torch.tensor([1, 5]),
}
NONE = torch.tensor([], dtype=torch.long)


def read_for(passes, task: str) -> list[int]:
    """Return the rows of the batch behind the positions of a task in its pass."""
    (found,) = (each for each in passes if task in each.positions)
    return found.rows[found.positions[task]].tolist()


@pytest.mark.parametrize("in_one", [True, False])
def test_every_task_finds_its_rows_in_order(in_one):
    passes = encoder_passes(ADAPTERS, ROWS, in_one=in_one)
    assert len(passes) == (1 if in_one else 3)
    assert {task: read_for(passes, task) for task in ROWS} == {task: rows.tolist() for task, rows in ROWS.items()}


def test_row_is_repeated_for_each_adapter_of_the_pass():
    (one,) = encoder_passes(ADAPTERS, ROWS, in_one=True)
    assert one.route == Route((("pos",), ("ner",), ()), (3, 1, 3))
    assert one.rows.tolist() == [0, 1, 4, 1, 1, 3, 5]


def test_tasks_with_one_adapter_read_the_batch_unchanged():
    rows = {"topic": ROWS["topic"], "stars": ROWS["stars"], "pos": NONE, "ner": NONE}
    (one,) = encoder_passes(ADAPTERS, rows, in_one=True)
    assert one.rows is None
    assert {task: places.tolist() for task, places in one.positions.items()} == {"topic": [3, 1], "stars": [1, 5]}


@pytest.mark.parametrize("rows", [None, dict.fromkeys(ROWS, NONE)])
def test_batch_without_labels_still_takes_one_pass(rows):
    adapters = {} if rows is None else ADAPTERS
    (one,) = encoder_passes(adapters, rows, in_one=True)
    assert (one.rows, one.positions, one.route.adapters) == (None, {}, ((),))


def test_all_rows_take_one_pass_per_adapter_and_one_without():
    passes = encoder_passes(ADAPTERS, None, in_one=True)
    assert [each.route.adapters for each in passes] == [(("pos",),), (("ner",),), ((),)]
    assert [list(each.positions) for each in passes] == [["pos"], ["ner"], ["topic", "stars"]]


def test_idle_adapters_are_marked_in_the_first_pass():
    passes = mark_idle_adapters(encoder_passes(ADAPTERS, {**ROWS, "ner": NONE}, in_one=False), ["pos", "ner", "shared"])
    assert [each.route.idle for each in passes] == [("ner", "shared"), ()]


def test_route_is_active_only_inside_its_context():
    inner, outer = Route((("a",),), ()), Route((("b",),), ())
    with routed(outer):
        with routed(inner):
            assert current_route() == inner
        assert current_route() == outer
    assert current_route() is None
