from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from mtl_nlp.training.completeness import (
    checkpoint_problem,
    describe_last_checkpoint,
    last_checkpoint,
    list_files,
)

ONE = ("optimizer.pt", "scheduler.pt", "rng_state.pth")
LAYOUTS: dict[str, tuple[str, ...]] = {
    "one process": ("model.safetensors", *ONE),
    "three processes": ("model.safetensors", "optimizer.pt", "scheduler.pt", *(f"rng_state_{n}.pth" for n in range(3))),
    "full FSDP": ("pytorch_model_fsdp.bin", "optimizer.bin", "scheduler.pt", "rng_state_0.pth", "rng_state_1.pth"),
    "sharded FSDP": (
        *(
            f"{folder}/{name}"
            for folder in ("pytorch_model_fsdp_0", "optimizer_0")
            for name in ("0.distcp", ".metadata")
        ),
        *("scheduler.pt", "rng_state_0.pth", "rng_state_1.pth"),
    ),
    "DeepSpeed": ("latest", "global_step5/mp_rank_00_model_states.pt", "rng_state_0.pth", "rng_state_1.pth"),
    "a large model": ("model.safetensors.index.json", "model-1-of-2.safetensors", "model-2-of-2.safetensors", *ONE),
}
"""The names of the files that Trainer writes into a checkpoint, apart from its state and the configuration."""
COMMON = ("trainer_state.json", "config.json")
TEXTS: Mapping[str, str] = {
    "latest": "global_step5",
    "model.safetensors.index.json": json.dumps(
        {"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}
    ),
}


def write_file(file: Path) -> None:
    """Write a file in the format of its suffix."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".safetensors":
        save_file({"a": np.zeros(2, dtype=np.float32)}, file)
    elif file.suffix in {".pt", ".pth", ".bin"}:
        with zipfile.ZipFile(file, "w") as content:
            content.writestr("data.pkl", "state")
    else:
        file.write_text(TEXTS.get(file.name, "{}"), encoding="utf-8")


def write_checkpoint(folder: Path, layout: str) -> Path:
    """Write a checkpoint as earlier releases did, without the list of its files."""
    for name in (*COMMON, *LAYOUTS[layout]):
        write_file(folder / name)
    return folder


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_is_complete_with_all_of_its_files_only(tmp_path, layout):
    checkpoint = write_checkpoint(tmp_path, layout)
    assert checkpoint_problem(checkpoint) is None
    needed = set(COMMON) | set(LAYOUTS[layout])
    # Any process of a DeepSpeed run may have a random state; a shard of FSDP belongs to its `.metadata`.
    needed -= {"pytorch_model_fsdp_0/0.distcp", "optimizer_0/0.distcp"}
    needed -= {"rng_state_1.pth"} if layout in {"DeepSpeed", "full FSDP", "sharded FSDP"} else set()
    needed -= {"rng_state_0.pth"} if layout == "DeepSpeed" else set()
    needed -= {"rng_state_2.pth"} if layout == "three processes" else set()
    needed -= {"global_step5/mp_rank_00_model_states.pt"}
    needed -= {"model.safetensors.index.json"}
    for name in needed:
        content = (checkpoint / name).read_bytes()
        (checkpoint / name).unlink()
        assert checkpoint_problem(checkpoint) is not None, name
        (checkpoint / name).write_bytes(content)
    assert checkpoint_problem(checkpoint) is None


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_file_that_is_cut_off_is_named(tmp_path, layout):
    checkpoint = write_checkpoint(tmp_path, layout)
    for name in (*COMMON, *LAYOUTS[layout]):
        if Path(name).suffix not in {".json", ".pt", ".pth", ".bin", ".safetensors"}:
            continue
        content = (checkpoint / name).read_bytes()
        (checkpoint / name).write_bytes(content[:-1])
        assert checkpoint_problem(checkpoint) == f"{Path(name).name} is cut off"
        (checkpoint / name).write_bytes(content)


def test_folder_of_deepspeed_that_does_not_exist_is_named(tmp_path):
    checkpoint = write_checkpoint(tmp_path, "DeepSpeed")
    (checkpoint / "latest").write_text("global_step6")
    assert checkpoint_problem(checkpoint) == "global_step6 is missing"


@pytest.mark.parametrize(
    "name", ["weighting.pt", "streams_1_of_2.json", "rng_state_1.pth", "scheduler.pt", "scaler.pt"]
)
def test_listed_files_are_needed(tmp_path, name):
    own = ("recipe.yaml", "weighting.pt", "streams_0_of_2.json", "streams_1_of_2.json")
    processes = ("rng_state_0.pth", "rng_state_1.pth")
    for each in (*own, *processes):
        write_file(tmp_path / each)
    list_files(tmp_path, has_scheduler=True, has_scaler=True)
    for each in (*COMMON, "model.safetensors", "optimizer.pt", "scheduler.pt", "scaler.pt"):
        assert checkpoint_problem(tmp_path) is not None
        write_file(tmp_path / each)
    assert checkpoint_problem(tmp_path) is None
    (tmp_path / name).unlink()
    assert checkpoint_problem(tmp_path) == f"{name} is missing"


DEEP = "[" * 100_000 + "]" * 100_000

WRONG_NAMES: tuple[object, ...] = (
    5,
    None,
    ["x"],
    "",
    ".",
    "..",
    "../x",
    "/x",
    "a/b",
    "a\\b",
    "a\nb",
    "\ud800",
    "a" * 300,
)


@pytest.mark.parametrize(
    "content",
    [5, None, [], "x", {}, {"files": 5}, {"files": {}}, {"files": []}]
    + [{"files": ["recipe.yaml", name]} for name in WRONG_NAMES],
    ids=lambda content: f"{content!r:.60}",
)
def test_damaged_list_of_files_makes_a_checkpoint_incomplete(tmp_path, content):
    checkpoint = write_checkpoint(tmp_path, "one process")
    (checkpoint / "checkpoint_files.json").write_text(json.dumps(content))
    assert checkpoint_problem(checkpoint) == "checkpoint_files.json is damaged"


@pytest.mark.parametrize(
    "content",
    [5, None, [], {}, {"weight_map": 5}, {"weight_map": ["x"]}] + [{"weight_map": {"a": name}} for name in WRONG_NAMES],
    ids=lambda content: f"{content!r:.60}",
)
def test_damaged_index_makes_a_checkpoint_incomplete(tmp_path, content):
    checkpoint = write_checkpoint(tmp_path, "a large model")
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(content))
    assert checkpoint_problem(checkpoint) == "model.safetensors.index.json is damaged"


@pytest.mark.parametrize("name", ["checkpoint_files.json", "model.safetensors.index.json", "config.json"])
def test_deeply_nested_file_makes_a_checkpoint_incomplete(tmp_path, name):
    checkpoint = write_checkpoint(tmp_path, "a large model")
    (checkpoint / name).write_text(DEEP)
    assert checkpoint_problem(checkpoint) == f"{name} is damaged"


@pytest.mark.parametrize("content", [b"", b"..", b"../global_step5", b"/", b"\xff", b"a\nb", b"a" * 300])
def test_damaged_name_of_the_folder_of_deepspeed_makes_a_checkpoint_incomplete(tmp_path, content):
    checkpoint = write_checkpoint(tmp_path, "DeepSpeed")
    (checkpoint / "latest").write_bytes(content)
    assert checkpoint_problem(checkpoint) in {"latest is damaged", "\ufffd is missing"}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_folders_instead_of_files_make_a_checkpoint_incomplete(tmp_path, layout):
    checkpoint = write_checkpoint(tmp_path, layout)
    names = {*COMMON, "scheduler.pt", "rng_state.pth", "rng_state_0.pth", "latest", "model-1-of-2.safetensors"}
    for name in names & {path.name for path in checkpoint.iterdir()}:
        content = (checkpoint / name).read_bytes()
        (checkpoint / name).unlink()
        (checkpoint / name).mkdir()
        assert checkpoint_problem(checkpoint) == f"{name} is missing" or (name, layout) == (
            "rng_state_0.pth", "DeepSpeed"
        )  # fmt: skip
        (checkpoint / name).rmdir()
        (checkpoint / name).write_bytes(content)


@pytest.mark.parametrize("name", ["rng_state_x.pth", "rng_state_.pth", "rng_state_-1.pth", "rng_state_9999999999.pth"])
def test_random_states_with_a_strange_name_are_not_counted(tmp_path, name):
    checkpoint = write_checkpoint(tmp_path, "three processes")
    write_file(checkpoint / name)
    assert checkpoint_problem(checkpoint) is None


def test_random_state_with_a_high_number_needs_the_others(tmp_path):
    checkpoint = write_checkpoint(tmp_path, "three processes")
    write_file(checkpoint / "rng_state_999999999.pth")
    assert checkpoint_problem(checkpoint) == "rng_state_3.pth is missing"


def test_copies_without_a_step_are_not_considered(tmp_path):
    write_checkpoint(tmp_path / "checkpoint-3", "one process")
    for name in ("checkpoint-best", "checkpoint-9-old", "checkpoint-"):
        write_checkpoint(tmp_path / name, "one process")
    assert last_checkpoint(tmp_path) == (tmp_path / "checkpoint-3", [])


def test_the_last_checkpoint_is_described_in_one_sentence(tmp_path):
    assert (
        describe_last_checkpoint(tmp_path / "none")
        == f"There is no complete checkpoint in {tmp_path}/none. Start the run again."
    )
    write_checkpoint(tmp_path / "checkpoint-3", "one process")
    write_checkpoint(tmp_path / "checkpoint-6", "one process")
    (tmp_path / "checkpoint-6" / "optimizer.pt").unlink()
    expected = f"The last complete checkpoint is {tmp_path}/checkpoint-3. To continue, add --resume."
    assert describe_last_checkpoint(tmp_path) == expected
    (tmp_path / "checkpoint-3" / "optimizer.pt").unlink()
    flaw = "it has no optimizer state; was it saved with save_only_model?"
    assert describe_last_checkpoint(tmp_path) == (
        f"There is no complete checkpoint in {tmp_path}: checkpoint-6 is incomplete ({flaw}); checkpoint-3 is "
        f"incomplete ({flaw}). Start the run again."
    )


def test_checkpoints_are_checked_without_torch(tmp_path):
    write_checkpoint(tmp_path / "checkpoint-3", "a large model")
    code = (
        f"import sys, pathlib; from mtl_nlp.training.completeness import last_checkpoint; "
        f"print(last_checkpoint(pathlib.Path({str(tmp_path)!r})).path.name, 'torch' in sys.modules)"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout == "checkpoint-3 False\n"
