"""The mixture: several encoded datasets as one dataset, with a sampling probability for each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict
from torch.utils.data import Dataset as TorchDataset
from transformers import PreTrainedTokenizerBase

from mtl_nlp.data.encoding import EncodedDataset, EncodedStream
from mtl_nlp.data.from_python import ColumnNames, Columns, check_training_labels, named_datasets
from mtl_nlp.data.rows import FlatRows, Rows, ShareOfStep
from mtl_nlp.errors import DataError
from mtl_nlp.messages import Shown, table
from mtl_nlp.mixture.probabilities import temperature_probabilities
from mtl_nlp.modeling.tasks_multitask import Task
from mtl_nlp.recipe.label_columns import LabelMaps
from mtl_nlp.recipe.sampling import check_sampling


def _read(given: Any, columns: Columns) -> tuple[Columns | None, dict[str, EncodedDataset | EncodedStream]]:
    """Return the datasets of a mixture by name, with the columns of raw datasets if any of them is raw."""
    datasets = named_datasets(given)
    if datasets is None:
        raise DataError(
            f"The datasets of a TaskMixture should be a dict from names to datasets. Found {type(given).__name__}."
        )
    if not datasets:
        raise ValueError("A TaskMixture needs at least one dataset. Found none.")
    found, datasets = columns.read_training(datasets)
    for name, dataset in datasets.items():
        check_training_labels(name, dataset)
    return found if found.tasks else None, datasets


class TaskMixture(Shown, TorchDataset):
    """Datasets for joint training, drawn with the probabilities p_d ∝ min(n_d, cap)^(1/T).

    Temperature and size cap follow T5 (Raffel et al. 2020, section 3.5.2), and `max_repeats` follows UniMax (Chung et
    al. 2023).

    Args:
        datasets: training splits by name: encoded datasets, some of which may be streams, or raw `datasets.Dataset`
            objects. A `DatasetDict` stands for its split `train`, and a single dataset for a dict of one.
        temperature: T. The value 1 draws datasets in proportion to their sizes, and a large value (`inf`) draws
            datasets uniformly. With two values T changes from the first to the second, linearly over the training.
        size_cap: the cap on the number of rows n_d.
        max_repeats: the largest number of passes over a dataset in one epoch, 1 or more. The share that a dataset
            gives up goes to the other datasets.
        probabilities: p_d of every dataset, instead of `temperature`, `size_cap` and `max_repeats`.
        headroom: whether the training mixes p_d with the gaps of the datasets, see `probabilities_at` and
            `dataset_gaps`: how far their tasks are from their best validation scores so far, or from the reference
            scores that a dict from task to score gives.
        batching: with `mixed` a batch holds rows from any dataset in the proportions of p_d. With `homogeneous` a
            batch holds rows from one dataset, the same dataset in all processes, and p_d is its share of the batches.
        length_window: number of batches inside which rows are grouped by length. A larger window needs less padding, a
            smaller window is more random.
        inputs: the columns of the inputs of raw datasets, `{"tokens": column}` or `{"text": column}`, with `text_pair`
            for pairs; for all datasets, or a dict of them by dataset.
        labels: task -> column of raw datasets; for all datasets, or a dict of them by dataset.
        tasks: all tasks of the model, for raw datasets. The label space of a task without labels is inferred from the
            training rows, from which regressions and `balanced` weights learn too.
        tokenizer: the model's tokenizer, for raw datasets.
        max_length: maximum number of sub-words per window of raw datasets; the limit of the tokenizer by default.
        stride: maximum number of sub-words that neighbouring windows of raw datasets share.
        label_map: task -> name in raw datasets -> new name.
        weight: the column of raw datasets with the weights of their rows in the mean loss.

    Attributes:
        columns: the columns, tasks and tokenizer of raw datasets; None if all datasets were encoded.

    Raises:
        ValueError: if there is no dataset, a dataset has no rows, or a value is out of its range.
        DataError: if a raw dataset cannot be encoded, or a label of a training row is in no label space.
    """

    def __init__(
        self,
        datasets: Mapping[str, EncodedDataset | EncodedStream | Dataset | DatasetDict] | EncodedDataset | Dataset,
        temperature: float | Sequence[float] = 1.0,
        *,
        size_cap: int | None = None,
        max_repeats: float | None = None,
        probabilities: Mapping[str, float] | None = None,
        headroom: bool | Mapping[str, float] = False,
        batching: str = "mixed",
        length_window: int = 100,
        inputs: ColumnNames | None = None,
        labels: ColumnNames | None = None,
        tasks: Iterable[Task] = (),
        tokenizer: PreTrainedTokenizerBase | None = None,
        max_length: int | None = None,
        stride: int | None = None,
        label_map: LabelMaps | None = None,
        weight: str | None = None,
    ) -> None:
        columns = Columns(inputs, labels, tuple(tasks), tokenizer, max_length, stride, label_map, weight)
        self.columns, datasets = _read(datasets, columns)
        check_sampling(
            datasets, temperature, size_cap, max_repeats, probabilities, batching, length_window, bool(headroom)
        )
        self.datasets = dict(datasets)
        self.headroom = headroom
        self.batching = batching
        self.length_window = length_window
        self.sizes = np.array([dataset.num_windows for dataset in datasets.values()])
        if empty := [name for name, dataset in datasets.items() if dataset.num_windows == 0]:
            raise ValueError(
                f"The datasets of a TaskMixture should have rows. {empty[0]!r} has none. Leave out the dataset."
            )
        self.offsets = np.concatenate([[0], np.cumsum(self.sizes)])
        self._temperatures = np.broadcast_to(np.asarray(temperature, dtype=float), 2)
        self._size_cap = size_cap
        self._max_repeats = max_repeats
        self._explicit = None if probabilities is None else np.array([probabilities[name] for name in datasets])
        for progress in (0.0, 1.0):
            for name, probability in zip(datasets, self.probabilities_at(progress), strict=True):
                if probability == 0.0:
                    raise ValueError(f"`temperature` is so low that {name!r} would never be drawn. Raise it.")

    @property
    def tasks(self) -> list[Task]:
        """The tasks of raw datasets, with the label spaces and the learned options of the training rows.

        Raises:
            ValueError: if the mixture was built from encoded datasets, which do not know all tasks.
        """
        if self.columns is None:
            raise ValueError("The `tasks` of a TaskMixture are known if `tasks=` was given. Use those of the model.")
        return list(self.columns.tasks)

    @property
    def is_streamed(self) -> bool:
        """Whether a dataset is a stream, so that the lengths of its rows are unknown before training."""
        return any(isinstance(dataset, EncodedStream) for dataset in self.datasets.values())

    @cached_property
    def lengths(self) -> np.ndarray:
        """Number of sub-words of every row, shape (rows,)."""
        return np.concatenate([dataset.lengths for dataset in self.datasets.values()])

    @property
    def probabilities(self) -> np.ndarray:
        """p_d at the start of training, shape (datasets,)."""
        return self.probabilities_at(0.0)

    @property
    def mean_probabilities(self) -> np.ndarray:
        """Mean of p_d over the training without gaps; the temperature can change. Shape (datasets,)."""
        return np.mean([self.probabilities_at(progress) for progress in np.linspace(0.0, 1.0, 101)], axis=0)

    def probabilities_at(self, progress: float, gaps: np.ndarray | None = None) -> np.ndarray:
        """Return p_d after a share of the training; shape (datasets,).

        With gaps, the probability is ½ · p_d + ½ · gap_d / Σ gap, following the dynamic sampling of Gottumukkala et al.
        (2020), within the limits of `max_repeats`.

        Args:
            progress: the share of the training, 0 to 1.
            gaps: the gap of each dataset, at least 0, shape (datasets,). Gaps of zero have no effect.
        """
        base = self._base_at(progress)
        if gaps is None or not gaps.any():
            return base
        return temperature_probabilities(0.5 * base + 0.5 * gaps / gaps.sum(), 1.0, self._limits)

    @property
    def _limits(self) -> np.ndarray | None:
        return None if self._max_repeats is None else self._max_repeats * self.sizes / self.sizes.sum()

    def _base_at(self, progress: float) -> np.ndarray:
        if self._explicit is not None:
            return self._explicit / self._explicit.sum()
        start, end = self._temperatures
        # Equal values need a separate case, since inf - inf is not a number.
        temperature = start if start == end else start + (end - start) * progress
        return temperature_probabilities(np.minimum(self.sizes, self._size_cap or np.inf), temperature, self._limits)

    def __repr__(self) -> str:
        rows = [
            (name, encoded.num_rows, f"{probability:.4f}", ", ".join(encoded.feeds))
            for (name, encoded), probability in zip(self.datasets.items(), self.mean_probabilities, strict=True)
        ]
        shown = table(("dataset", "rows", "probability", "tasks"), rows)
        return f"TaskMixture({self.batching} batches, {len(self)} windows)\n{shown}"

    def __len__(self) -> int:
        """Return the number of rows (windows) of all datasets, which is also the length of an epoch."""
        return int(self.sizes.sum())

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return the row at a position; positions count through all datasets in order."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> Rows:
        """Return the rows at several positions; `source` is the number of the dataset."""
        of_step = self._rows(indices.step) if isinstance(indices, ShareOfStep) else None
        return self._rows(np.asarray(indices), of_step)

    def _rows(self, positions: np.ndarray, of_step: Rows | None = None) -> Rows:
        sources = np.searchsorted(self.offsets, positions, side="right") - 1
        return Rows(self._flat, sources, positions - self.offsets[sources], of_step)

    @cached_property
    def _flat(self) -> dict[int, FlatRows]:
        """The rows of each dataset that is not a stream, by its number."""
        return {
            number: dataset.rows
            for number, dataset in enumerate(self.datasets.values())
            if isinstance(dataset, EncodedDataset)
        }
