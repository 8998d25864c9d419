"""The rounds of a search: the trials of a study, and the best of them again with fresh seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from mtl_nlp.errors import MtlNlpError, RunError
from mtl_nlp.messages import is_finite
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.recipe.searching import SearchRecipe
from mtl_nlp.run.prepare import Run
from mtl_nlp.searching.objectives import Objectives, costs_of
from mtl_nlp.searching.result import alone_in
from mtl_nlp.searching.space import CheckedSpace, label_of
from mtl_nlp.searching.studies import (
    REASON,
    SHIPPED,
    Budget,
    Studies,
    TrialFolders,
    complete,
    finished,
    is_lost,
    seconds_of,
    start_trials,
    used_seconds,
    usual_seconds,
)
from mtl_nlp.searching.trials import (
    FIDELITIES,
    Trained,
    Trials,
    drop_weights,
    free_memory,
    needs_last_evaluation,
    save_weights,
)
from mtl_nlp.searching.watching import Report, TooLongError, TrialWatch, minutes_text

BEST = 5
"""The number of trials that run again, and whose weights are kept."""

FRESH_SEEDS = (101, 102)
"""The seeds of the trials that run again. A seed of the recipe that is one of them is left out."""

_LARGEST_RESERVE = 1 / 3
"""The largest part of the time that is kept for the trials that run again."""


@dataclass(frozen=True)
class SearchedSide:
    """A recipe that is searched.

    Attributes:
        label: the name of its studies in the folder: `joint`, or `single` and the task.
        folder: the folder of its trials.
        run: the recipe as shipped, with its data.
        space: the space.
        objectives: the objectives.
        settings: the section `search` of the recipe.
        budget: the budget.
    """

    label: str
    folder: Path
    run: Run
    space: CheckedSpace
    objectives: Objectives
    settings: SearchRecipe
    budget: Budget


class Rounds:
    """The trials of a side and the best of them again.

    Args:
        side: the side.
        studies: the studies of the folder.
        say: a function that shows a line to the user.
    """

    def __init__(self, side: SearchedSide, studies: Studies, say: Callable[[str], None]) -> None:
        self.side = side
        self.studies = studies
        self.say = say
        self.trials = Trials(side.run)
        self.seed = int(side.run.training_arguments().seed)
        directions = side.objectives.directions
        self.study = studies.open(side.label, directions, side.settings, self.seed)
        self.again = studies.open(f"{side.label} again", directions, side.settings, self.seed)
        self.folders = TrialFolders(side.folder / "trials")
        self.again_folders = TrialFolders(side.folder / "again")

    def run(self) -> None:
        """Run the trials and the best of them again, as far as the budget goes. A second call continues.

        Raises:
            CommandError: if the budget is too small for one trial.
            RecipeError: if the recipe as shipped cannot be trained.
            RunError: if the first trials fail, so that no trial is complete.
        """
        with alone_in(self.studies.folder):
            if not self.study.get_trials(deepcopy=False):
                shipped = self.side.space.shipped()
                self.study.enqueue_trial(shipped, user_attrs={SHIPPED: list(shipped)})
        for trial in start_trials(self.studies, self.study, self.folders, self._may_start):
            self._run_trial(trial)
            free_memory()
        if not complete(self.study):
            raise self._failed()
        self._enqueue_best()
        for trial in start_trials(self.studies, self.again, self.again_folders, self._may_start_again):
            self._run_again(trial)
            free_memory()

    @property
    def fresh_seeds(self) -> list[int]:
        """The seeds of the trials that run again."""
        return [seed for seed in FRESH_SEEDS if seed != self.seed]

    def best(self, number: int = BEST) -> list[FrozenTrial]:
        """Return the best trials, distinct in their settings; of several objectives, those that no trial beats."""
        found = complete(self.study) if self.side.objectives.is_single else list(self.study.best_trials)
        is_minimized = self.side.objectives.directions[0] == "minimize"
        ranked = sorted(found, key=lambda each: (each.values[0] if is_minimized else -each.values[0], each.number))
        distinct: dict[str, FrozenTrial] = {}
        for each in ranked:
            distinct.setdefault(repr(sorted(each.params.items())), each)
        return list(distinct.values())[:number]

    def _may_start(self, done: Sequence[FrozenTrial], running: int) -> bool:
        budget = self.side.budget
        if not any(each.state == TrialState.COMPLETE for each in done) and len(done) >= BEST:
            raise self._failed()
        if budget.trials is not None and len(done) + running >= budget.trials:
            return False
        if budget.seconds is None:
            return True
        usual = usual_seconds(self.study)
        runs_again = (min(len(done), BEST) + 1) * len(self.fresh_seeds)
        reserve = min(budget.seconds * _LARGEST_RESERVE, runs_again * usual)
        return used_seconds(self.study) + usual <= budget.seconds - reserve

    def _failed(self) -> RunError:
        done = finished(self.study)
        last = done[-1].user_attrs.get(REASON, "ended early.") if done else "the time was too short."
        return RunError(f"search: none of {len(done)} trials is complete. The last one: {last}")

    def _may_start_again(self, done: Sequence[FrozenTrial], running: int) -> bool:
        budget = self.side.budget
        if not self.again.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            return False
        used = used_seconds(self.study, self.again) + usual_seconds(self.study)
        return budget.seconds is None or used <= budget.seconds

    def _run_trial(self, trial: optuna.Trial) -> None:
        """Train a trial, and report its values, its early end or its failure to the study."""
        is_shipped = SHIPPED in trial.user_attrs
        chosen = self.side.space.suggest(trial, trial.user_attrs.get(SHIPPED))
        trial.set_user_attr("settings", chosen)
        trial.set_user_attr("values", {} if is_shipped else chosen)
        try:
            trained = self._train({} if is_shipped else chosen, trial)
            values = self._values_of(trained)
            self._describe(trial, trained)
            if self._is_among_best(values[0]):
                save_weights(trained)
            self.study.tell(trial, values)
            for number in {each.number for each in complete(self.study)} - {each.number for each in self.best()}:
                drop_weights(self.folders.of(number))
        except optuna.TrialPruned:
            self.study.tell(trial, state=TrialState.PRUNED)
        except (MtlNlpError, MemoryError) as error:
            is_of_recipe = isinstance(error, MtlNlpError) and not isinstance(error, RunError)
            is_of_budget = isinstance(error, TooLongError) and not complete(self.study)
            if is_of_budget or (is_shipped and is_of_recipe):
                raise
            trial.set_user_attr(REASON, str(error) or "the memory is full.")
            self.study.tell(trial, state=TrialState.FAIL)
        self._say_trial(trial.number, chosen)

    def _train(self, values: Mapping[str, Any], trial: optuna.Trial) -> Trained:
        """Train a trial: in one part, or on growing shares of the rows."""
        folder = self.folders.of(trial.number)
        may_end_early = self.side.objectives.is_single and self.side.settings.pruner != "none"
        by_rows = self.side.settings.fidelity == "rows"
        for step, share in enumerate(FIDELITIES[:-1] if by_rows and may_end_early else (), start=1):
            recipe = self.trials.recipe_of(values, folder, is_scored=False, rows=share)
            trained = self.trials.train(recipe, _watch(recipe))
            _report(trial, step, self._values_of(trained)[0])
        is_scored = may_end_early and not by_rows
        recipe = self.trials.recipe_of(values, folder, is_scored=is_scored)

        def report(quarter: int, metrics: Mapping[str, float]) -> None:
            primary = {name: task.kind.primary_score for name, task in self.side.objectives.tasks.items()}
            scores = {name: {score: metrics[f"eval_{name}_{score}"]} for name, score in primary.items()}
            try:
                value = self.side.objectives.values(scores, metrics["eval_mtl_score"], {})[0]
            except RunError:  # a score that is not defined yet, such as the correlation of equal answers
                return
            _report(trial, quarter, value)

        return self.trials.train(recipe, _watch(recipe, report if is_scored else None, self._seconds_left()))

    def _seconds_left(self) -> float | None:
        """Return the time that is left for a trial, which a longer training or several adapters may exceed."""
        budget = self.side.budget.seconds
        return None if budget is None else budget - used_seconds(self.study)

    def _values_of(self, trained: Trained) -> list[float]:
        evaluation = trained.evaluation
        costs = costs_of(trained.recipe, trained.training)
        return self.side.objectives.values(evaluation.scores, evaluation.mtl_score, costs)

    def _describe(self, trial: optuna.Trial, trained: Trained) -> None:
        scores = {
            task: {name: value for name, value in values.items() if is_finite(value)}
            for task, values in trained.evaluation.scores.items()
        }
        trial.set_user_attr("scores", scores)
        trial.set_user_attr("costs", costs_of(trained.recipe, trained.training))

    def _is_among_best(self, value: float) -> bool:
        best = self.best()
        return len(best) < BEST or self.side.objectives.is_better(value, best[-1].values[0])

    def _enqueue_best(self) -> None:
        """Enqueue the best trials and the recipe as shipped with fresh seeds, except those enqueued before."""
        with alone_in(self.studies.folder):
            candidates = [each.number for each in self.best()]
            shipped = [each.number for each in complete(self.study) if SHIPPED in each.user_attrs]
            numbers = list(dict.fromkeys([*candidates, *shipped[:1]]))
            known = self.again.get_trials(deepcopy=False)
            before = {(each.user_attrs["of"], each.user_attrs["seed"]) for each in known if not is_lost(each)}
            for seed in self.fresh_seeds if len(numbers) > 1 else ():
                for number in numbers:
                    if (number, seed) not in before:
                        self.again.enqueue_trial({}, user_attrs={"of": number, "seed": seed})

    def _run_again(self, trial: optuna.Trial) -> None:
        number, seed = trial.user_attrs["of"], trial.user_attrs["seed"]
        values = self.study.get_trials(deepcopy=False)[number].user_attrs["values"]
        folder = self.again_folders.of(trial.number)
        try:
            recipe = self.trials.recipe_of(values, folder, seed=seed, is_scored=False)
            trained = self.trials.train(recipe, _watch(recipe))
            found = self._values_of(trained)
            self._describe(trial, trained)
            self.again.tell(trial, found)
            shown = self._shown(found)
        except (MtlNlpError, MemoryError) as error:
            trial.set_user_attr(REASON, str(error) or "the memory is full.")
            self.again.tell(trial, state=TrialState.FAIL)
            shown = f"failed: {trial.user_attrs[REASON]}"
        self.say(f"{self._name}trial {number} again, seed {seed}: {shown}")

    @property
    def _name(self) -> str:
        return "" if self.side.label == "joint" else f"{self.side.label}: "

    def _shown(self, values: Sequence[float]) -> str:
        named = zip(self.side.objectives.names, values, strict=True)
        return ", ".join(f"{name} {value:.4g}" for name, value in named)

    def _say_trial(self, number: int, chosen: Mapping[str, Any]) -> None:
        trial = self.study.get_trials(deepcopy=False)[number]
        done, most = len(finished(self.study)), self.side.budget.trials
        if trial.state == TrialState.COMPLETE:
            best = self.best(1)[0]
            shown = self._shown(trial.values)
            if self.side.objectives.is_single:
                shown += f" (best {best.values[0]:.4g}, trial {best.number})"
        elif trial.state == TrialState.PRUNED:
            shown = "ended early"
        else:
            shown = f"failed: {trial.user_attrs[REASON]}"
        settings = (
            "as shipped" if SHIPPED in trial.user_attrs else ", ".join(f"{k} {label_of(v)}" for k, v in chosen.items())
        )
        position = f"[{done}{'' if most is None else f'/{most}'}]"
        self.say(f"{self._name}{position} trial {number}: {shown}, {minutes_text(seconds_of(trial))}: {settings}")


def _watch(recipe: Recipe, report: Report | None = None, seconds: float | None = None) -> TrialWatch:
    return TrialWatch(report, seconds, skips_last=not needs_last_evaluation(recipe))


def _report(trial: optuna.Trial, step: int, value: float) -> None:
    """Report an intermediate value, and end the trial early if the study wants so.

    Raises:
        optuna.TrialPruned: if the trial should end.
    """
    trial.report(value, step)
    # The recipe as shipped is the reference of the search, and runs to its end.
    if SHIPPED not in trial.user_attrs and trial.should_prune():
        raise optuna.TrialPruned
