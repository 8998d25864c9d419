"""Strict span scores over arrays: the rules and averages of seqeval, without a Python object per tag."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from seqeval import scheme as schemes
from seqeval.metrics.v1 import precision_recall_fscore_support

from mtl_nlp.modeling.spans_multitask import as_bioes


class Spans:
    """The spans of several texts, with the attributes of `seqeval.scheme.Entities` that its metrics read.

    A span has a label and both borders, and only legal sequences of tags are spans.

    Args:
        texts: the tags of each text, of any scheme of `SCHEMES`.
        scheme: the class of seqeval for the scheme; that of BIOES also for BILOU and BMES.

    Raises:
        ValueError: if a tag does not belong to the scheme.
    """

    def __init__(self, texts: Sequence[Sequence[str]], scheme: type[schemes.Token]) -> None:
        ids = {name: number for number, name in enumerate(dict.fromkeys(chain(["O"], *texts)))}
        tokens = [scheme(tag) for tag in as_bioes([*ids])]
        for token in tokens:
            token.is_valid()
        outside = (0,)  # after each text, so that no span crosses a border
        tags = np.array([*chain.from_iterable(chain(map(ids.__getitem__, text), outside) for text in texts)], dtype=int)
        pairs, of_word = np.unique(np.append(0, tags[:-1]) * len(ids) + tags, return_inverse=True)
        rules = [(tokens[pair // len(ids)], tokens[pair % len(ids)]) for pair in pairs.tolist()]
        starts, inside, ends = (
            np.array(column, dtype=bool)[of_word]
            for column in (
                [token.is_start(before) for before, token in rules],
                [token.is_inside(before) for before, token in rules],
                [token.is_end(before) for before, token in rules],
            )
        )
        # A tag that is not inside of a span begins a block, and a span reaches from its start to the end of its block.
        borders, blocks = np.flatnonzero(~inside), np.cumsum(~inside) - 1
        places = np.flatnonzero(starts)
        of_span, chosen = np.unique(blocks[places], return_index=True)
        first, last = places[chosen], borders[np.minimum(of_span + 1, len(borders) - 1)]
        first, last = first[ends[last]], last[ends[last]]
        self._codes = first * (len(tags) + 1) + last
        self._labels = np.array([token.tag for token in tokens], dtype=object)[tags[first]]

    @property
    def unique_tags(self) -> set[str]:
        """The labels of the spans."""
        return set(self._labels.tolist())

    def filter(self, tag_name: str) -> set[int]:
        """Return the spans with a label, each as one number for its text and borders."""
        return set(self._codes[self._labels == tag_name].tolist())


def span_scores(
    predictions: Sequence[list[str]], references: Sequence[list[str]], scheme: type[schemes.Token], average: str | None
) -> tuple[Any, Any, Any, Any]:
    """Return precision, recall, F1 and the number of spans in the references, see seqeval.

    Args:
        predictions: the tags of each text.
        references: the tags of each text.
        scheme: as in `Spans`.
        average: `micro`, `macro` or `weighted` over the labels; None for a value per label, in their order.
    """
    return precision_recall_fscore_support(
        [*references],
        [*predictions],
        average=average,
        scheme=scheme,
        zero_division=0,
        entities_true=Spans(references, scheme),
        entities_pred=Spans(predictions, scheme),
    )
