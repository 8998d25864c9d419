"""One class per unit: cross-entropy with class ids or soft targets."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mtl_nlp.modeling.label_kinds_multitask import IGNORED
from mtl_nlp.modeling.text_kinds_multitask import ClassPerText
from mtl_nlp.modeling.word_kinds_multitask import ClassPerWord

POS = ClassPerWord("pos", ["a", "b", "c"])
TOPIC = ClassPerText("topic", ["a", "b", "c"])


@pytest.mark.parametrize("kind", [POS, TOPIC], ids=lambda kind: kind.name)
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_certain_soft_targets_equal_class_ids(kind, label_smoothing):
    torch.manual_seed(0)
    shape = (2, 4) if kind is POS else (4,)
    logits, targets = torch.randn(*shape, 3), torch.randint(0, 3, shape)
    targets[..., 1] = IGNORED
    soft = F.one_hot(targets.clamp(min=0), 3) * targets.ne(IGNORED)[..., None].float()
    sums = [kind.loss_sum(logits, given, label_smoothing=label_smoothing) for given in (targets, soft)]
    torch.testing.assert_close(*sums, rtol=0, atol=1e-5)
    assert kind.count_units(targets) == kind.count_units(soft)


CLASS_WEIGHTS = {"a": 2.0, "c": 0.25}


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_mean_loss_with_class_weights_is_that_of_torch(label_smoothing):
    kind = ClassPerWord("pos", ["a", "b", "c"], class_weights=CLASS_WEIGHTS)
    torch.manual_seed(0)
    logits, targets = torch.randn(2, 5, 3), torch.randint(0, 3, (2, 5))
    targets[0, 1] = IGNORED
    expected = F.cross_entropy(
        logits.reshape(-1, 3), targets.flatten(), torch.tensor([2.0, 1.0, 0.25]), label_smoothing=label_smoothing
    )
    mean = kind.loss_sum(logits, targets, label_smoothing=label_smoothing) / kind.count_units(targets)
    torch.testing.assert_close(mean, expected)
    soft = F.one_hot(targets.clamp(min=0), 3) * targets.ne(IGNORED)[..., None].float()
    torch.testing.assert_close(kind.count_units(soft), kind.count_units(targets))
    torch.testing.assert_close(
        kind.loss_sum(logits, soft, label_smoothing=label_smoothing) / kind.count_units(soft), expected
    )


def test_weight_of_a_unit_is_the_product_of_the_weights_of_its_class_and_its_row():
    kind = ClassPerText("topic", ["a", "b", "c"], class_weights=CLASS_WEIGHTS)
    targets, rows, logits = torch.tensor([0, 1, 2, IGNORED]), torch.tensor([1.0, 3.0, 8.0, 5.0]), torch.randn(4, 3)
    weights = kind.spread(rows, targets)
    assert kind.count_units(targets, weights).item() == 2.0 + 3.0 + 2.0
    terms = F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="none")
    torch.testing.assert_close(
        kind.loss_sum(logits, targets, weights), (terms * torch.tensor([2.0, 3.0, 2.0, 0.0])).sum()
    )


def test_weights_of_rows_apply_to_all_their_words():
    weights = POS.spread(torch.tensor([2.0, 0.5]), torch.tensor([[0, 1, IGNORED], [2, 0, 1]]))
    assert POS.count_units(torch.tensor([[0, 1, IGNORED], [2, 0, 1]]), weights).item() == 2 * 2.0 + 3 * 0.5
    soft = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    assert TOPIC.count_units(soft, TOPIC.spread(torch.tensor([2.0, 0.5]), soft)).item() == 2.5
