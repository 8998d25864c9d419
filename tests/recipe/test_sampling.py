from __future__ import annotations

import pytest

from mtl_nlp.recipe.sampling import check_sampling

INF = float("inf")


def check(**options):
    defaults = {"temperature": 1.0, "size_cap": None, "max_repeats": None, "probabilities": None}
    defaults |= {"batching": "mixed", "length_window": 100}
    check_sampling(["a", "b"], **{**defaults, **options})


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.1},
        {"temperature": 3},
        {"temperature": INF},
        {"temperature": [2.0]},
        {"temperature": [5, 1]},
        {"temperature": (0.5, 0.5)},
        {"temperature": [INF, INF]},
        {"temperature": 5.0, "size_cap": 1, "max_repeats": 1.0},
        {"probabilities": {"b": 0.25, "a": 0.75}},
        {"probabilities": {"b": 0.25, "a": 0.75}, "headroom": True},
        {"probabilities": {"a": 1 / 3, "b": 0.6666667}, "temperature": [1, 1]},
    ],
)
def test_valid_combinations_are_accepted(options):
    check(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0}, r"`temperature` should be above 0, or two such values\. Found 0\.$"),
        ({"temperature": -1.5}, r"`temperature` should be above 0.*Found -1\.5"),
        ({"temperature": float("nan")}, r"`temperature` should be above 0.*Found nan"),
        ({"temperature": [1.0, 0.0]}, r"`temperature` should be above 0.*Found \[1\.0, 0\.0\]"),
        ({"temperature": [1, 2, 3]}, r"`temperature` .* two such values\. Found \[1, 2, 3\]"),
        ({"temperature": []}, r"`temperature` .* two such values\. Found \[\]"),
        ({"temperature": [1.0, INF]}, r"`temperature` can only move between finite values\. Found \[1\.0, inf\]"),
        ({"temperature": [INF, 1.0]}, r"`temperature` can only move between finite values"),
        ({"size_cap": 0}, r"`size_cap` should be at least 1\. Found 0"),
        ({"max_repeats": 0.5}, r"`max_repeats` should be at least 1: .* would not fill an epoch\. Found 0\.5"),
        ({"max_repeats": float("nan")}, r"`max_repeats` should be at least 1"),
        ({"batching": "mixd"}, r"`batching` should be mixed or homogeneous\. Found 'mixd'"),
        ({"length_window": 0}, r"`length_window` should be at least 1\. Found 0"),
        (
            {"probabilities": {"a": 0.5, "b": 0.3, "c": 0.2}},
            r"`probabilities` names 'c', .*not a dataset.*Valid: a, b\.",
        ),
        ({"probabilities": {"a": 1.0}}, r"`probabilities` should name every dataset\. 'b' is missing"),
        ({"probabilities": {}}, r"`probabilities` should name every dataset\. 'a' is missing"),
        ({"probabilities": {"a": 0.5, "b": 0.4}}, r"`probabilities` should sum to 1\. Found 0\.9\.$"),
        (
            {"probabilities": {"a": 1.0, "b": 0.0}},
            r"`probabilities` should be above 0 and at most 1\. Found 0\.0 for 'b'",
        ),
        (
            {"probabilities": {"a": 1.5, "b": -0.5}},
            r"`probabilities` should be above 0 and at most 1\. Found 1\.5 for 'a'",
        ),
        (
            {"probabilities": {"a": float("nan"), "b": 0.5}},
            r"`probabilities` should be above 0 and at most 1\. Found nan for 'a'",
        ),
    ],
)
def test_values_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        check(**options)


@pytest.mark.parametrize("other", [{"temperature": 2.0}, {"temperature": [1, 2]}, {"size_cap": 9}, {"max_repeats": 2}])
def test_probabilities_exclude_other_settings(other):
    with pytest.raises(ValueError, match="`probabilities` cannot be combined with `temperature`, `size_cap`"):
        check(probabilities={"a": 0.5, "b": 0.5}, **other)
