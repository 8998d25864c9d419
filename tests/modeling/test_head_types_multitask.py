"""The option `head` of a task, and the registration of heads from outside of this package."""

from __future__ import annotations

import pytest
from torch import nn

from mtl_nlp import TextClassification, register_head
from mtl_nlp.modeling.head_types_multitask import HEADS, check_head, head_options, registered_name
from mtl_nlp.modeling.tasks_multitask import task_from_dict


@pytest.fixture(autouse=True)
def _own_heads(monkeypatch):
    monkeypatch.setitem(HEADS, "scaled", nn.Linear)  # removes the head after the test
    del HEADS["scaled"]

    @register_head("scaled")
    class Scaled(nn.Module):
        def __init__(self, config, level, factor=1.0):
            super().__init__()


def task(head):
    return TextClassification(name="topic", labels=["a", "b"], head=head)


def test_options_are_filled_with_their_defaults_and_survive_plain_data():
    assert task(None).options == {}
    assert head_options({"dropout": 0.3}) == {"hidden_layers": 1, "dropout": 0.3}
    assert (registered_name("scaled"), head_options("scaled")) == ("scaled", {})
    own = {"type": "scaled", "factor": 2.0}
    assert (registered_name(own), head_options(own)) == ("scaled", {"factor": 2.0})
    for head in ("scaled", own, {"hidden_layers": 2}):
        assert task_from_dict(task(head).to_dict()) == task(head)
    assert task({"type": "scaled"}) == task("scaled")
    assert task({"hidden_layers": 1}).head == {"hidden_layers": 1, "dropout": 0.1}
    assert "head" not in task(None).to_dict() and "head_module" not in task({"hidden_layers": 2}).to_dict()
    assert task("scaled").to_dict()["head_module"] == __name__


def test_a_registered_head_pools_itself_beside_tasks_on_words():
    assert task("scaled").with_default_pooling("mean").pooling == "cls"
    assert task({"hidden_layers": 1}).with_default_pooling("mean").pooling == "mean"


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("scaledd", r"no head 'scaledd' is registered. Import first the module that registers it. Did you mean 'scal"),
        ({"type": "scaled", "factr": 2}, r"`head`: scaled got an unexpected keyword argument 'factr'\.$"),
        ({"type": 3}, r"`head` should be the name of a registered head, "),
        ({}, r"`head` should be the name of a registered head, "),
        (["scaled"], r"`head` should be the name of a registered head, "),
        ({"hidden_layer": 2}, r"`head` has no option 'hidden_layer'\. It has hidden_layers and dropout, or"),
        ({"hidden_layers": 0}, r"`head.hidden_layers` should be an integer from 1 to 100\. Found 0\.$"),
        ({"hidden_layers": 1e9}, r"`head.hidden_layers` should be an integer from 1 to 100\."),
        ({"dropout": 1.0}, r"`head.dropout` should be a number from 0 to below 1\. Found 1\.0\.$"),
        ({"dropout": "0.1"}, r"`head.dropout` should be a number from 0 to below 1\. Found '0\.1'\.$"),
    ],
)
def test_options_that_fit_no_head_are_refused_in_one_line(head, message):
    with pytest.raises(ValueError, match=rf"^Task 'topic': {message}"):
        task(head)


def test_a_saved_task_names_the_module_to_import_and_imports_nothing():
    saved = {**task("scaled").to_dict(), "head": "other", "head_module": "their_heads"}
    with pytest.raises(
        ValueError, match=r"no head 'other' is registered\. Import the module 'their_heads' first\. Valid: "
    ):
        task_from_dict(saved)
    saved = {"name": "t", "type": "their-type", "module": "their_types"}
    with pytest.raises(ValueError, match=r"For a type from outside of mtl_nlp, import the module 'their_types' first"):
        task_from_dict(saved)


def test_a_name_belongs_to_one_class_and_consists_of_plain_characters():
    with pytest.raises(ValueError, match=r"^The name of a head should be unique\. Found 'scaled', which belongs to "):
        register_head("scaled")(nn.Linear)
    with pytest.raises(ValueError, match=r"^The name of a head should consist of letters, digits, `-` and `_`\."):
        register_head("a head")
    check_head("topic", "scaled")
