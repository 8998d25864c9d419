"""The rules behind "what to try next". Each rule is a function from evidence to advice, and shows its evidence."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from typing import NamedTuple

from mtl_nlp.hub.comparison import difference_of, unit_of
from mtl_nlp.hub.sharing_words import HELPED, HURT, UNCLEAR, fewest_runs, task_statements
from mtl_nlp.messages import json_text
from mtl_nlp.report.facts import (
    adapted_tasks,
    early_peak,
    frozen_in,
    has_static_weights,
    is_improving,
    learning_rates,
    loss_shares,
    rows_of,
    strongest_conflict,
    weight_of,
)
from mtl_nlp.report.material import Material, RunFiles
from mtl_nlp.transfer.sides import SINGLE

_DOMINATES = 1.5
"""A loss dominates if its share is the largest and at least this multiple of an equal share."""

_SMALL = 0.25
"""A dataset is small if it has less than this share of the rows of the largest dataset."""


_KEEPS_BEST = ("training.load_best_model_at_end=true", "training.eval_strategy=epoch", "training.save_strategy=epoch")
"""The settings with which a run keeps its best checkpoint by `mtl_score`."""


class Advice(NamedTuple):
    """An experiment to try.

    Attributes:
        what: the change, as a sentence.
        because: the evidence, as a sentence.
        option: the option of the command line that makes the change; empty if there is none.
        side: the side that the advice is about; empty for all.
    """

    what: str
    because: str
    option: str = ""
    side: str = ""


class Case(NamedTuple):
    """A side of a comparison as the rules see it.

    Attributes:
        material: the content of the report.
        side: the side that is compared with the reference.
    """

    material: Material
    side: str

    @property
    def runs(self) -> list[RunFiles]:
        """The runs of the side."""
        return self.material.runs[self.side]

    @property
    def is_trained(self) -> bool:
        """Whether the side has runs, and is not only a file of predictions."""
        comparison = self.material.comparison
        return comparison is None or bool(comparison["sides"][self.side]["runs"])

    @property
    def words(self) -> dict[str, str | None]:
        """The word of each task; empty for a report without a comparison."""
        if self.material.comparison is None:
            return {}
        return {each.task: each.word for each in task_statements(self.material.comparison, self.side)}

    def tasks_with(self, word: str) -> list[str]:
        """Return the tasks with a word."""
        return [task for task, found in self.words.items() if found == word]

    def metric(self, task: str) -> str:
        """Return the name of a task's primary score."""
        if self.material.comparison is not None:
            return self.material.comparison["tasks"][task]["metric"]
        return self.material.tasks[task].kind.primary_score


Rule = Callable[[Case], Iterator[Advice]]


def compare_first(case: Case) -> Iterator[Advice]:
    """Advise a comparison for a run without one, since its scores alone cannot show the effect of sharing."""
    if case.material.comparison is None and len(case.material.tasks) > 1:
        yield Advice(
            "Compare the run with single-task runs.",
            "The scores of one run cannot show whether sharing helped.",
            "mtl-nlp compare RECIPE --seeds 3",
        )


def more_seeds(case: Case) -> Iterator[Advice]:
    """Advise more seeds if a side has only one."""
    if case.material.comparison is not None and fewest_runs(case.material.comparison, case.side) < 2:
        yield Advice(
            "Add seeds.",
            "One seed per side cannot separate the effect of sharing from chance. The finished runs are kept.",
            "mtl-nlp compare … --seeds 3",
        )


def tune_baselines(case: Case) -> Iterator[Advice]:
    """Advise own rates for the single-task runs if all of them ran with the learning rates of the first recipe.

    The recipes of the runs decide, since `mtl-nlp compare` trains the single-task runs by the first recipe.
    """
    material = case.material
    comparison = material.comparison
    if comparison is None or comparison["reference"] != SINGLE or comparison["match"] is None:
        return
    joint = next((run.recipe for run in material.runs[material.joint[0]] if run.recipe is not None), None)
    alone = [run.recipe for run in material.runs[SINGLE] if run.recipe is not None]
    if joint is not None and alone and all(learning_rates(each) == learning_rates(joint) for each in alone):
        yield Advice(
            "Give the single-task runs their own learning rates.",
            "Their rates are those of the joint recipe, and a rate can move a score by more than sharing does.",
            "--set baselines.training.learning_rate=…",
        )


def train_longer(case: Case) -> Iterator[Advice]:
    """Advise more epochs if sharing hurt all tasks and most of them were still improving at the end."""
    hurt = case.tasks_with(HURT)
    if not hurt or len(hurt) < len(case.words) or not case.runs:
        return
    improving = [task for task in hurt if any(is_improving(run, task, case.metric(task)) for run in case.runs)]
    if len(improving) * 2 > len(hurt):
        epochs = next((run.recipe.training.get("num_train_epochs") for run in case.runs if run.recipe), None)
        number = 2 * epochs if isinstance(epochs, int | float) else "…"
        yield Advice(
            "Train longer.",
            f"Sharing hurt all tasks, and {_listed(improving)} still improved when the training ended.",
            f"--set training.num_train_epochs={number}",
            case.side,
        )


def lower_weight(case: Case) -> Iterator[Advice]:
    """Advise a lower weight for a task that sharing hurt although its loss dominates the joint loss.

    The weight is the one with which the task would have an equal share. Weights that a method chooses are left as they
    are, and so is the weight of a frozen task, which is 0 at the end.
    """
    shares = loss_shares(case.runs, list(case.words))
    for task in case.tasks_with(HURT):
        is_frozen = any(task in frozen_in(run) for run in case.runs)
        if dominates(shares, task) and has_static_weights(case.runs[0].recipe) and not is_frozen:
            current = weight_of(case.runs[0], task)
            others = (1 - shares[task]) / (len(shares) - 1)
            yield Advice(
                f"Lower the weight of {task}.",
                f"Sharing hurt {task}, and {shares[task]:.0%} of the joint loss is from {task}. With "
                f"{len(shares)} tasks, an equal share is {1 / len(shares):.0%}.",
                _set(f"loss.weights.{task}={float(f'{current * others / shares[task]:.1g}')}"),
                case.side,
            )


def dominates(shares: dict[str, float], task: str) -> bool:
    """Return whether a task's share of the joint loss is the largest and at least 1.5 times an equal share."""
    if len(shares) < 2 or task not in shares:
        return False
    return shares[task] == max(shares.values()) and shares[task] * len(shares) >= _DOMINATES and shares[task] < 1


def add_adapters(case: Case) -> Iterator[Advice]:
    """Advise adapters for tasks that sharing hurt although their losses do not dominate."""
    shares = loss_shares(case.runs, list(case.words))
    recipe = next((run.recipe for run in case.runs), None)
    hurt = [task for task in case.tasks_with(HURT) if not dominates(shares, task)]
    have = adapted_tasks(recipe)
    without = [task for task in hurt if task not in have]
    if without and case.is_trained:
        reason = ", and no large share of the joint loss explains it" if shares else ""
        yield Advice(
            f"Give {_listed(without)} an adapter of {'its' if len(without) == 1 else 'their'} own.",
            f"Sharing hurt {_listed(without)}{reason}.",
            _set(f"adapters.tasks={json_text([*have, *without])}"),
            case.side,
        )
    adapted = [task for task in hurt if task in have]
    if adapted:
        yield Advice(
            f"Train {_listed(adapted)} alone.",
            f"Sharing hurt {_listed(adapted)} even with an adapter of {'its' if len(adapted) == 1 else 'their'} own.",
            "",
            case.side,
        )


def combine_gradients(case: Case) -> Iterator[Advice]:
    """Advise a gradient method if sharing hurt tasks whose gradients conflicted with those of others in training."""
    recipe = next((run.recipe for run in case.runs), None)
    if recipe is not None and recipe.loss.get("gradients") is not None:
        return
    for task in case.tasks_with(HURT):
        worst = strongest_conflict(case.runs, task)
        if worst is not None:
            other, cosine, share = worst
            yield Advice(
                f"Combine the gradients of {task} and {other} with a gradient method.",
                f"Sharing hurt {task}, and its gradient conflicted with that of {other} in {share:.0%} of the "
                f"measurements (mean cosine {cosine:.2f}).",
                _set("loss.gradients=pcgrad"),
                case.side,
            )


def raise_temperature(case: Case) -> Iterator[Advice]:
    """Advise a higher temperature if a task with a small dataset gained.

    p_d is proportional to n_d^(1/T), so a higher T gives small datasets a larger share of the rows.
    """
    helped = []
    for task in case.tasks_with(HELPED):
        rows = rows_of(case.runs, task)
        if rows is not None and rows[0] < _SMALL * rows[1]:
            helped.append((task, *rows))
    recipe = next((run.recipe for run in case.runs), None)
    if not helped or recipe is None or "probabilities" in recipe.mixture:
        return
    current = recipe.mixture.get("temperature", 1.0)
    number = f"{2 * current:g}" if isinstance(current, int | float) else "…"
    task, own, largest = helped[0]
    yield Advice(
        "Raise the temperature, so that small datasets are drawn more often.",
        f"Sharing helped {_listed([name for name, *_ in helped])}, and {task} has {own:,} rows where the largest "
        f"dataset has {largest:,}.",
        f"--set mixture.temperature={number}",
        case.side,
    )


def keep_the_peak(case: Case) -> Iterator[Advice]:
    """Advise to keep the best checkpoint if tasks peaked long before the kept model, or to weight them less."""
    found = [
        (task, run, peak)
        for task in case.material.task_names
        for run in case.runs
        if (peak := early_peak(run, task)) is not None
    ]
    if not found:
        return
    task, run, peak = found[0]
    others = list(dict.fromkeys(name for name, *_ in found if name != task))
    unit = unit_of(peak.metric)
    keeps_best = run.recipe is not None and run.recipe.training.get("load_best_model_at_end") is True
    lower = [] if has_static_weights(run.recipe) else ["loss.weighting=static", "loss.weighting_kwargs={}"]
    lower.append(f"loss.weights.{task}={weight_of(run, task) / 2:g}")
    yield Advice(
        f"Weight or sample {task} less." if keeps_best else "Keep the best checkpoint instead of the last.",
        f"{task} was best on validation at step {peak.step:,} ({peak.metric} {unit.value(peak.value)}) and "
        f"fell to {unit.value(peak.kept_value)} at step {peak.kept_step:,}, the kept model: interference or "
        f"overfitting.{f' {_listed(others)} fell too.' if others else ''}",
        " ".join(map(_set, lower if keeps_best else _KEEPS_BEST)),
        case.side if case.material.comparison is not None else "",
    )


def choose_by_cost(case: Case) -> Iterator[Advice]:
    """Advise to choose by cost if no task has a clear difference."""
    unclear = case.tasks_with(UNCLEAR)
    comparison = case.material.comparison
    if comparison is None or not unclear or len(unclear) < len(case.words):
        return
    found = []
    for task in unclear:
        smallest = (difference_of(comparison, task, case.side) or {}).get("smallest")
        if smallest is not None:
            unit = unit_of(comparison["tasks"][task]["metric"])
            found.append(f"{task} {unit.value(smallest)} {unit.name}")
    shown = f" The smallest differences that this data can show: {'; '.join(found[:6])}." if found else ""
    yield Advice(
        "Choose by cost, or add seeds and test texts.",
        f"No task shows a clear difference.{shown}",
        "",
        case.side,
    )


RULES: tuple[Rule, ...] = (
    compare_first,
    more_seeds,
    train_longer,
    lower_weight,
    add_adapters,
    combine_gradients,
    keep_the_peak,
    raise_temperature,
    tune_baselines,
    choose_by_cost,
)
"""The rules, in the order of their advice on the page."""


def advice(material: Material) -> list[Advice]:
    """Return what to try next: the advice of all rules for all joint sides. Equal advice for several sides is one."""
    found: dict[Advice, list[str]] = {}
    for rule in RULES:
        for side in material.joint:
            for each in rule(Case(material, side)):
                found.setdefault(each._replace(side=""), []).extend([each.side] if each.side else [])
    several = len(material.joint) > 1
    return [each._replace(side=", ".join(sides) if several else "") for each, sides in found.items()]


def _set(setting: str) -> str:
    """Return the option that overrides a key of the recipe, quoted for a shell."""
    return f"--set {shlex.quote(setting)}"


def _listed(names: list[str]) -> str:
    """Return names as a list in a sentence, shortened after six names."""
    shown = names if len(names) <= 6 else [*names[:5], f"{len(names) - 5} further tasks"]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
