"""A Trainer that shows its progress, and describes its training for `results.json`."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from mtl_nlp.balancing.registry import weighting_name
from mtl_nlp.balancing.static import Static
from mtl_nlp.training.best import best_scores
from mtl_nlp.training.display import STOCK_DISPLAYS, TrainingDisplay
from mtl_nlp.training.freezing import frozen_tasks
from mtl_nlp.training.stepping import SteppingTrainer


class DescribingTrainer(SteppingTrainer):
    """A Trainer that shows the progress of its training and describes the training."""

    display: TrainingDisplay

    def show_progress(self) -> None:
        """Replace Trainer's display by a readable one, except in a notebook."""
        stock = [each for each in map(self.pop_callback, STOCK_DISPLAYS) if each is not None]
        self.display = TrainingDisplay(
            self.tasks,
            lambda: self.progress.rows,
            lambda: self._log.so_far(),
            lambda: self.own_keys,
            with_bars=not self.args.disable_tqdm,
        )
        if stock:
            self.add_callback(self.display)

    def remove_callback(self, callback: type[TrainerCallback] | TrainerCallback) -> None:
        """Remove a callback. The classes of Trainer's own displays stand for the display that replaces them."""
        super().remove_callback(self._present(callback))

    def pop_callback(self, callback: type[TrainerCallback] | TrainerCallback) -> TrainerCallback | None:
        """Remove a callback and return it; None if there is none. See `remove_callback`."""
        return super().pop_callback(self._present(callback))

    def _present(self, callback: type[TrainerCallback] | TrainerCallback) -> type[TrainerCallback] | TrainerCallback:
        """Return the display for the class of a display that it has replaced, and any other callback unchanged."""
        present = [type(each) for each in self.callback_handler.callbacks]
        return TrainingDisplay if callback in STOCK_DISPLAYS and callback not in present else callback

    def describe_training(self) -> dict[str, Any]:
        """Return a description for `results.json`.

        Returns:
            Steps, epochs and processes; the `weights` of the tasks, or the `weighting` that chooses them; rows, p_d and
            drawn rows of each dataset (p_d is the share of the drawn rows if p_d follows the headroom); `seconds`,
            `rows`, `rows_per_second` and `encoder_passes`, see [`Progress`]; the `best` validation score of each task,
            see `best_scores`; and the `frozen` tasks and the number of `skipped` steps by task, if the training freezes
            and skips.
        """
        mixture, progress = self.train_dataset, self.progress
        is_best_kept = self.args.load_best_model_at_end and self.state.best_model_checkpoint is not None
        kept_step = self.state.best_global_step if is_best_kept else None
        return {
            "steps": self.state.global_step,
            "epochs": self.state.epoch,
            "processes": self.args.world_size,
            **self._weighting(),
            "mixture": {
                name: {
                    "rows": encoded.num_rows,
                    "probability": probability,
                    **({"drawn": progress.drawn.get(name, 0)} if progress.drawn else {}),
                }
                for (name, encoded), probability in zip(mixture.datasets.items(), self._probabilities(), strict=True)
            },
            **progress.describe(),
            "tokens_per_second": self.speed.mean,
            "best": best_scores(self.state.log_history, self.tasks, kept_step or self.state.global_step),
            **({} if self.args.freeze_patience is None else {"frozen": self._frozen()}),
            **({"skipped": progress.skipped} if self.step.skips is not None else {}),
        }

    def _weighting(self) -> dict[str, Any]:
        """Return the weights of a static weighting by task, or the name of a different weighting."""
        if isinstance(self.loss_weighting, Static):
            return {"weights": dict.fromkeys(self.trained_tasks, 1.0) | self.loss_weighting.describe()}
        return {"weighting": weighting_name(self.loss_weighting)}

    def _probabilities(self) -> list[float]:
        """Return p_d of each dataset: the planned mean, or the share of the drawn rows of a mixture with headroom."""
        mixture, drawn = self.train_dataset, self.progress.drawn
        if mixture.headroom and drawn:
            return [drawn.get(name, 0) / sum(drawn.values()) for name in mixture.datasets]
        return mixture.mean_probabilities.tolist()

    def _frozen(self) -> dict[str, dict[str, int]]:
        history, patience = self.state.log_history, self.args.freeze_patience
        return {task: frozen.to_dict() for task, frozen in frozen_tasks(history, self.tasks, patience).items()}
