"""Faults that the fuzzer has found: the sandbox reports each of them as soon as its mend is taken out."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml
from cases import MODEL_COMMANDS, OUT, VOCABULARY, WEIGHTS, refused_if_useless
from damage import LONG, rename_task
from originals import ADAPTED, ENCODER, PLAIN, RECIPE, RUN, TEXT_FILE
from safetensors.torch import load_file, save_file
from sandbox import SECRET_NAME, Outcome, Sandbox

CHECKPOINT = f"{RUN}/checkpoint-2"
PREDICT, PUSH = MODEL_COMMANDS["predict"], MODEL_COMMANDS["push"]
TRAIN = ["train", RECIPE, "--set", f"output_dir={OUT}"]
TRAIN_AND_PREDICT = [TRAIN, ["predict", OUT, TEXT_FILE]]
RESUME = ["train", RECIPE, "--resume", "--set", "training.max_steps=3"]


class Fault(NamedTuple):
    """An input that a command once did not survive.

    Attributes:
        damage: makes the input in the folder of a case.
        commands: use the input.
        mend: Python code that takes out the mend of the fault, with the names of `mends.py`.
        violation: the start of the violation without the mend, or several if the speed of the machine decides.
        original: the intact folder.
        resumes: whether the commands continue the run, so that they may write to its folder.
    """

    damage: Callable[[Path], object]
    commands: Sequence[Sequence[str]]
    mend: str
    violation: str | tuple[str, ...]
    original: str = PLAIN
    resumes: bool = False


def _json(name: str, *path: Any, value: Any) -> Callable[[Path], None]:
    """Return a function that replaces a value in a JSON file."""

    def damage(case: Path) -> None:
        tree = json.loads((case / name).read_text(encoding="utf-8"))
        place = tree
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value
        (case / name).write_text(json.dumps(tree), encoding="utf-8")

    return damage


def _recipe(old: str, new: str, name: str = RECIPE) -> Callable[[Path], None]:
    """Return a function that replaces a text everywhere in a recipe."""

    def damage(case: Path) -> None:
        text = (case / name).read_text(encoding="utf-8")
        assert old in text
        (case / name).write_text(text.replace(old, new), encoding="utf-8")

    return damage


def _task_named(name: str) -> Callable[[Path], None]:
    """Return a function that renames a task with an adapter."""

    def damage(case: Path) -> None:
        recipe = yaml.safe_load((case / RECIPE).read_text(encoding="utf-8"))
        rename_task(recipe, "topic", name)
        (case / RECIPE).write_text(yaml.safe_dump(recipe), encoding="utf-8")

    return damage


def _intact(case: Path) -> None:
    """Leave all files as they are: the command itself is the fault."""


def _without_tokenizer(case: Path) -> None:
    for file in (case / ENCODER).glob("tokenizer*"):
        file.unlink()


def _pickled(name: str, value: Any) -> Callable[[Path], None]:
    return lambda case: torch.save(value, case / CHECKPOINT / name)


def _weights_of_nan(case: Path) -> None:
    weights = load_file(case / RUN / WEIGHTS)
    next(iter(weights.values())).fill_(float("nan"))
    save_file(weights, case / RUN / WEIGHTS, metadata={"format": "pt"})


def _huge_label(case: Path) -> None:
    rows = [json.loads(line) for line in (case / "data/train.jsonl").read_text(encoding="utf-8").splitlines()]
    (case / "data/train.jsonl").write_text("".join(json.dumps(row | {"score": 1e39}) + "\n" for row in rows))
    recipe = yaml.safe_load((case / RECIPE).read_text(encoding="utf-8"))
    recipe["tasks"]["score"]["normalize"] = False  # standardised numbers of any size are small
    (case / RECIPE).write_text(yaml.safe_dump(recipe), encoding="utf-8")


def _link_outside(case: Path) -> None:
    (case / RUN / "README.md").unlink()
    (case / RUN / "README.md").symlink_to(case.parent / "outside" / "notes.txt")


def _long_pair(case: Path) -> None:
    (case / TEXT_FILE).write_text(json.dumps({"text": LONG, "text_pair": LONG}) + "\n", encoding="utf-8")


CONFIG = f"{RUN}/config.json"
_CHECKS_OF_SIZE = "take_out('hub.outside.check_size', 'modeling.checks_multitask.check_values'); "
_CHECK_OF_FOLDER = "take_out('training.folder.check_output_folder')"
_FOLDER_IS_USED = "wrote outside: open in training/folder.py:locked"
FAULTS: dict[str, Fault] = {
    "many layers": Fault(
        _json(CONFIG, "text_config", "num_hidden_layers", value=10**9),
        [PREDICT],
        _CHECKS_OF_SIZE + "shorten_hangs()",
        "hang: signal 24 in modeling/encoders_multitask.py:build_encoder",
    ),
    "a large vocabulary": Fault(
        _json(CONFIG, "text_config", "vocab_size", value=10**12),
        [PREDICT],
        _CHECKS_OF_SIZE + "report_few_errors()",
        "memory: RuntimeError in modeling/saving_multitask.py:from_pretrained",
    ),
    "a task that is a number": Fault(
        _json(CONFIG, "tasks", 0, value=3),
        [PREDICT],
        "trust_tasks(); report_few_errors()",
        "traceback: TypeError in modeling/configuration_multitask.py",
    ),
    "a type of a task that is a list": Fault(
        _json(CONFIG, "tasks", 0, "type", value=["x"]),
        [PREDICT],
        "trust_tasks(); report_few_errors()",
        "traceback: TypeError in modeling/configuration_multitask.py",
    ),
    "a data type that is a list": Fault(
        _json(CONFIG, "dtype", value=["x"]),
        [PREDICT],
        "take_out('modeling.checks_multitask.check_values'); report_few_errors()",
        "traceback: IndexError in modeling/configuration_multitask.py:from_dict",
    ),
    "a tokenizer that is not valid": Fault(
        _json(f"{RUN}/{VOCABULARY}", "version", value={}),
        [PREDICT],
        "report_few_errors()",
        "traceback: Exception in data/tokenizer.py:load_tokenizer",
    ),
    "settings of a tokenizer that are numbers": Fault(
        _json(f"{RUN}/tokenizer_config.json", "mask_token", value={}),
        [PREDICT],
        "report_few_errors()",
        "traceback: TypeError in data/tokenizer.py:load_tokenizer",
    ),
    "a missing tokenizer": Fault(
        _without_tokenizer,
        [["plan", RECIPE, "--no-model"]],
        "take_out('modeling.checks_multitask.check_tokenizer')",
        f"accepted: a folder without {VOCABULARY}",
    ),
    "scores that are texts": Fault(
        _json(f"{RUN}/results.json", "tasks", "pos", value="x"),
        [MODEL_COMMANDS["drop"], PUSH],
        "trust_results()",
        "traceback: AttributeError in hub/model_card.py",
    ),
    "weights that are not finite": Fault(
        _weights_of_nan,
        [MODEL_COMMANDS["drop"]],
        "take_out('modeling.weights_multitask.check_finite', 'modeling.saving_multitask.check_weights')",
        "accepted: not finite: weights",
    ),
    "a label that float32 cannot hold": Fault(
        _huge_label,
        [TRAIN],
        "take_out('modeling.text_kinds_multitask.check_fits_float32'); watch_nothing()",
        "not finite: weights",
    ),
    "a long pair": Fault(
        _long_pair,
        [PREDICT],
        "truncate_with_the_tokenizer()",
        ("crash: signal 6 in modeling", "hang: signal 24 in modeling"),
    ),
    "an adapter of a task with brackets": Fault(
        _task_named("topic (fine)"),
        TRAIN_AND_PREDICT,
        "name_adapters_like_tasks(); report_few_errors()",
        "traceback: AttributeError in modeling/saving_multitask.py:from_pretrained",
        ADAPTED,
    ),
    "an adapter of a task with a backslash": Fault(
        _task_named("domain\\user"),
        TRAIN_AND_PREDICT,
        "name_adapters_like_tasks()",
        "traceback: error in modeling/saving_multitask.py:from_pretrained",
        ADAPTED,
    ),
    "the recipe's folder as output_dir": Fault(
        _intact, [["train", RECIPE, "--set", "output_dir=."]], _CHECK_OF_FOLDER, _FOLDER_IS_USED
    ),
    "the encoder as output_dir": Fault(
        _intact, [["train", RECIPE, "--set", "output_dir=encoder"]], _CHECK_OF_FOLDER, _FOLDER_IS_USED
    ),
    "a new run over an older run": Fault(
        _intact, [["train", RECIPE, "--set", "training.learning_rate=0.1"]], _CHECK_OF_FOLDER, _FOLDER_IS_USED
    ),
    "a variable in a recipe": Fault(
        _recipe("apache-2.0", f"${{{SECRET_NAME}}}"),
        [TRAIN],
        "write_values_of_variables()",
        f"secret: written to {RECIPE}",
    ),
    "a variable in a model's recipe": Fault(
        _recipe("apache-2.0", f"${{{SECRET_NAME}}}", f"{RUN}/{RECIPE}"),
        [PUSH],
        "write_values_of_variables()",
        "secret: sent the variable",
    ),
    "a link in a pushed folder": Fault(
        _link_outside, [PUSH], "take_out('hub.links.check_has_no_links')", "secret: sent a file outside"
    ),
    "a schedule that is a text": Fault(
        _pickled("scheduler.pt", "x"),
        [RESUME],
        "take_out('training.restoring.check_schedule')",
        "traceback: AttributeError in training/stopping.py:train",
        resumes=True,
    ),
    "an optimizer that is a list": Fault(
        _pickled("optimizer.pt", []),
        [RESUME],
        "take_out('training.restoring.check_optimizer')",
        "traceback: TypeError in training/stopping.py:train",
        resumes=True,
    ),
    "random states that are numbers": Fault(
        _pickled("rng_state.pth", {"python": 1, "numpy": 2}),
        [RESUME],
        "take_out('training.restoring.check_random_state')",
        "traceback: TypeError in training/stopping.py:train",
        resumes=True,
    ),
    "a training state that is a list": Fault(
        lambda case: (case / CHECKPOINT / "trainer_state.json").write_text("[]"),
        [RESUME],
        "trust_trainer_state()",
        "traceback: TypeError in training/",
        resumes=True,
    ),
    "a checkpoint's recipe that is a text": Fault(
        lambda case: (case / CHECKPOINT / RECIPE).write_text("x"),
        [RESUME],
        "trust_settings()",
        "traceback: AttributeError in training/checkpoints.py",
        resumes=True,
    ),
}


@pytest.fixture
def run_fault(sandbox: Sandbox, originals: dict[str, Path]) -> Callable[..., Outcome]:
    """Run the commands of a fault, after Python code that takes out its mend."""

    def run(fault: Fault, before: str = "") -> Outcome:
        case = sandbox.new_case(originals[fault.original])
        (case / OUT).mkdir()
        fault.damage(case)
        writable = [case / (RUN if fault.resumes else OUT)]
        outcome = sandbox.run(case, fault.commands, writable, online=PUSH in fault.commands, before=before)
        if not fault.resumes:
            for folder in (case / RUN, case / ENCODER):
                outcome = refused_if_useless(outcome, folder)
        return outcome

    return run


@pytest.mark.parametrize("name", FAULTS)
def test_the_commands_survive(name, run_fault):
    outcome = run_fault(FAULTS[name])
    assert not outcome.violations, outcome.finished.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_the_fault_is_found_without_its_mend(name, run_fault):
    fault = FAULTS[name]
    outcome = run_fault(fault, before=f"import mends\nexec({fault.mend!r}, vars(mends))")
    found = [*map(str, outcome.violations)]
    assert any(each.startswith(fault.violation) for each in found), (found, outcome.finished.stderr)
