"""The comparison of a model's scores with the scores of its export."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedTokenizerBase

from mtl_nlp.data.encoding import EncodedDataset
from mtl_nlp.evaluation.evaluator import score_model
from mtl_nlp.modeling.modeling_multitask import MultitaskModel


def compare_scores(
    model: MultitaskModel, exported: Any, datasets: Mapping[str, EncodedDataset], tokenizer: PreTrainedTokenizerBase
) -> list[tuple[str, str, float, float, float]]:
    """Score a model and its export on the same rows.

    Args:
        model: the model.
        exported: the export of the model, which is called like the model.
        datasets: dataset -> its encoded split.
        tokenizer: the tokenizer of both models.

    Returns:
        (task, score, value for the model, value for the export, difference in points) for every score.
    """
    before, after = (score_model(each, datasets, model.tasks, tokenizer) for each in (model, exported))
    return [
        (task, name, round(value, 4), round(new := after.scores[task][name], 4), round(100 * (new - value), 2))
        for task, scores in before.scores.items()
        for name, value in scores.items()
    ]
