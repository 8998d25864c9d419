"""The study of a search: a file of Optuna's journal, on which one or more processes work."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial, TrialState

from mtl_nlp.errors import CommandError, DataError
from mtl_nlp.messages import one_line
from mtl_nlp.recipe.searching import SearchRecipe
from mtl_nlp.run_folder import LOCK_NAME
from mtl_nlp.searching.objectives import Direction
from mtl_nlp.searching.result import alone_in
from mtl_nlp.searching.trials import FIDELITIES
from mtl_nlp.searching.watching import QUARTERS

STUDY_NAME = "study.log"
"""The journal of all studies in the folder of a search."""

SHIPPED, REASON = "shipped", "reason"
"""Attributes of a trial: the keys of the recipe as shipped in the space, and the reason of a failure."""

_FIRST_TRIALS = 5
"""The number of trials before the sampler and the pruner use the trials so far."""
_KEY_LENGTH = 16
_SECONDS_BETWEEN_LOOKS = 0.5


@dataclass(frozen=True)
class Budget:
    """The budget of a study.

    Attributes:
        trials: the number of trials; None for any number.
        seconds: the time in which the study has a trial in training; None for any time.
    """

    trials: int | None = None
    seconds: float | None = None

    def share(self, part: float) -> Budget:
        """Return a budget with a part of the time, and as many trials."""
        return Budget(self.trials, None if self.seconds is None else self.seconds * part)


class Studies:
    """The studies in the folder of a search.

    Args:
        folder: the folder, which is created if it does not exist.
        key: the content key of the searched recipe and its space.

    Raises:
        CommandError: if the folder has the study of a different recipe or space.
        DataError: if the journal is damaged.
    """

    def __init__(self, folder: Path, key: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.folder = folder
        self.key = key[:_KEY_LENGTH]
        journal = folder / STUDY_NAME
        with alone_in(folder):
            _mend(journal)
            try:
                self.storage = JournalStorage(JournalFileBackend(str(journal)))
                names = optuna.get_all_study_names(self.storage)
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"{journal} is damaged ({one_line(error)}). Choose a new folder: --output.") from error
        if any(not name.endswith(self.key) for name in names):
            raise CommandError(
                f"--output: {folder} holds the search of a different recipe, space or objective. Choose a new folder, "
                f"or delete this one."
            )

    def open(self, label: str, directions: Sequence[Direction], settings: SearchRecipe, seed: int) -> optuna.Study:
        """Create a study, or open it if it exists.

        Args:
            label: the name of the study in the folder.
            directions: for each objective, `maximize` or `minimize`.
            settings: the sampler and the pruner.
            seed: the seed of the sampler. Processes that work on the same study draw different values.
        """
        with alone_in(self.folder):
            study = optuna.create_study(
                storage=self.storage,
                study_name=f"{label} {self.key}",
                load_if_exists=True,
                directions=list(directions),
                pruner=_pruner(settings),
            )
            workers = int(study.user_attrs.get("workers", 0))
            study.set_user_attr("workers", workers + 1)
        study.sampler = _sampler(settings, (seed + 1_000_003 * workers) % 2**32)
        return study


def _mend(journal: Path) -> None:
    """Cut off the last line of a journal if the process that wrote the line was killed before its end."""
    if not journal.is_file() or journal.stat().st_size == 0:
        return
    lock = JournalFileSymlinkLock(str(journal))
    lock.acquire()
    try:
        content = journal.read_bytes()
        if not content.endswith(b"\n"):
            journal.write_bytes(content[: content.rfind(b"\n") + 1])
    finally:
        lock.release()


def _sampler(settings: SearchRecipe, seed: int) -> optuna.samplers.BaseSampler:
    if settings.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=_FIRST_TRIALS)


def _pruner(settings: SearchRecipe) -> optuna.pruners.BasePruner:
    last = len(FIDELITIES) if settings.fidelity == "rows" else QUARTERS
    if settings.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=last, reduction_factor=2)
    if settings.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=_FIRST_TRIALS)
    return optuna.pruners.NopPruner()


class TrialFolders:
    """The folders of a study's trials, whose locks show which trials are in training.

    Args:
        folder: the folder above them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def of(self, number: int) -> Path:
        """Return the folder of a trial."""
        return self.folder / str(number)

    def lock(self, number: int) -> FileLock:
        """Lock the folder of a trial until the lock is released or the process ends."""
        folder = self.of(number)
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK_NAME, timeout=0, is_singleton=True)
        lock.acquire()
        return lock

    def is_alive(self, number: int) -> bool:
        """Return whether a process trains a trial."""
        try:
            self.lock(number).release()
        except Timeout:
            return True
        return False


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that ran to their end, were ended early, or failed; not those whose process was killed."""
    return [each for each in study.get_trials(deepcopy=False) if each.state.is_finished() and not is_lost(each)]


def complete(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that ran to their end."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def is_lost(trial: FrozenTrial) -> bool:
    """Return whether the process of a trial was killed."""
    return trial.state == TrialState.FAIL and REASON not in trial.user_attrs


def seconds_of(trial: FrozenTrial) -> float:
    """Return the length of a finished trial in seconds."""
    return 0.0 if trial.duration is None else trial.duration.total_seconds()


def used_seconds(*studies: optuna.Study) -> float:
    """Return the time in which at least one trial of the studies was in training."""
    intervals = sorted(
        (each.datetime_start.timestamp(), each.datetime_complete.timestamp())
        for study in studies
        for each in finished(study)
        if each.datetime_start is not None and each.datetime_complete is not None
    )
    total, end = 0.0, 0.0
    for start, stop in intervals:
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total


def usual_seconds(study: optuna.Study) -> float:
    """Return the median length of the trials that ran to their end; 0 without such trials."""
    lengths = [seconds_of(each) for each in complete(study)]
    return statistics.median(lengths) if lengths else 0.0


def start_trials(
    studies: Studies,
    study: optuna.Study,
    folders: TrialFolders,
    may_start: Callable[[Sequence[FrozenTrial], int], bool],
) -> Iterator[optuna.Trial]:
    """Yield new trials until there is no room for more and no other process has one in training.

    Trials of processes that were killed start again. The caller trains each trial, and reports its end to the study.

    Args:
        studies: the studies of the folder.
        study: the study.
        folders: the folders of the trials.
        may_start: a function from the finished trials and the number of those in training to whether one more starts.
    """
    while True:
        trial, lock, running = None, None, 0
        with alone_in(studies.folder):
            running = _restart_lost(study, folders)
            if may_start(finished(study), running):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)  # such as a value of a list that the sampler dropped
                    trial = study.ask()
                lock = folders.lock(trial.number)
        if trial is not None and lock is not None:
            try:
                yield trial
            finally:
                lock.release()
        elif not running:
            return
        else:
            time.sleep(_SECONDS_BETWEEN_LOOKS)


def _restart_lost(study: optuna.Study, folders: TrialFolders) -> int:
    """Enqueue the trials of processes that were killed, and return the number of trials in training."""
    alive = 0
    for each in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if folders.is_alive(each.number):
            alive += 1
            continue
        study.tell(each.number, state=TrialState.FAIL)
        study.enqueue_trial(_stored_params(each), user_attrs=_stored_attributes(each))
    return alive


def _stored_params(trial: FrozenTrial) -> dict[str, Any]:
    fixed = trial.system_attrs.get("fixed_params") or {}
    return {**fixed, **trial.params}


def _stored_attributes(trial: FrozenTrial) -> dict[str, Any] | None:
    return {key: value for key, value in trial.user_attrs.items() if key in {SHIPPED, "of", "seed"}} or None
