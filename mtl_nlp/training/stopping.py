"""The stop of a training before its end, at the same optimizer step in all processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import TrainOutput

from mtl_nlp.training.host_sums import HostSums
from mtl_nlp.training.watching import WatchingTrainer


class StopRequest(TrainerCallback):
    """The request to stop a training, and the callback that ends the training loop once all processes know of it.

    The callback follows Trainer's own, so that everything that is due at the last optimizer step is done as usual.

    Attributes:
        is_requested: whether this process was asked to stop.
        is_agreed: whether any process was asked to stop; equal in all processes.
        requests: a function that waits for the requests of all processes in the current step; None between steps.
    """

    def __init__(self) -> None:
        self.is_requested = False
        self.is_agreed = False
        self.requests: Callable[[], list[float]] | None = None

    def share(self, sums: HostSums) -> None:
        """Send the request of this process to all processes, which receive the request while they compute the step."""
        self.requests = sums.begin([float(self.is_requested)])

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """End the training loop; log the losses since the last log, which a resumed run does not know."""
        if self.requests is not None:
            self.is_agreed = self.requests()[0] > 0
            self.requests = None
        if self.is_agreed:
            control.should_training_stop = control.should_log = True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Prevent the evaluation and the checkpoint of an epoch if the loop has ended in the middle of an epoch.

        An uninterrupted run would not evaluate at this step.
        """
        is_end_of_epoch = state.epoch is not None and float(state.epoch).is_integer()
        if self.is_agreed and not is_end_of_epoch and state.global_step < state.max_steps:
            control.should_evaluate = control.should_save = False


class StoppableTrainer(WatchingTrainer):
    """A Trainer whose training can be stopped from outside, and resumed as if it had never stopped.

    Trainer's own `enable_jit_checkpoint` does not guarantee this: each process stops on its own signal while the other
    processes wait for it, and a checkpoint may be written between the gradients and the update of a step.

    Attributes:
        stop: the request to stop, which `get_batch_samples` shares with all processes.
        saved_step: the step of the last checkpoint of this training; None without a checkpoint.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.stop = StopRequest()
        self.saved_step: int | None = None
        self.add_callback(self.stop)

    @property
    def is_stopped(self) -> bool:
        """Whether the last training has ended after a request of `request_stop`, in this or a different process."""
        return self.stop.is_agreed

    def request_stop(self) -> None:
        """Ask the training to end, with a checkpoint from which it can resume.

        Any process, thread or signal handler may call this method. `train` returns after the next optimizer step, at
        the same step in all processes: a process sends its request at the start of a step, and all processes read the
        requests at the end of the step. An evaluation that is due at this step takes place first. The weights are not
        replaced by the best model, and checkpoints are deleted only as `save_total_limit` says. Under `save_only_model`
        no checkpoint is written, since no training could resume from it. A request after the start of the last step has
        no effect.
        """
        self.stop.is_requested = True

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """Train the model, see `Trainer.train`."""
        self.saved_step = None
        self.stop.is_agreed = False
        try:
            return super().train(*args, **kwargs)
        finally:
            self.stop.is_requested = False

    def _finalize_training(self, trial: Any, num_train_samples: int, start_time: float) -> TrainOutput:
        if not self.is_stopped:
            return super()._finalize_training(trial, num_train_samples, start_time)
        if self.saved_step != self.state.global_step and not self.args.save_only_model:
            self._save_checkpoint(self.model_wrapped, trial)
            self.control = self.callback_handler.on_save(self.args, self.state, self.control)
        # Without a best model, Trainer neither loads weights nor deletes checkpoints here.
        best, self.state.best_model_checkpoint = self.state.best_model_checkpoint, None
        output = super()._finalize_training(trial, num_train_samples, start_time)
        self.state.best_model_checkpoint = best
        return output

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        # The first process may delete the previous checkpoint next, so all parts of this one should be written.
        self.accelerator.wait_for_everyone()
