"""Knowledge distillation with teacher annealing: the scores of teachers, and the targets that they change.

The method is that of Clark et al. (2019), BAM! Born-Again Multi-Task Networks for Natural Language Understanding. A
teacher of task t is a trained model with the task, such as the single-task run of a comparison. After the share
λ = step / total steps of the training, the loss of a labelled unit with the label y, the student's logits z and the
teacher's logits s is

    word or text with one class:  ℓ = -Σ_c (λ · [y = c] + (1 - λ) · softmax(s)_c) · log softmax(z)_c
    decision about one class:     ℓ = BCE(λ · y + (1 - λ) · σ(s), z)
    number:                       ℓ = ((λ · y + (1 - λ) · s - z) / sd)²

where `sd` is the deviation of the training labels, by which numbers are standardised. A soft target thus replaces the
label, and nothing else of the loss changes: CE_t, the sum of ℓ over the labelled units, enters the joint loss
Σ_t w_t · (n_t / N) · CE_t / u_t as without a teacher. Class weights, label smoothing and the focal loss apply to the
soft target; u_t is the total weight of the labels. Teacher and student score a word at its first sub-word, so that
their tokenizers may differ. Rows without a label are not taught.

λ depends on the number of optimizer steps alone, so that it is the same in all micro-batches and processes, and after a
resume. The teacher's logits are computed once, before training, and are read from a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from mtl_nlp.data.canonical import LABEL_PREFIX, REPAIRED
from mtl_nlp.data.collator import MultitaskDataCollator, WithFeatures
from mtl_nlp.data.encoding import EncodedDataset, encode_dataset
from mtl_nlp.data.teachers import TEACHERS
from mtl_nlp.evaluation.dealing import deal_batches
from mtl_nlp.evaluation.evaluator import join_texts, pieces_of_batch
from mtl_nlp.modeling.modeling_multitask import MultitaskModel
from mtl_nlp.modeling.tasks_multitask import Task
from mtl_nlp.modeling.windows_multitask import default_max_length


def mix_targets(batch: dict[str, Any], tasks: Mapping[str, Task], share: float) -> None:
    """Replace the labels of taught tasks by λ · label + (1 - λ) · prediction, and remove the teachers' scores.

    Args:
        batch: a batch of [`WithTeachers`], which is changed in place; a batch without scores stays as it is.
        tasks: the tasks by name.
        share: λ, the share of the label, 0 to 1.
    """
    scores = batch.pop(TEACHERS, {})
    if scores:
        labels = batch["labels"]
        mixed = {name: tasks[name].kind.mixed_targets(labels[name], scores[name], share) for name in scores}
        batch["labels"] = {**labels, **mixed}


@torch.no_grad()
def teacher_scores(
    model: MultitaskModel,
    tokenizer: PreTrainedTokenizerBase,
    encoded: EncodedDataset,
    task: Task,
    rows_per_batch: int = 32,
) -> list[np.ndarray | None]:
    """Compute the logits of a teacher for the labelled rows of a split, in float32.

    The teacher reads the texts with its own tokenizer and window, as in an evaluation.

    Args:
        model: the teacher, on its device.
        tokenizer: the tokenizer of the teacher.
        encoded: the split, in the windows of the student.
        task: the task of the student, whose labels are those of the teacher in any order.
        rows_per_batch: maximum number of windows per batch.

    Returns:
        The logits of each window of the student, with the student's order of labels: shape (words, outputs), or
        (outputs,) for a text; None for a window without a label of the task.
    """
    own = model.eval().tasks[task.name]
    of_rows = _logits_of_rows(model, tokenizer, _as_the_teacher_reads(model, tokenizer, encoded, own), rows_per_batch)
    order = [own.labels.index(label) for label in task.labels] if task.kind.has_label_space else slice(None)
    columns = encoded.windows.select_columns(["row", "words", LABEL_PREFIX + task.name])
    return [
        None if label is None else (of_rows[row][words] if task.kind.labels_words else of_rows[row])[..., order]
        for row, words, label in zip(columns["row"], columns["words"], columns[LABEL_PREFIX + task.name], strict=True)
    ]


def _as_the_teacher_reads(
    model: MultitaskModel, tokenizer: PreTrainedTokenizerBase, encoded: EncodedDataset, own: Task
) -> EncodedDataset:
    """Encode the rows of a split for its teacher; rows without a label of the task have no window."""
    rows = next(iter(encoded.inputs.values())).source
    config = model.config
    return encode_dataset(
        encoded.name,
        rows.select_columns([*encoded.inputs, LABEL_PREFIX + own.name, REPAIRED]),
        {own.name: own},
        tokenizer,
        reads_words=config.reads_words,
        max_length=config.max_length or default_max_length(tokenizer, config.text_config),
        stride=config.stride,
    )


def _logits_of_rows(
    model: MultitaskModel, tokenizer: PreTrainedTokenizerBase, encoded: EncodedDataset, rows_per_batch: int
) -> dict[int, np.ndarray]:
    """Return the logits of the only task of a split, by the index of the source row."""
    ((name, _),) = encoded.references.items()
    tasks = {name: model.tasks[name]}
    collate = WithFeatures(MultitaskDataCollator(tokenizer, tasks))
    (share,) = deal_batches(encoded, rows_per_batch)
    pieces = []
    for features, batch in DataLoader(encoded.rows, batch_sampler=share.batches, collate_fn=collate):
        inputs = {key: value.to(model.device) for key, value in batch.items() if isinstance(value, torch.Tensor)}
        inputs.pop("weights", None)
        logits = model(**inputs, rows=batch["rows"], tasks=[name]).logits
        pieces += pieces_of_batch(features, batch["rows"], logits, tasks)
    return join_texts(pieces, tasks)[name]
