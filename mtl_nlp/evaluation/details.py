"""Details of an evaluation: precision, recall and F1 of each label, and the confusion of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from mtl_nlp.data.encoding import EncodedDataset
from mtl_nlp.evaluation.evaluator import Answers, in_row_order, labelled_pairs
from mtl_nlp.messages import table
from mtl_nlp.modeling.label_kinds_multitask import LabelKind
from mtl_nlp.modeling.scores_multitask import metric_name
from mtl_nlp.modeling.tasks_multitask import Task

_MOST_CLASSES = 20
"""The number of classes above which a confusion matrix is not printed; the file has the matrix."""


def details_of(
    answers: Answers, datasets: Mapping[str, EncodedDataset], tasks: Mapping[str, Task]
) -> dict[str, dict[str, Any]]:
    """Return the details of the labelled rows of all datasets, by task; nothing for numbers.

    Args:
        answers: the answers, see `MultitaskTrainer.answer`.
        datasets: the encoded split of each dataset.
        tasks: all tasks by name.

    Returns:
        For each task, `labels` (label -> `precision`, `recall`, `f1` and `support`, the number of gold labels) and, for
        tasks with one class per text or word, `confusion`: the `labels`, and the `counts` of gold labels (rows) with
        each predicted label (columns).
    """
    predicted = {name: in_row_order(answers[name], encoded) for name, encoded in datasets.items()}
    found = {}
    for name, task in tasks.items():
        pairs = labelled_pairs(predicted, datasets, name)
        if pairs and task.kind.has_label_space:
            found[name] = details_of_labels(task.kind, [guess for guess, _ in pairs], [gold for _, gold in pairs])
    return found


def details_of_labels(kind: LabelKind, predictions: Sequence[Any], references: Sequence[Any]) -> dict[str, Any]:
    """Return the details of one task, see `details_of`.

    Args:
        kind: the label kind of the task.
        predictions: canonical labels, in the order of the references.
        references: canonical labels.
    """
    import numpy as np
    from sklearn.metrics import precision_recall_fscore_support
    from sklearn.preprocessing import MultiLabelBinarizer

    from mtl_nlp.evaluation.metrics import METRICS, class_ids

    metric = metric_name(kind.metric) or ""
    if metric.startswith("span_"):
        from mtl_nlp.evaluation.spans import span_scores

        names = sorted({tag[2:] for tags in (*predictions, *references) for tag in tags if tag != "O"})
        scheme = METRICS[metric].scheme
        columns = span_scores(predictions, references, scheme, None) if names else ()
        return {"labels": _by_label(names, columns)}
    if kind.display == "classes":
        binarizer = MultiLabelBinarizer().fit([*predictions, *references])
        names = [str(name) for name in binarizer.classes_]
        sets = [binarizer.transform(labels) for labels in (references, predictions)]
        return {"labels": _by_label(names, precision_recall_fscore_support(*sets, zero_division=0) if names else ())}
    flat = [list(chain.from_iterable(each) if kind.labels_words else each) for each in (references, predictions)]
    names, (truth, guess) = class_ids(*flat)
    columns = precision_recall_fscore_support(truth, guess, labels=np.arange(len(names)), zero_division=0)
    size = len(names)
    counts = np.bincount(truth * size + guess, minlength=size * size).reshape(size, size).tolist()
    return {"labels": _by_label(names, columns), "confusion": {"labels": names, "counts": counts}}


def _by_label(names: Sequence[str], columns: Sequence[Any]) -> dict[str, dict[str, float]]:
    return {
        name: {
            **{
                score: float(column[row]) for score, column in zip(("precision", "recall", "f1"), columns, strict=False)
            },
            "support": int(columns[3][row]),
        }
        for row, name in enumerate(names)
    }


def describe_details(details: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the details as tables.

    Args:
        details: the result of `details_of`.
    """
    parts = []
    for task, found in details.items():
        rows = [
            (label, *(f"{scores[key]:.4f}" for key in ("precision", "recall", "f1")), scores["support"])
            for label, scores in found["labels"].items()
        ]
        parts.append(table((task, "precision", "recall", "f1", "support"), rows))
        confusion = found.get("confusion")
        if confusion is not None and len(confusion["labels"]) <= _MOST_CLASSES:
            head = (f"{task}: gold \\ predicted", *confusion["labels"])
            parts.append(
                table(head, [(n, *row) for n, row in zip(confusion["labels"], confusion["counts"], strict=True)])
            )
    return "\n\n".join(parts)
