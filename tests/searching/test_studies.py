from __future__ import annotations

import datetime
from pathlib import Path

import optuna
import pytest

from mtl_nlp.errors import CommandError, DataError
from mtl_nlp.recipe.searching import SearchRecipe
from mtl_nlp.searching.studies import (
    REASON,
    SHIPPED,
    STUDY_NAME,
    Budget,
    Studies,
    TrialFolders,
    complete,
    finished,
    start_trials,
    used_seconds,
    usual_seconds,
)


@pytest.fixture
def studies(tmp_path: Path) -> Studies:
    return Studies(tmp_path / "search", "a" * 64)


def opened(studies: Studies, **settings: str) -> optuna.Study:
    return studies.open("joint", ["maximize"], SearchRecipe(**settings), seed=1)


def test_a_study_is_opened_again_with_its_trials_and_a_different_recipe_is_refused(studies):
    study = opened(studies)
    trial = study.ask()
    study.tell(trial, trial.suggest_float("x", 0, 1))
    again = opened(Studies(studies.folder, "a" * 64), sampler="random", pruner="hyperband")
    assert [each.number for each in complete(again)] == [0]
    with pytest.raises(CommandError, match="holds the search of a different recipe, space or objective"):
        Studies(studies.folder, "b" * 64)


def test_processes_draw_different_values_and_the_first_ones_are_reproducible(tmp_path):
    drawn = []
    for folder in ("one", "two"):
        studies = Studies(tmp_path / folder, "a" * 64)
        workers = [opened(studies), opened(studies)]
        drawn.append([worker.ask().suggest_float("x", 0, 1) for worker in workers])
    assert drawn[0] == drawn[1]
    assert drawn[0][0] != drawn[0][1]


def test_a_line_that_a_killed_process_left_half_is_cut_off(studies):
    study = opened(studies)
    study.tell(study.ask(), 1.0)
    journal = studies.folder / STUDY_NAME
    with journal.open("ab") as file:
        file.write(b'{"op_code": 4, "wor')
    assert len(complete(opened(Studies(studies.folder, "a" * 64)))) == 1
    journal.write_bytes(b"no journal\n" + journal.read_bytes())
    with pytest.raises(DataError, match="is damaged"):
        Studies(studies.folder, "a" * 64)


def test_a_trial_of_a_killed_process_starts_again_with_its_values(studies):
    study = opened(studies)
    folders = TrialFolders(studies.folder / "trials")
    study.enqueue_trial({"x": 0.25}, user_attrs={SHIPPED: ["x"]})
    lost = study.ask()  # without the lock of its folder, as after the end of its process
    assert lost.user_attrs == {SHIPPED: ["x"]}
    running = study.ask()
    running.suggest_float("x", 0, 1)
    lock = folders.lock(running.number)
    assert folders.is_alive(running.number) is False  # the lock is that of this process
    lock.release()
    seen = []
    for trial in start_trials(studies, study, folders, lambda done, alive: len(done) + alive < 2):
        seen.append((trial.suggest_float("x", 0, 1), trial.user_attrs))
        study.tell(trial, 0.5)
    assert seen[0] == (0.25, {SHIPPED: ["x"]})
    assert seen[1][0] == running.params["x"]
    assert [each.number for each in finished(study)] == [2, 3]


def test_a_failed_trial_counts_and_a_lost_one_does_not(studies):
    study = opened(studies)
    failed, lost = study.ask(), study.ask()
    failed.set_user_attr(REASON, "diverged")
    study.tell(failed, state=optuna.trial.TrialState.FAIL)
    study.tell(lost, state=optuna.trial.TrialState.FAIL)
    assert [each.number for each in finished(study)] == [failed.number]


def test_time_in_which_several_trials_train_counts_once(studies):
    study = opened(studies)
    start = datetime.datetime(2030, 1, 1)
    for begin, end in ((0, 10), (5, 20), (30, 40)):
        trial = optuna.trial.create_trial(value=1.0)
        trial.datetime_start, trial.datetime_complete = (start + datetime.timedelta(seconds=s) for s in (begin, end))
        study.add_trial(trial)
    assert used_seconds(study) == pytest.approx(30)
    assert usual_seconds(study) == pytest.approx(10)
    assert Budget(3, 60.0).share(0.5) == Budget(3, 30.0)
