"""Count how often `mtl-nlp affinity` groups two related tasks and leaves a task without sense out.

    MTL_NLP_DATA=… MINILM=… python scripts/check_affinity.py --seeds 0 1 2 3 4 5 6 7 8 9

The mixture has 800 sentences of English-EWT with three tasks: the part of speech (UPOS), a coarser part of speech made
from it, and a genre whose labels are shuffled, so that no task can help it and it can help no task. Each seed draws the
sentences, shuffles the genres, and seeds the training, whose settings are those of recipes/ewt.yaml. A seed succeeds if
one group is exactly the two parts of speech, and serves both of them; the shuffled genre is then in no group with
them, except that a group that serves the genre alone may have a helper. The script counts both: with and without such
a helper.

Every finished seed adds one line to --output. A second call measures only the missing seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
from pathlib import Path
from typing import Any

import mtl_nlp
from mtl_nlp.cli.options import quiet_libraries

ROWS, VALIDATION_ROWS = 800, 300
STEPS = 100
"""The steps of the recipe's four epochs: equal in every seed, whatever else the machine does."""

COARSE = {
    **dict.fromkeys(("NOUN", "PROPN", "PRON", "NUM"), "NOMINAL"),
    **dict.fromkeys(("VERB", "AUX"), "VERBAL"),
    **dict.fromkeys(("ADJ", "ADV", "INTJ"), "MODIFIER"),
}
"""UPOS -> the coarser part of speech; all others are FUNCTION."""

RELATED, SHUFFLED = ("upos", "coarse"), "genre"


def write_rows(source: Path, target: Path, count: int, seed: int) -> None:
    """Write drawn sentences with the three labels, of which the genres are shuffled."""
    lines = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    chance = random.Random(seed)
    rows = chance.sample(lines, count)
    genres = [row["genre"] for row in rows]
    chance.shuffle(genres)
    with target.open("w", encoding="utf-8") as file:
        for row, genre in zip(rows, genres, strict=True):
            coarse = [COARSE.get(tag, "FUNCTION") for tag in row["upos"]]
            file.write(json.dumps({"tokens": row["tokens"], "upos": row["upos"], "coarse": coarse, "genre": genre}))
            file.write("\n")


def recipe_in(folder: Path, seed: int) -> dict[str, Any]:
    """Write the rows of a seed, and return the recipe of the mixture."""
    data = Path(os.environ["MTL_NLP_DATA"]) / "ewt_multitask"
    write_rows(data / "train.jsonl", folder / "train.jsonl", ROWS, seed)
    write_rows(data / "dev.jsonl", folder / "validation.jsonl", VALIDATION_ROWS, seed)
    return {
        "encoder": os.environ["MINILM"],
        "output_dir": str(folder / "run"),
        "tasks": {
            "upos": {"type": "token-classification"},
            "coarse": {"type": "token-classification"},
            "genre": {"type": "text-classification"},
        },
        "datasets": {
            "ewt": {
                "path": "json",
                "data_files": {split: str(folder / f"{split}.jsonl") for split in ("train", "validation")},
                "inputs": {"tokens": "tokens"},
                "labels": {"upos": "upos", "coarse": "coarse", "genre": "genre"},
            }
        },
        "training": {
            "num_train_epochs": 4,
            "learning_rate": 1.0e-4,
            "head_learning_rate": 5.0e-4,
            "per_device_train_batch_size": 32,
            "seed": seed,
        },
    }


def measure(seed: int, *, pairwise: bool) -> dict[str, Any]:
    """Measure the affinities of the mixture of a seed, and return a line of the output."""
    with tempfile.TemporaryDirectory() as name:
        found = mtl_nlp.affinity(recipe_in(Path(name), seed), pairwise=pairwise, steps=STEPS, report=print)
    groups = found.groups
    is_grouped = any(set(group["tasks"]) == set(group["serves"]) == set(RELATED) for group in groups)
    is_alone = all(group["tasks"] == [SHUFFLED] for group in groups if SHUFFLED in group["tasks"])
    kept = ("effects", "own", "cosines", "groupings", "measured", "seconds")
    details = {key: found.content[key] for key in kept if key in found.content}
    return {"seed": seed, "grouped": is_grouped, "alone": is_grouped and is_alone, "groups": groups, **details}


def main() -> None:
    """Measure the missing seeds, and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--pairwise", action="store_true", help="train pairs instead of looking ahead")
    parser.add_argument("--output", type=Path, default=Path("runs/check_affinity.jsonl"))
    options = parser.parse_args()
    quiet_libraries()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.touch()
    lines = [json.loads(line) for line in options.output.read_text(encoding="utf-8").splitlines()]
    done = {line["seed"]: line for line in lines}
    for seed in options.seeds:
        if seed not in done:
            done[seed] = measure(seed, pairwise=options.pairwise)
            with options.output.open("a", encoding="utf-8") as file:
                file.write(json.dumps(done[seed]) + "\n")
        print(f"seed {seed}: {' | '.join(', '.join(group['tasks']) for group in done[seed]['groups'])}", flush=True)
    found = [done[seed] for seed in options.seeds]
    print(f"the related tasks are one group in {sum(line['grouped'] for line in found)} of {len(found)} seeds")
    print(f"and the shuffled task has no helper in {sum(line['alone'] for line in found)} of {len(found)} seeds")


if __name__ == "__main__":
    main()
