"""The kinds of cases: a part of a run's folder is damaged, and commands use the part."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from arguments import SLOW, odd_arguments
from damage import Damage
from fields import set_field
from hypothesis import strategies as st
from hypothesis.strategies import DataObject
from insight_folder import write_insight
from originals import ADAPTED, ENCODER, PLAIN, RECIPE, RUN, TEXT_FILE
from predicting import FORMATS, intact_input, odd_options, predict_command
from ranges import senseless
from sandbox import Outcome, Sandbox, Violation, not_finite
from trees import as_yaml

from mtl_nlp.recipe.file import read_yaml

OUT = "out"
"""The folder that the commands write to."""
VOCABULARY, WEIGHTS = "tokenizer.json", "model.safetensors"
_TRAINING = ["--set", f"output_dir={OUT}", "--set", "training.max_steps=1"]
MODEL_COMMANDS: dict[str, list[str]] = {
    "predict": ["predict", RUN, TEXT_FILE],
    "evaluate": ["evaluate", RUN, "--recipe", RECIPE, "--output", f"{OUT}/results.json"],
    "transformers": ["export", RUN, f"{OUT}/new", "--format", "transformers", "--task", "ner"],
    "peft": ["export", RUN, f"{OUT}/new", "--format", "peft", "--task", "ner"],
    "drop": ["drop", RUN, f"{OUT}/new", "--task", "topic"],
    "from": ["train", RECIPE, "--from", RUN, *_TRAINING],
    "push": ["push", RUN, "ada/fuzzed", "--with-code"],
}
DATA_FORMATS: dict[str, tuple[str, str]] = {
    "conll": ("words", "conll"),
    "conllu": ("words", "conllu"),
    "jsonl": ("texts", "json"),
    "csv": ("texts", "csv"),
    "tsv": ("texts", "tsv"),
    "parquet": ("texts", "parquet"),
    "txt": ("texts", "text"),
}
"""Suffix -> the dataset of the recipe that has files with this suffix, and the dataset's `path`."""


class Result(NamedTuple):
    """A finished case: the damage and the command in words, and the outcome."""

    what: str
    outcome: Outcome


class Bench(NamedTuple):
    """What every case needs.

    Attributes:
        data: chooses the damage.
        sandbox: runs the commands.
        originals: name -> an intact folder, see `originals.py`.
    """

    data: DataObject
    sandbox: Sandbox
    originals: Mapping[str, Path]

    def start(self) -> tuple[Path, Damage]:
        """Copy one of the originals."""
        name = self.data.draw(st.sampled_from((PLAIN, ADAPTED)))
        case = self.sandbox.new_case(self.originals[name])
        (case / OUT).mkdir()
        other = self.originals[ADAPTED if name == PLAIN else PLAIN] / RUN
        return case, Damage(self.data, self.sandbox.canary, self.sandbox.outside, other)


def damaged_model(bench: Bench) -> Result:
    """Damage the folder of a trained model, and use the model."""
    case, damage = bench.start()
    name = damage.choose(["predict"] * 6 + [*MODEL_COMMANDS])
    done = damage.folder(case / RUN)
    outcome = bench.sandbox.run(case, [MODEL_COMMANDS[name]], [case / OUT], online=name == "push")
    return Result(f"{name}: {done}", refused_if_useless(outcome, case / RUN))


def damaged_encoder(bench: Bench) -> Result:
    """Damage the folder of an encoder, and plan or train a recipe with the encoder."""
    case, damage = bench.start()
    command = damage.choose(["plan", "train"])
    done = damage.folder(case / ENCODER)
    outcome = bench.sandbox.run(case, [[command, RECIPE, *_TRAINING]], [case / OUT])
    return Result(f"encoder {command}: {done}", refused_if_useless(outcome, case / ENCODER, weights=command == "train"))


def damaged_checkpoint(bench: Bench) -> Result:
    """Damage the last checkpoint of a run, and resume the run for one more step."""
    case, damage = bench.start()
    shutil.rmtree(case / RUN / "checkpoint-1")
    done = damage.folder(case / RUN / "checkpoint-2")
    command = ["train", RECIPE, "--resume", "--set", "training.max_steps=3"]
    return Result(f"resume: {done}", bench.sandbox.run(case, [command], [case / RUN]))


def damaged_insight(bench: Bench) -> Result:
    """Damage a file on what the tasks of a run share, and write the report of the run."""
    case, damage = bench.start()
    metrics = {"pos": "accuracy", "ner": "f1", "topic": "accuracy", "moods": "micro_f1", "score": "pearson"}
    write_insight(case / RUN, [*metrics], [*metrics.values()])
    name = damage.choose(["inspection.json", "conflict.json"])
    done = damage.any(case / RUN / name)
    return Result(f"report: {name}: {done}", bench.sandbox.run(case, [["report", RUN]], [case / RUN]))


def damaged_recipe(bench: Bench) -> Result:
    """Damage a recipe, plan it or train it for one step, and use the trained model."""
    case, damage = bench.start()
    kind = damage.choose(["any"] * 4 + ["fields"] * 6 + ["name of a task", "output_dir"])
    command = damage.choose(["plan", "plan", "train"])
    options = _TRAINING
    if kind == "any":
        done = damage.any(case / RECIPE)
    elif kind == "fields":
        recipe = _read_recipe(case)
        done = "; ".join(set_field(bench.data, recipe) for _ in range(damage.choose([1, 1, 2])))
        (case / RECIPE).write_bytes(as_yaml(recipe))
    elif kind == "name of a task":
        done, command = damage.task_name(case / RECIPE), "train"
    else:
        output = damage.choose([".", "..", "data", ENCODER, RUN, RECIPE, "/", "../outside"])
        done, command = f"output_dir {output}", "train"
        options = ["--set", f"output_dir={json.dumps(output)}", "--set", "training.max_steps=1"]
    commands = [[command, RECIPE, *options]] + [["predict", OUT, TEXT_FILE]] * (
        command == "train" and kind != "output_dir"
    )
    outcome = bench.sandbox.run(case, commands, [case / OUT])
    return Result(f"recipe {command}: {done}", refused_if_senseless(outcome, case, options))


def odd_training_arguments(bench: Bench) -> Result:
    """Give a recipe training arguments of any kind, and plan it or train it for one step."""
    case, damage = bench.start()
    command = damage.choose(["plan", "plan", "plan", "train"])
    drawn, done = odd_arguments(bench.data, SLOW if command == "train" else set())
    recipe = _read_recipe(case)
    section = damage.choose(["training"] * 7 + ["baselines.training"])
    (recipe if section == "training" else recipe.setdefault("baselines", {})).setdefault("training", {}).update(drawn)
    (case / RECIPE).write_bytes(as_yaml(recipe))
    options = _TRAINING[: 4 if command == "train" else 2]
    outcome = bench.sandbox.run(case, [[command, RECIPE, *options]], [case / OUT], online=True)
    return Result(f"{section} {command}: {done}", refused_if_senseless(outcome, case, options))


def damaged_data(bench: Bench) -> Result:
    """Damage a data file, and plan or train a recipe for one step."""
    case, damage = bench.start()
    suffix = damage.choose([*DATA_FORMATS])
    dataset, path = DATA_FORMATS[suffix]
    recipe = _read_recipe(case)
    section = recipe["datasets"][dataset]
    section["path"] = path
    section["data_files"] = {split: f"data/{split}.{suffix}" for split in section["data_files"]}
    if suffix == "conllu":
        recipe.pop("adapters", None)  # one of the adapters belongs to `ner`
        del section["columns"], section["labels"]["ner"], recipe["tasks"]["ner"]
        section["inputs"] = {"tokens": "form"}
    elif suffix in ("csv", "tsv", "txt"):
        del section["labels"]["moods"], recipe["tasks"]["moods"]
    if suffix == "txt":  # lines have no labels, so that each is a class of its own
        del section["labels"]["score"], recipe["tasks"]["score"]
        section["inputs"], section["labels"]["topic"] = {"text": "text"}, "text"
    (case / RECIPE).write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    name = damage.choose(["train", "train", "validation", "test"])
    command = damage.choose(["plan", "plan", "train"])
    file = case / "data" / f"{name}.{suffix}"
    is_table = suffix in ("csv", "tsv", "jsonl", "conll", "conllu")
    done = damage.column(file) if is_table and damage.rarely(3) else damage.any(file)
    outcome = bench.sandbox.run(case, [[command, RECIPE, *_TRAINING]], [case / OUT])
    return Result(f"data {command}: {name}.{suffix}: {done}", outcome)


def odd_inputs(bench: Bench) -> Result:
    """Damage a file of inputs, and answer the inputs, from the file or from standard input."""
    case, damage = bench.start()
    kind = damage.choose([*FORMATS])
    file = case / f"inputs.{FORMATS[kind]}"
    file.write_bytes(intact_input(FORMATS[kind]))
    done = damage.any(file) if not damage.rarely(6) else "intact"
    is_stream = file.is_file() and damage.rarely(3)
    command = predict_command("-" if is_stream else file.name, odd_options(damage, kind))
    outcome = bench.sandbox.run(case, [command], [case / OUT], stdin=file if is_stream else None)
    return Result(f"{' '.join(command)}: {file.name}: {done}", outcome)


CASES: dict[str, Callable[[Bench], Result]] = {
    "model": damaged_model,
    "encoder": damaged_encoder,
    "checkpoint": damaged_checkpoint,
    "insight": damaged_insight,
    "recipe": damaged_recipe,
    "data": damaged_data,
    "predict": odd_inputs,
    "arguments": odd_training_arguments,
}
"""The kinds of cases by name."""


def refused_if_useless(outcome: Outcome, folder: Path, weights: bool = True) -> Outcome:
    """Add a violation if a command has accepted a folder without a vocabulary or with weights that are not finite."""
    if outcome.finished.status != 0:
        return outcome
    found = [Violation("accepted", str(each)) for each in not_finite(folder / WEIGHTS) if weights]
    if not (folder / VOCABULARY).is_file():
        found.append(Violation("accepted", f"a folder without {VOCABULARY}"))
    return outcome._replace(violations=(*outcome.violations, *found))


def refused_if_senseless(outcome: Outcome, case: Path, options: Sequence[str]) -> Outcome:
    """Add a violation for each number out of its range in a recipe that a command has accepted."""
    if outcome.finished.status != 0:
        return outcome
    recipe = read_yaml(case / RECIPE, [text for text in options if "=" in text])
    found = [Violation("accepted", each) for each in senseless(recipe)]
    return outcome._replace(violations=(*outcome.violations, *found))


def _read_recipe(case: Path) -> dict[str, Any]:
    recipe: dict[str, Any] = yaml.safe_load((case / RECIPE).read_text(encoding="utf-8"))
    return recipe
