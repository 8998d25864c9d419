"""The numeric fields of a recipe with their ranges, and the values of a recipe that are outside of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, get_args, get_type_hints

from mtl_nlp.run.arguments import NOT_IN_RECIPES, RESERVED
from mtl_nlp.training import ranges as arguments
from mtl_nlp.training.arguments import MultitaskTrainingArguments

LARGEST = 3.4028234e38
"""The largest number of float32, rounded down."""


class Range(NamedTuple):
    """The valid values of a numeric field.

    Attributes:
        low: the smallest value.
        high: the largest value; infinity if there is no largest finite value.
        above: whether `low` itself is outside.
        below: whether `high` itself is outside. Infinity is inside if `high` is infinite and `below` is false.
        whole: whether the field has whole numbers only.
        steps: whether numbers above 1 are whole, since they count steps, and smaller ones are a share of all steps.
        extra: a value outside of the range with a meaning of its own, such as -1 for "not set".
        needs: dotted key -> value of everything that a recipe needs for the field to be valid.
    """

    low: float
    high: float = math.inf
    above: bool = False
    below: bool = True
    whole: bool = False
    steps: bool = False
    extra: float | None = None
    needs: Mapping[str, Any] = {}

    def holds(self, value: Any) -> bool:
        """Return whether a value as YAML reads it is a number in the range. A text may hold a number, such as 1e-4."""
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            return False
        try:
            number = value if isinstance(value, int) else float(value)
        except ValueError:
            return False
        if number == self.extra:
            return True
        if (self.whole or (self.steps and number > 1)) and not (isinstance(number, int) or number.is_integer()):
            return False
        is_high_enough = number > self.low if self.above else number >= self.low
        return is_high_enough and (number < self.high if self.below else number <= self.high)

    def ends(self) -> tuple[list[float], list[float]]:
        """Return values at the ends of the range: those just inside of it, and those just outside of it."""
        if self.whole:
            inside, outside = [int(self.low)], [int(self.low) - 1, self.low + 0.5]
            inside += [int(self.high)] if math.isfinite(self.high) else []
            outside += [int(self.high) + 1] if math.isfinite(self.high) else [math.inf]
        else:
            after, before = math.nextafter(self.low, math.inf), math.nextafter(self.low, -math.inf)
            inside, outside = [after if self.above else self.low], [self.low if self.above else before]
            inside += [math.nextafter(self.high, 0.0) if self.below else self.high]
            outside += [self.high if self.below else math.nextafter(self.high, math.inf)]
            outside += [1.5] if self.steps else []
        outside = [value for value in outside if value != self.extra and value not in inside]
        inside += [] if self.extra is None else [self.extra]
        return inside, [*outside, math.nan]


def whole(low: int, high: float = math.inf, **options: Any) -> Range:
    """Return a range of whole numbers, with both ends."""
    return Range(low, high, below=math.isinf(high), whole=True, **options)


COUNT = whole(1)
RATE = Range(0.0, LARGEST, below=False)
POSITIVE = Range(0.0, above=True)
NOT_NEGATIVE = Range(0.0)
SHARE = Range(0.0, 1.0, below=True)
FACTOR = Range(0.0, 1.0, below=False)

_STREAM = {"datasets.texts.streaming": True}
_ADAPTERS = {"adapters.shared": True}


def _weighting(name: str) -> dict[str, Any]:
    return {"loss.weighting": name}


def _gradients(name: str) -> dict[str, Any]:
    return {"loss.gradients": name}


RECIPE_RANGES: dict[str, Range] = {
    "max_length": whole(8),
    "stride": whole(0),
    "datasets.*.num_rows": COUNT._replace(needs=_STREAM),
    "datasets.*.buffer_size": COUNT._replace(needs=_STREAM),
    "datasets.*.validation_size": POSITIVE,
    "datasets.*.test_size": POSITIVE,
    "datasets.*.max_rows.*": COUNT,
    "mixture.temperature": Range(0.0, above=True, below=False),
    "mixture.size_cap": COUNT,
    "mixture.max_repeats": Range(1.0, below=False),
    "mixture.probabilities.*": Range(0.0, 1.0, above=True, below=False),
    "mixture.length_window": COUNT,
    "loss.weights.*": RATE,
    "loss.freeze_when_overfit.patience": COUNT._replace(needs={"training.eval_strategy": "epoch"}),
    "loss.every": COUNT._replace(needs=_gradients("pcgrad")),
    "adapters.r": COUNT._replace(needs=_ADAPTERS),
    "adapters.alpha": COUNT._replace(needs=_ADAPTERS),
    "adapters.dropout": SHARE._replace(needs=_ADAPTERS),
    "adapters.pull": RATE._replace(needs={"adapters.tasks": "all"}),
    "analysis.conflict_every": COUNT,
    "tasks.*.focal": NOT_NEGATIVE,
    "tasks.*.class_weights.*": NOT_NEGATIVE,
    "tasks.*.pos_weight.*": NOT_NEGATIVE,
    "tasks.*.threshold": Range(0.0, 1.0, above=True),
    "tasks.*.head.hidden_layers": whole(1, 100),
    "tasks.*.head.dropout": SHARE._replace(needs={"tasks.topic.head.hidden_layers": 1}),
}
"""Dotted key -> range of each numeric field of a recipe, except for training arguments and methods; `*` is any name."""

METHOD_RANGES: dict[str, Range] = {
    "loss.weighting_kwargs.temperature": POSITIVE._replace(needs=_weighting("dwa")),
    "loss.weighting_kwargs.seed": whole(0)._replace(needs=_weighting("random")),
    "loss.weighting_kwargs.alpha": NOT_NEGATIVE._replace(needs=_weighting("gradnorm")),
    "loss.weighting_kwargs.mu": POSITIVE._replace(needs=_weighting("stch")),
    "loss.weighting_kwargs.steps": COUNT._replace(needs=_weighting("equal-start")),
    "loss.weighting_kwargs.learning_rate": POSITIVE._replace(needs=_weighting("uncertainty")),
    "loss.weighting_kwargs.weight_decay": NOT_NEGATIVE._replace(needs=_weighting("famo")),
    "loss.gradients_kwargs.beta": FACTOR._replace(needs=_gradients("gradvac")),
    "loss.gradients_kwargs.c": NOT_NEGATIVE._replace(needs=_gradients("cagrad")),
    "loss.gradients_kwargs.max_norm": NOT_NEGATIVE._replace(needs=_gradients("nash-mtl")),
    "loss.gradients_kwargs.optim_niter": COUNT._replace(needs=_gradients("nash-mtl")),
    "loss.gradients_kwargs.epsilon": Range(1e-12)._replace(needs=_gradients("mgda")),
    "loss.gradients_kwargs.max_iters": COUNT._replace(needs=_gradients("mgda")),
    "loss.gradients_kwargs.leak": FACTOR._replace(needs=_gradients("graddrop")),
}
"""Dotted key -> range of each parameter of the methods that weight losses or combine gradients."""

_WORKERS = {"training.dataloader_num_workers": 1}
_STEPWISE = {"training.eval_strategy": "steps", "training.eval_steps": 1}
_BEST = {
    **_STEPWISE,
    "training.save_strategy": "steps",
    "training.save_steps": 1,
    "training.load_best_model_at_end": True,
}
_NEEDS: dict[str, dict[str, Any]] = {
    "eval_steps": {"training.eval_strategy": "steps"},
    "dataloader_prefetch_factor": _WORKERS,
    "early_stopping_patience": _BEST,
    "warmup_steps": {"training.max_steps": -1},
    "adapter_learning_rate": _ADAPTERS,
}


def _of_training() -> Iterator[tuple[str, Range]]:
    """Yield the training arguments that a recipe can set, with their ranges in the code."""
    types = get_type_hints(MultitaskTrainingArguments)
    for key in arguments.RANGES.keys() - RESERVED.keys() - NOT_IN_RECIPES.keys():
        found = arguments.RANGES[key]
        yield (
            key,
            Range(
                found.least,
                found.most,
                above=found.without_least,
                below=found.without_most,
                whole=int in (types[key], *get_args(types[key])),
                steps=found.counts_steps,
                extra=found.also,
                needs=_NEEDS.get(key, {}),
            ),
        )


TRAINING_RANGES = dict(sorted(_of_training()))
"""Training argument -> its range, for each numeric argument that a recipe can set."""

RANGES = {**RECIPE_RANGES, **METHOD_RANGES, **{f"training.{key}": each for key, each in TRAINING_RANGES.items()}}
_TRAININGS = ("training", "baselines.training", "baselines.tasks.*.training")


def range_of(place: str) -> Range | None:
    """Return the range of a dotted key of a recipe; None for a field without numbers."""
    steps = place.split(".")
    for section in _TRAININGS:
        if len(steps) == section.count(".") + 2 and _matches(section, steps[:-1]):
            return TRAINING_RANGES.get(steps[-1])
    return next((each for pattern, each in RANGES.items() if _matches(pattern, steps)), None)


def senseless(recipe: Any) -> Iterator[str]:
    """Yield each number of a recipe that is outside of the range of its field, with its dotted key."""
    for place, value in _leaves(recipe, ()):
        found = range_of(place)
        if found is None or value is None:
            continue
        for number in value if isinstance(value, list) else [value]:
            is_word = isinstance(number, str) and not _is_number(number)  # such as `balanced` or `tuned`
            if not is_word and not found.holds(number):
                yield f"{place}: {number!r:.60}"


def _leaves(tree: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _leaves(value, (*path, str(key).replace(".", "_")))
    else:
        yield ".".join(path), tree


def _matches(pattern: str, steps: list[str]) -> bool:
    expected = pattern.split(".")
    return len(expected) == len(steps) and all(a in ("*", b) for a, b in zip(expected, steps, strict=True))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
