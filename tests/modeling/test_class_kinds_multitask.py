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
