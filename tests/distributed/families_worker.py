"""Train every family for two steps in one of several processes: `families_worker.py TOKENIZER FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from families import FAMILIES, build_family
from toy_splits import TASKS
from train_worker import train_on_the_mixture


def main(folder: str) -> None:
    torch.set_num_threads(1)
    found = {}
    for family in FAMILIES:
        print(family, file=sys.stderr, flush=True)  # the last family on stderr is the one that failed
        model = build_family(family, TASKS.values(), std=0.02)
        run = train_on_the_mixture(folder, 16, {}, model, max_steps=2)
        without = [name for name in run["gradients"][0] if all(step[name] is None for step in run["gradients"])]
        found[family] = {
            "wrapped": run["wrapped"],
            "find_unused_parameters": run["find_unused_parameters"],
            "losses": [entry["loss"] for entry in run["logs"]],
            "without_gradient": without,
            "weights": {name: run["weights"][-1][name] for name in run["gradients"][0]},  # without I-BERT's ranges
            "moved": any(not torch.equal(run["start"][name], weight) for name, weight in run["weights"][-1].items()),
        }
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    torch.save(found, Path(folder) / f"rank{rank}.pt")


if __name__ == "__main__":
    main(sys.argv[2])
