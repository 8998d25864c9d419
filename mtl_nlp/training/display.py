"""The progress of training and evaluation in a terminal, a pipe, or the log of a CI job."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from tqdm.auto import tqdm
from transformers import ProgressCallback, TrainerCallback
from transformers.trainer_callback import PrinterCallback, TrainerState
from transformers.trainer_utils import has_length
from transformers.utils.import_utils import is_in_notebook

from mtl_nlp.messages import counted, in_terminal, is_finite, table
from mtl_nlp.modeling.tasks_multitask import Task

STOCK_DISPLAYS = (PrinterCallback, ProgressCallback)
"""The callbacks of Trainer that print the log as dicts, which a [`TrainingDisplay`] replaces."""

_LONGEST_SILENCE = 10.0
"""Seconds without a sign of life."""
_SCORE = "_mtl_score"


def shows_bars() -> bool:
    """Return whether progress bars are readable here: in a terminal or a notebook, and not in the log of a CI job."""
    return in_terminal() or is_in_notebook()


class TrainingDisplay(TrainerCallback):
    """Callback that shows a bar with the remaining time and the losses, or a line per log, and a table per evaluation.

    Only the main process prints. With default logging, at most ten seconds pass without a sign of life.

    Args:
        tasks: all tasks by name.
        rows: a function that returns the number of rows trained on so far, over all processes.
        losses: a function that returns the loss of each task since the last log, over the rows of this process.
        own_metrics: a function that returns the keys of the last evaluation's metrics of `compute_metrics`.
        with_bars: whether to show bars on stderr, instead of plain lines on stdout.
    """

    def __init__(
        self,
        tasks: Mapping[str, Task],
        rows: Callable[[], int],
        losses: Callable[[], Mapping[str, float]],
        own_metrics: Callable[[], Sequence[str]],
        *,
        with_bars: bool,
    ) -> None:
        self.tasks = tasks
        self.rows = rows
        self.losses = losses
        self.own_metrics = own_metrics
        self.with_bars = with_bars
        self._bar: tqdm | None = None
        self._evaluation: tqdm | None = None
        self._best: dict[str, float] = {}
        self._settings: list[str] = []
        self._first_step = self._rows_before = self._batches = 0
        self._started = self._logged = self._shown = time.monotonic()

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Open the bar. A resumed training continues at its step and knows its best scores."""
        if not state.is_world_process_zero:
            return
        self._first_step, self._rows_before = state.global_step, self.rows()
        self._started = self._logged = self._shown = time.monotonic()
        self._best = {}
        for entry in state.log_history:
            self._is_best(entry)
        if self.with_bars:
            self._bar = tqdm(
                total=state.max_steps, initial=state.global_step, desc="training", unit=" steps", dynamic_ncols=True
            )
        else:
            self._print(f"training: {_steps_text(state.global_step, state.max_steps)}")

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Move the bar, and give a sign of life after ten seconds without one."""
        if not state.is_world_process_zero:
            return
        if self._bar is not None:
            self._bar.update(state.global_step - self._bar.n)
        if control.should_log or not self._is_silent():
            return
        shown = _losses_text(self.losses().items())
        if self._bar is not None:
            self._shown = time.monotonic()
            if shown:
                self._bar.set_postfix_str(", ".join([shown, *self._settings]))
        else:
            self._print("  ".join([_position(state), *([shown] if shown else []), *self._speed(state)]))

    def on_prediction_step(
        self, args: Any, state: TrainerState, control: Any, eval_dataloader: Any = None, **kwargs: Any
    ) -> None:
        """Move the bar of an evaluation, which ends with the batches of its dataset."""
        if not state.is_world_process_zero or not has_length(eval_dataloader):
            return
        total = len(eval_dataloader)
        self._batches = self._batches % total + 1
        if self.with_bars:
            if self._evaluation is None:
                self._evaluation = tqdm(
                    total=total, desc="evaluating", unit=" batches", leave=False, dynamic_ncols=True
                )
            self._evaluation.update()
        elif self._is_silent():
            self._print(f"evaluating: batch {self._batches} of {total}")
        if self._batches == total:
            self._end_evaluation()

    def on_evaluate(
        self, args: Any, state: TrainerState, control: Any, metrics: Mapping[str, float] | None = None, **kwargs: Any
    ) -> None:
        """Show the scores of an evaluation."""
        if not state.is_world_process_zero:
            return
        self._end_evaluation()
        prefix = _prefix_of(metrics or {})
        if metrics is None or prefix is None:
            return
        follows = state.max_steps > 0 and prefix.partition("_")[0] == "eval"
        best = self._is_best(metrics) if follows else set()
        title = _title(prefix, state) + (" (* best so far)" if follows and self.with_bars else "")
        shown = list(self._scores_in(metrics, prefix, args.metric_for_best_model))
        if self.with_bars:
            lines = [
                (name, metric, _number(metrics[key], key in best), "" if loss is None else _number(metrics.get(loss)))
                for name, metric, key, loss in shown
            ]
            self._print(f"{title}\n{table(('task', 'metric', 'score', 'loss'), lines)}")
        else:
            texts = [
                f"{name} {metric} {_number(metrics[key], key in best)}".lstrip()
                + ("" if loss is None else f" loss {_number(metrics.get(loss))}")
                for name, metric, key, loss in shown
            ]
            self._print(f"{title}: {', '.join(texts)}" + (" (* best so far)" if follows else ""))

    def _scores_in(
        self, metrics: Mapping[str, float], prefix: str, chosen: str | None
    ) -> Iterator[tuple[str, str, str, str | None]]:
        """Yield task, metric, key and key of the loss, if there is one, of the values of an evaluation to show.

        These are the primary scores, the metrics of `compute_metrics`, and the metric that chooses the best model.
        """
        keys = []
        for name, task in self.tasks.items():
            keys.append(f"{prefix}_{name}_{task.kind.primary_score}")
            if keys[-1] in metrics:
                yield name, task.kind.primary_score, keys[-1], f"{prefix}_{name}_loss"
        keys.append(f"{prefix}{_SCORE}")
        yield "all", "mtl_score", keys[-1], f"{prefix}_loss"
        of_best = [] if chosen is None else [f"eval_{chosen.removeprefix('eval_')}"]
        for key in dict.fromkeys([*self.own_metrics(), *of_best]):
            if key in metrics and key not in keys and key != f"{prefix}_loss":
                yield "", key.removeprefix(f"{prefix}_"), key, None

    def on_log(
        self, args: Any, state: TrainerState, control: Any, logs: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Show the entries of a log, except those of an evaluation."""
        if not state.is_world_process_zero or not logs or _prefix_of(logs) is not None:
            return
        if "train_runtime" in logs:
            self.close()
            steps, speed = _steps_text(self._first_step, state.global_step), logs.get("train_tokens_per_second")
            shown = "" if speed is None else f", {speed:,.0f} tokens/s"
            self._print(f"trained {steps} in {tqdm.format_interval(logs['train_runtime'])}{shown}")
        elif "loss" not in logs:
            shown = "  ".join(f"{key} {_number(value)}" for key, value in logs.items() if key != "epoch")
            self._print(f"{_position(state)}  {shown}")
        else:
            shown = _losses_text([("loss", logs["loss"]), *self._losses_in(logs)])
            rate = [f"lr {logs['learning_rate']:.2e}"] if "learning_rate" in logs else []
            weights = [f"{key} {_number(value)}" for key, value in logs.items() if key.startswith("weight_")]
            skipped = [f"{key} {count}" for key, count in logs.items() if key.startswith("skipped_")]
            if self._bar is not None:
                self._settings = [*rate, *weights]
                self._shown = time.monotonic()
                self._bar.set_postfix_str(", ".join([shown, *self._settings]))
                if skipped:
                    self._print("  ".join([_position(state), *skipped]))
            else:
                self._print("  ".join([_position(state), shown, *rate, *weights, *skipped, *self._speed(state)]))

    def on_train_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Close the bars."""
        self.close()

    def close(self) -> None:
        """Close all bars."""
        self._end_evaluation()
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _end_evaluation(self) -> None:
        self._batches = 0
        if self._evaluation is not None:
            self._evaluation.close()
            self._evaluation = None

    def _print(self, text: str) -> None:
        self._shown = time.monotonic()
        with tqdm.external_write_mode():
            print(text, flush=True)

    def _is_silent(self) -> bool:
        return time.monotonic() - self._shown >= _LONGEST_SILENCE

    def _speed(self, state: TrainerState) -> list[str]:
        """Return the rows per second since the last call, if there were any, and the remaining time."""
        now, rows = time.monotonic(), self.rows()
        speed = (rows - self._rows_before) / max(now - self._logged, 1e-9)
        self._logged, self._rows_before = now, rows
        left = (
            (now - self._started) / max(state.global_step - self._first_step, 1) * (state.max_steps - state.global_step)
        )
        return [*([f"{speed:.3g} rows/s"] if speed else []), f"ETA {tqdm.format_interval(left)}"]

    def _losses_in(self, logs: Mapping[str, Any]) -> list[tuple[str, Any]]:
        return [(name, logs[f"loss_{name}"]) for name in self.tasks if f"loss_{name}" in logs]

    def _is_best(self, entry: Mapping[str, Any]) -> set[str]:
        """Return the keys of an evaluation's primary scores that are the best so far, and remember these scores."""
        prefix = _prefix_of(entry)
        if prefix is None:
            return set()
        keys = [f"{prefix}_{name}_{task.kind.primary_score}" for name, task in self.tasks.items()]
        found = {}
        for key in [*keys, f"{prefix}{_SCORE}"]:
            value = entry.get(key)
            if value is not None and is_finite(value) and value > self._best.get(key, float("-inf")):
                found[key] = value
        self._best |= found
        return set(found)


def _prefix_of(logs: Mapping[str, Any]) -> str | None:
    """Return the prefix of an evaluation's keys, such as `eval`; None for a different log."""
    return next((key.removesuffix(_SCORE) for key in logs if key.endswith(_SCORE)), None)


def _title(prefix: str, state: TrainerState) -> str:
    """Return the title of an evaluation, with its place in a training if there is one."""
    kind, _, name = prefix.partition("_")
    what = ("evaluation", name) if kind == "eval" else ("evaluation", f"({prefix})")
    place = f"at {_position(state)}" if state.max_steps > 0 else ""
    return " ".join(part for part in (*what, place) if part)


def _position(state: TrainerState) -> str:
    epoch = "" if state.epoch is None else f", epoch {round(state.epoch, 2):g}"
    return f"step {state.global_step}/{state.max_steps}{epoch}"


def _steps_text(before: int, last: int) -> str:
    """Return the steps of a training after those of an earlier run that it resumes."""
    if before == 0:
        return counted(last, "step")
    number = counted(last - before, "step")
    return f"steps {before + 1} to {last} ({number})" if last > before else f"no step after step {before}"


def _number(value: Any, is_best: bool = False) -> str:
    if value is None or not is_finite(value):
        return "-"
    return f"{value:.4f}{'*' if is_best else ''}" if isinstance(value, float) else str(value)


def _losses_text(losses: Iterable[tuple[str, Any]]) -> str:
    return ", ".join(f"{name} {_number(value)}" for name, value in losses)
