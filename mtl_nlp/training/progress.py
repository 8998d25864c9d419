"""The work that a training has done: time, rows, rows of each dataset, and encoder passes, over all its resumes."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field

from mtl_nlp.errors import CheckpointError
from mtl_nlp.hub.outside import Loading
from mtl_nlp.training.counting import Work

PROGRESS_NAME = "progress.json"

NumberFormat = Literal["fp32", "bf16", "fp16"]

_Count = Annotated[int, Field(ge=0, le=2**53)]


class _Saved(BaseModel):
    """The form of `progress.json` in a checkpoint."""

    model_config = ConfigDict(extra="forbid", strict=True)

    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    rows: _Count
    encoder_passes: _Count
    drawn: dict[str, _Count]
    skipped: dict[str, _Count] = Field(default_factory=dict)
    skipped_in_row: dict[str, _Count] = Field(default_factory=dict)
    number_format: NumberFormat | None = None


class Progress:
    """The work of a training, over all processes.

    A checkpoint of an earlier release has no such record; the record of a run that resumes from it covers only the part
    of the training after the checkpoint.

    Attributes:
        rows: number of rows that were trained on.
        encoder_passes: number of rows that the encoder has read; with an adapter per task, the encoder reads a row once
            per combination of adapters that the labels of the row need.
        drawn: number of rows drawn from each dataset; empty if the trainer's loader does not count them.
        skipped: number of optimizer steps with a skip, by task, see `Skips`.
        skipped_in_row: number of the last steps in a row with a skip, by task; of the steps that have rows of the task.
        number_format: the number format of the training: `fp32`, `bf16` or `fp16`.
    """

    number_format: str | None = None

    def __init__(self) -> None:
        self.start((), None)
        self.stop()

    def start(self, datasets: Iterable[str], checkpoint: Path | None) -> None:
        """Start a training, from the record in a checkpoint if it has one.

        Args:
            datasets: the names of the datasets in the mixture.
            checkpoint: the folder of the checkpoint; None for a new training.

        Raises:
            CheckpointError: if the record is damaged.
        """
        self.names = list(datasets)
        saved = _read(checkpoint) or _Saved(seconds=0.0, rows=0, encoder_passes=0, drawn={})
        self.rows, self.encoder_passes, self.drawn = saved.rows, saved.encoder_passes, saved.drawn
        self.skipped, self.skipped_in_row = saved.skipped, saved.skipped_in_row
        self._before, self._started = saved.seconds, time.monotonic()
        self._end: float | None = None

    def stop(self) -> None:
        """End the training, whose time does not grow any more."""
        self._end = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds of training with its evaluations and checkpoints, summed over its resumes."""
        return self._before + (self._end or time.monotonic()) - self._started

    def add(self, work: Work) -> None:
        """Add the counts of an optimizer step over all processes."""
        self.rows += work.counts.rows
        self.encoder_passes += work.passes
        if any(work.drawn):
            drawn = zip(self.names, work.drawn, strict=True)
            self.drawn = self.drawn | {name: self.drawn.get(name, 0) + number for name, number in drawn}

    def add_skips(self, names: Sequence[str], absent: Collection[str] = ()) -> None:
        """Add an optimizer step with a skip of the named tasks, and without rows of the absent tasks."""
        before = self.skipped_in_row
        kept = {name: count for name, count in before.items() if name in absent}
        self.skipped_in_row = kept | {name: before.get(name, 0) + 1 for name in names}
        self.skipped = self.skipped | {name: self.skipped.get(name, 0) + 1 for name in names}

    def save(self, checkpoint: Path) -> None:
        """Write the record into a checkpoint."""
        saved = _Saved(
            seconds=self.seconds,
            rows=self.rows,
            encoder_passes=self.encoder_passes,
            drawn=self.drawn,
            skipped=self.skipped,
            skipped_in_row=self.skipped_in_row,
            number_format=cast("NumberFormat | None", self.number_format),
        )
        (checkpoint / PROGRESS_NAME).write_text(saved.model_dump_json(), encoding="utf-8")

    def describe(self) -> dict[str, Any]:
        """Return the numbers for `results.json`."""
        seconds = self.seconds
        return {
            "seconds": seconds,
            "rows": self.rows,
            "rows_per_second": self.rows / seconds if seconds else None,
            "encoder_passes": self.encoder_passes,
        }


def _read(checkpoint: Path | None) -> _Saved | None:
    """Return the record in a checkpoint; None without one."""
    file = None if checkpoint is None else checkpoint / PROGRESS_NAME
    if file is None or not file.is_file():
        return None
    with Loading(CheckpointError, str(file)):
        return _Saved.model_validate(json.loads(file.read_text(encoding="utf-8")))


def number_format_of(checkpoint: Path) -> str | None:
    """Return the number format in which a checkpoint was trained; None for a checkpoint of an earlier release.

    Raises:
        CheckpointError: if the record of the checkpoint is damaged.
    """
    saved = _read(checkpoint)
    return None if saved is None else saved.number_format
