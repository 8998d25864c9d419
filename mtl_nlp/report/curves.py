"""The section on the training: losses, scores on validation, weights, learning rate and sampling."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mtl_nlp.report.blocks import Fold, Plot, Plots, Section, Table, Text
from mtl_nlp.report.facts import curve, early_peak
from mtl_nlp.report.material import OWN, Material, RunFiles
from mtl_nlp.report.plots import Series, bar_plot, line_plot
from mtl_nlp.report.scores import legend, places_of
from mtl_nlp.training.freezing import describe_frozen
from mtl_nlp.training.skipping import describe_skips

_PROBABILITY = "probability_"
"""The start of the keys of the log with the probabilities of datasets."""

_MOST_DATASETS = 16
"""The number of datasets whose probabilities are drawn."""


def training_section(material: Material, tasks: Sequence[str]) -> Section:
    """Return the section on the training.

    Args:
        material: the content of the report.
        tasks: the tasks to draw; the page states the number of the others.
    """
    section = Section("training", "Training")
    metrics = {task: _metric_of(material, task) for task in tasks}
    groups = (
        ("loss", "Training loss", lambda task: f"loss_{task}"),
        ("validation", "Scores on validation", lambda task: f"eval_{task}_{metrics[task]}"),
        ("weight", "Loss weights", lambda task: f"weight_{task}"),
    )
    note = "A line for each seed." if material.comparison else "The dotted line is the kept model."
    frozen = _frozen_tasks(material, tasks)
    if frozen and material.comparison is None:
        note += " From the solid line on, the task had the weight 0."
    for name, title, key in groups:
        plots = _per_task(material, tasks, name, title, key)
        if plots:
            shown = Plots(plots, legend(material, name), note)
            section.blocks.append(Fold(title, [shown], open=name == "loss" or material.comparison is None))
    others = [*_learning_rate(material), *_sampling(material), *_probabilities(material)]
    if others:
        section.blocks.append(Fold("Learning rate and sampling", [Plots(others, legend(material, "rate"))]))
    if not section.blocks:
        section.blocks.append(Text("The runs have no training log."))
    elif len(tasks) < len(material.task_names):
        rest = len(material.task_names) - len(tasks)
        section.blocks.append(Text(f"The curves of {rest} further tasks are left out; training_log.jsonl has them."))
    section.blocks += [Text(sentence) for sentence in (*frozen, *_skips(material))]
    section.blocks += _peaks(material, tasks)
    return section


def _frozen_tasks(material: Material, tasks: Sequence[str]) -> list[str]:
    """Return a sentence for each task and run in which the task was frozen."""
    return [
        f"{'' if not run.seed else f'{side}, seed {run.seed}: '}{describe_frozen(task, frozen)}."
        for side in material.runs
        for run in material.runs[side]
        for task, frozen in (run.training.get("frozen") or {}).items()
        if task in tasks
    ]


def _skips(material: Material) -> list[str]:
    """Return a sentence for each run and task with skipped shares of the loss."""
    return [
        f"{'' if not run.seed else f'{side}, seed {run.seed}: '}{sentence}."
        for side in material.runs
        for run in material.runs[side]
        for sentence in describe_skips(run.training.get("skipped") or {}, material.task_names)
    ]


def _metric_of(material: Material, task: str) -> str:
    if material.comparison is not None:
        return material.comparison["tasks"][task]["metric"]
    return material.tasks[task].kind.primary_score


def _per_task(material: Material, tasks: Sequence[str], name: str, title: str, key: Callable[[str], str]) -> list[Plot]:
    """Return a plot for each task that has such entries in the log of a run."""
    plots = []
    for number, task in enumerate(tasks):
        series = _series(material, key(task))
        is_constant = name == "weight" and all(value == 1.0 for each in series for _, value in each.points)
        if series and not is_constant:
            kept, end = _kept_epoch(material), _frozen_epoch(material, task)
            svg = line_plot(f"{name}-{number}", task, series, "epoch", kept, end)
            plots.append(Plot(svg, _table(f"{title} of {task}", series)))
    return plots


def _series(material: Material, key: str) -> list[Series]:
    """Return the curves of all runs that have entries under a key."""
    found = []
    for side, place in places_of(material).items():
        for run in material.runs[side]:
            if len(points := curve(run.log, key)) > 1:
                name = f"{side}, seed {run.seed}" if run.seed else side
                found.append(Series(name, place if material.comparison else 1, points))
    return found


def _table(title: str, series: Sequence[Series]) -> Table:
    """Return the first and last values of curves, and those at the quarters of the training if there are enough."""
    parts = 4 if min(len(each.points) for each in series) > 4 else 1
    rows = []
    for each in series:
        last = len(each.points) - 1
        rows.append([each.name, *(f"{each.points[round(part * last / parts)][1]:.4g}" for part in range(parts + 1))])
    return Table(title, ["run", "first", *(["25 %", "50 %", "75 %"] if parts > 1 else []), "last"], rows)


def _kept_epoch(material: Material) -> float | None:
    """Return the epoch of the kept model of a single run, or None if it is unknown or there are several runs."""
    if material.comparison is not None:
        return None
    training = material.runs[OWN][0].training
    steps = [best["kept_step"] for best in (training.get("best") or {}).values() if best.get("kept_step")]
    return _epoch_of(training, steps[0]) if steps else None


def _frozen_epoch(material: Material, task: str) -> float | None:
    """Return the epoch from which on a task of a single run was frozen, or None without such an epoch."""
    if material.comparison is not None:
        return None
    training = material.runs[OWN][0].training
    frozen = (training.get("frozen") or {}).get(task)
    return None if frozen is None else _epoch_of(training, frozen["step"])


def _epoch_of(training: Mapping[str, Any], step: int) -> float | None:
    if not training.get("steps") or not training.get("epochs"):
        return None
    return step / training["steps"] * training["epochs"]


def _learning_rate(material: Material) -> list[Plot]:
    # All seeds of a side have the same schedule, so one run of each side is enough.
    series = [
        each for each in _series(material, "learning_rate") if each.name.endswith((OWN, f"seed {_seed(material)}"))
    ]
    if not series:
        return []
    return [Plot(line_plot("rate", "Learning rate", series, "epoch"), _table("Learning rate", series))]


def _seed(material: Material) -> str:
    return next((run.seed for run in material.all_runs()), "")


def _sampling(material: Material) -> list[Plot]:
    """Return the plot of the planned and the drawn share of each dataset, for each joint side."""
    plots = []
    for number, side in enumerate(material.joint):
        mixtures = [run.training["mixture"] for run in material.runs[side] if run.training.get("mixture")]
        if not mixtures or any("drawn" not in sampled for sampled in mixtures[0].values()):
            continue
        total = sum(sampled["drawn"] for sampled in mixtures[0].values()) or 1
        bars = [
            (name, 100 * sampled["probability"], 100 * sampled["drawn"] / total)
            for name, sampled in mixtures[0].items()
        ]
        rows = [
            [name, f"{sampled['rows']:,}", f"{planned:.2f}", f"{drawn:.2f}", f"{sampled['drawn']:,}"]
            for (name, planned, drawn), sampled in zip(bars, mixtures[0].values(), strict=True)
        ]
        title = "Sampling" if material.comparison is None else f"Sampling of {side}"
        table = Table(title, ["dataset", "rows", "planned, %", "drawn, %", "rows drawn"], rows)
        plots.append(Plot(bar_plot(f"sampling-{number}", title, bars, ("planned", "drawn")), table))
    return plots


def _probabilities(material: Material) -> list[Plot]:
    """Return a plot for each dataset whose probability the runs have logged, see `mixture.headroom`."""
    found = (key for run in material.all_runs() for entry in run.log for key in entry if key.startswith(_PROBABILITY))
    plots = []
    for number, key in enumerate(list(dict.fromkeys(found))[:_MOST_DATASETS]):
        if series := _series(material, key):
            title = f"Probability of {key.removeprefix(_PROBABILITY)}"
            plots.append(Plot(line_plot(f"probability-{number}", title, series, "epoch"), _table(title, series)))
    return plots


def _peaks(material: Material, tasks: Sequence[str]) -> list[object]:
    """Return the table of each task's best evaluation on validation, with a note if one lies long before the end."""
    rows: list[list[object]] = []
    early: list[str] = []
    for side in material.joint:
        for run in material.runs[side]:
            for task, best in (run.training.get("best") or {}).items():
                if task not in tasks:
                    continue
                kept = best.get("kept_value")
                where = side if not run.seed else f"{side}, seed {run.seed}"
                rows.append(
                    [
                        task,
                        where,
                        best["score"],
                        f"{best['value']:.4f}",
                        best["step"],
                        "" if kept is None else f"{kept:.4f}",
                    ]
                )
                early += [task] if _peaked_early(run, task) else []
    if not rows:
        return []
    table = Table("Best evaluation on validation", ["task", "run", "score", "best", "at step", "kept model"], rows)
    blocks: list[object] = [Fold("Best evaluation of each task", [table])]
    if early:
        names = ", ".join(dict.fromkeys(early))
        blocks.insert(
            0, Text(f"Best long before the kept model: {names}. This is how interference or overfitting shows.")
        )
    return blocks


def _peaked_early(run: RunFiles, task: str) -> bool:
    return early_peak(run, task) is not None
