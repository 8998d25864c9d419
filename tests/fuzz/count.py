"""Count what damaged input does: `python tests/fuzz/count.py recipe --number 2000`.

The script prints the first case of every failure, and at the end the number of cases per kind of failure: tracebacks,
hangs, crashes, messages of several lines, writing outside of the output folder, connections, code that ran, …. Equal
seeds give equal cases. The exit code is 0 if nothing failed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from cases import CASES, Bench, Result  # noqa: E402
from hypothesis import HealthCheck, Phase, given, seed, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from hypothesis.strategies import DataObject  # noqa: E402
from originals import build_originals  # noqa: E402
from sandbox import Sandbox, Violation  # noqa: E402


class Counts:
    """The failures of all cases so far."""

    def __init__(self) -> None:
        self.cases = 0
        self.statuses: Counter[int] = Counter()
        self.kinds: Counter[str] = Counter()
        self.causes: Counter[str] = Counter()

    def add(self, result: Result) -> None:
        """Count a case, and print it if its failure is new."""
        self.cases += 1
        self.statuses[result.outcome.finished.status] += 1
        self.kinds.update({violation.kind for violation in result.outcome.violations})
        for violation in result.outcome.violations:
            cause = _cause(violation)
            if cause not in self.causes:
                print(f"[{self.cases}] {violation}\n    {result.what}", flush=True)
            self.causes[cause] += 1

    def show(self, seconds: float) -> None:
        """Print the counts."""
        statuses = ", ".join(f"{number} × {status}" for status, number in sorted(self.statuses.items()))
        print(f"\n{self.cases} cases in {seconds:.0f} s. Exit codes: {statuses}.")
        for cause, number in self.causes.most_common():
            print(f"{number:6}  {cause}")
        kinds = {"traceback": 0, "hang": 0, "crash": 0, "message": 0, **self.kinds}
        print(", ".join(f"{kind}: {number}" for kind, number in kinds.items()))


def _cause(violation: Violation) -> str:
    """Return the part of a violation that is equal for equal causes."""
    return f"{violation.kind}: {violation.detail.split(': ')[0]:.150}"


def _count(
    counts: Counts,
    case: Callable[[Bench], Result],
    sandbox: Sandbox,
    originals: Mapping[str, Path],
    data: DataObject,
) -> None:
    counts.add(case(Bench(data, sandbox, originals)))


def _repeat(each: Callable[[DataObject], None], number: int, seed_value: int) -> None:
    """Call a function with different data, a given number of times."""

    @seed(seed_value)
    @settings(
        max_examples=number,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def repeated(data: DataObject) -> None:
        each(data)

    repeated()


def main() -> int:
    """Run the cases and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", help=f"of {', '.join(CASES)} (default: model encoder checkpoint)")
    parser.add_argument("--number", type=int, default=2000, help="of cases in all (default: 2000)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    counts, start = Counts(), time.monotonic()
    kinds = options.kinds or ["model", "encoder", "checkpoint"]
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        sandbox = Sandbox(Path(folder))
        originals = build_originals(sandbox)
        for kind in kinds:
            each = partial(_count, counts, CASES[kind], sandbox, originals)
            _repeat(each, -(-options.number // len(kinds)), options.seed)
        sandbox.close()
    counts.show(time.monotonic() - start)
    return int(bool(counts.kinds))


if __name__ == "__main__":
    sys.exit(main())
