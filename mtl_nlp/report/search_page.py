"""The page `search.html`: one file without scripts and requests, made from the `search.json` of a search."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mtl_nlp.report.blocks import Code, Fold, Plot, Plots, Section, Table, Text
from mtl_nlp.report.page import Verdict, render_page
from mtl_nlp.report.search_plots import front_plot, history_plot, importance_plot, parallel_plot, slice_plot, value_text
from mtl_nlp.run_folder import write_file
from mtl_nlp.searching.result import BEST_NAME, PAGE_NAME, read_search
from mtl_nlp.searching.sentences import best_trials

_MOST_SLICES = 12
_MOST_TRIALS = 300
"""The number of trials in the table. `search.json` has all of them."""


def write_search_page(folder: Path) -> Path:
    """Write `search.html` into the folder of a search, and return its path.

    Raises:
        DataError: if the folder has no `search.json`, or the file is damaged.
        ModelError: if the page is a symbolic link.
    """
    write_file(folder / PAGE_NAME, search_page(folder))
    return folder / PAGE_NAME


def search_page(folder: Path) -> str:
    """Return the page as HTML, see `write_search_page`."""
    content = read_search(folder)
    best = folder / BEST_NAME
    sections = list(_sections(content, best.read_text(encoding="utf-8") if best.is_file() else ""))
    failed = sum(each["state"] == "failed" for each in content["trials"])
    return render_page(
        title=f"Search · {content['recipe']}",
        kicker=f"mtl_nlp search · {content['recipe']}",
        heading="Which settings are better?",
        subtitle=f"{content['command']}: {_counts(content)}; {', '.join(content['objectives'])} on validation",
        verdicts=[Verdict("", sentence, [], {}) for sentence in content["sentences"]],
        caveats=[
            "The scores are those of the validation splits, on which the settings were chosen. mtl-nlp compare "
            "scores the recipe found on the test splits.",
            *([f"Failed trials: {failed}. The table of trials has the reasons."] if failed else []),
        ],
        advice=[],
        sections=sections,
        footer="Made by mtl_nlp from search.json alone.",
    )


def _counts(content: Mapping[str, Any]) -> str:
    states = [each["state"] for each in content["trials"]]
    found = [f"{states.count(state)} {state}" for state in ("complete", "ended early", "failed") if state in states]
    return f"{len(states)} trials ({', '.join(found)})"


def _sections(content: Mapping[str, Any], best: str) -> Iterator[Section]:
    yield Section("best", "The best trials", [_best_table(content), *([Code(best, BEST_NAME)] if best else [])])
    done = [each for each in content["trials"] if each["state"] == "complete"]
    if done:
        yield Section("keys", "Keys", list(_plots("joint", content, done)))
    yield Section("trials", "Trials", [_trials_table(content)])
    for number, (task, side) in enumerate(content.get("single", {}).items()):
        complete = [each for each in side["trials"] if each["state"] == "complete"]
        blocks = [_best_table(side), *_plots(f"single-{number}", side, complete), Fold("Trials", [_trials_table(side)])]
        yield Section(f"single-{number}", f"{task} alone", blocks)


def _best_table(content: Mapping[str, Any]) -> Table:
    """Return the trials that ran again: their value in the search, and with each fresh seed."""
    name = content["objectives"][0]
    again = [each for each in content["trials"] if each["again"]] or best_trials(content)
    seeds = list(dict.fromkeys(seed for each in again for seed in each["again"]))
    rows = [
        [
            f"{each['number']}{' (as shipped)' if each['shipped'] else ''}",
            f"{each['values'][0]:.4g}",
            *(f"{each['again'][seed]:.4g}" if seed in each["again"] else "" for seed in seeds),
        ]
        for each in sorted(again, key=lambda each: -_sign(content) * each["values"][0])
    ]
    return Table("Again with fresh seeds", ["trial", f"{name} in the search", *(f"seed {s}" for s in seeds)], rows)


def _sign(content: Mapping[str, Any]) -> float:
    return -1.0 if content["directions"][0] == "minimize" else 1.0


def _plots(name: str, content: Mapping[str, Any], done: list[Any]) -> Iterator[object]:
    objective = content["objectives"][0]
    ranked = best_trials(content, len(done))
    overview = [
        Plot(history_plot(f"{name}-history", done, objective, is_minimized=_sign(content) < 0), _history(content, done))
    ]
    if content["importances"]:
        rows = [[key, f"{100 * share:.1f}"] for key, share in content["importances"].items()]
        table = Table("Importance of the keys", ["key", "share, %"], rows)
        overview.append(Plot(importance_plot(f"{name}-importance", content["importances"]), table))
    if content["front"]:
        shown = [
            [each["number"], *(f"{value:.4g}" for value in each["values"])]
            for each in done
            if each["number"] in content["front"]
        ]
        table = Table("Trials that no other trial beats", ["trial", *content["objectives"]], shown)
        overview.append(Plot(front_plot(f"{name}-front", done, content["objectives"], content["front"]), table))
    yield Plots(overview, note="Importances are estimates of Optuna (PED-ANOVA), and rough after few trials.")
    keys = list(content["importances"] or content["space"])[:_MOST_SLICES]
    slices = []
    for number, key in enumerate(keys):
        with_key = [each for each in ranked if key in each["settings"]]
        rows = [
            [each["number"], value_text(each["settings"][key]), f"{each['values'][0]:.4g}"] for each in with_key[:20]
        ]
        svg = slice_plot(f"{name}-slice-{number}", key, content["space"][key], with_key, objective)
        slices.append(Plot(svg, Table(f"Best trials by {key}", ["trial", key, objective], rows)))
    yield Fold("Each key", [Plots(slices)])
    svg = parallel_plot(f"{name}-parallel", content, ranked, ranked[:5])
    yield Plots([Plot(svg, _settings_table(content, ranked[:20]))], note="The coloured lines are the best five trials.")


def _history(content: Mapping[str, Any], done: list[Any]) -> Table:
    rows = [[each["number"], f"{each['values'][0]:.4g}"] for each in done]
    return Table("Complete trials", ["trial", content["objectives"][0]], rows)


def _settings_table(content: Mapping[str, Any], trials: list[Any]) -> Table:
    keys = [*content["space"]]
    rows = [[each["number"], *(value_text(each["settings"].get(key, "")) for key in keys)] for each in trials]
    return Table("Settings of the best trials", ["trial", *keys], rows)


def _trials_table(content: Mapping[str, Any]) -> object:
    rows = []
    for each in content["trials"][:_MOST_TRIALS]:
        values = ", ".join(f"{value:.4g}" for value in each["values"] or [])
        settings = (
            "as shipped" if each["shipped"] else ", ".join(f"{k} {value_text(v)}" for k, v in each["settings"].items())
        )
        rows.append([each["number"], each["state"], values, f"{each['seconds']:.0f}", settings, each["reason"]])
    names = ", ".join(content["objectives"])
    table = Table("Trials", ["trial", "state", names, "seconds", "settings", "reason of a failure"], rows)
    left = len(content["trials"]) - len(rows)
    return Fold(
        f"All trials, {left} left out" if left else "All trials",
        [table, *([Text("search.json has the rest.")] if left else [])],
    )
