from __future__ import annotations

import sys

import pytest
import torch
from gradient_references import references

from mtl_nlp.balancing.gradient_methods import GRADIENT_METHODS, build_gradient_method
from mtl_nlp.balancing.gradients import GradientMethod
from mtl_nlp.errors import RecipeError

TASKS = ["a", "b", "c"]

REFERENCES = references(3)

pytestmark = pytest.mark.filterwarnings("ignore:You are solving a parameterized problem that is not DPP")  # torchjd


def gradients_of(seed: int, scale: float = 1.0) -> torch.Tensor:
    """Return three gradients, of which the first and the second conflict."""
    gradients = torch.randn(3, 40, generator=torch.Generator().manual_seed(seed))
    gradients[1] -= 0.7 * gradients[0]
    return scale * gradients


def combined(method: GradientMethod, gradients: torch.Tensor, rows: list[int] | None = None, seed: int = 0):
    rows = list(range(len(gradients))) if rows is None else rows
    return method.combine(gradients, gradients @ gradients.T, rows, seed=seed)


def test_every_method_has_a_reference():
    assert REFERENCES.keys() == GRADIENT_METHODS.keys()


@pytest.mark.parametrize("name", REFERENCES)
def test_method_equals_the_aggregator_of_torchjd_over_several_steps(name):
    make, factor = REFERENCES[name]
    method, reference = build_gradient_method(name, TASKS, {}), make()
    for step in range(4):
        gradients = gradients_of(step)
        torch.manual_seed(step)
        expected = factor * reference(gradients)
        assert (combined(method, gradients, seed=step) - expected).norm() <= 1e-6 * expected.norm()


@pytest.mark.parametrize("name", sorted(REFERENCES.keys() - {"nash-mtl"}))
def test_equal_gradients_give_their_sum(name):
    gradients = gradients_of(0)[:1].expand(3, -1)
    found = combined(build_gradient_method(name, TASKS, {}), gradients)
    torch.testing.assert_close(found, gradients.sum(dim=0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-6, 1e4])
@pytest.mark.parametrize("name", sorted(REFERENCES.keys() - {"nash-mtl"}))
def test_scale_of_the_gradients_is_that_of_the_update(name, scale):
    small, plain = (combined(build_gradient_method(name, TASKS, {}), gradients_of(1, s)) for s in (scale, 1.0))
    assert plain.any()
    torch.testing.assert_close(small / scale, plain, rtol=1e-3, atol=1e-4)


def test_nash_mtl_solves_the_bargaining_problem_and_limits_the_norm():
    gradients = gradients_of(0)
    update = combined(build_gradient_method("nash-mtl", TASKS, {"max_norm": 0}), gradients)
    alpha = torch.linalg.lstsq(gradients.T, update).solution
    torch.testing.assert_close(alpha * (gradients @ update), torch.ones(3), rtol=0.02, atol=0.0)
    assert update.norm().item() == pytest.approx(3**0.5, rel=0.02)
    limited = combined(build_gradient_method("nash-mtl", TASKS, {}), gradients)
    torch.testing.assert_close(limited, update / update.norm())


@pytest.mark.parametrize("name", REFERENCES)
def test_tasks_without_rows_or_gradient_are_left_out(name):
    pair = build_gradient_method(name, ["a", "c"], {})
    for step in range(3):
        gradients = gradients_of(step)[[0, 2]] - 0.5
        expected = combined(pair, gradients, seed=step)
        if step == 0:
            without, zero = (build_gradient_method(name, TASKS, {}) for _ in range(2))
        torch.testing.assert_close(combined(without, gradients, [0, 2], seed=step), expected)
        with_zero = torch.stack([gradients[0], torch.zeros(40), gradients[1]])
        torch.testing.assert_close(combined(zero, with_zero, seed=step), expected)


@pytest.mark.parametrize("name", REFERENCES)
def test_single_gradient_stays_as_it_is_and_one_that_is_not_finite_reaches_the_update(name):
    method = build_gradient_method(name, TASKS, {})
    gradients = gradients_of(0)
    assert torch.equal(combined(method, gradients[:1], [1]), gradients[0])
    assert not combined(method, gradients.index_fill(1, torch.tensor([3]), torch.inf)).isfinite().all()
    before = build_gradient_method(name, TASKS, {}).state_dict()
    assert all(torch.equal(value, before[key]) for key, value in method.state_dict().items())


@pytest.mark.parametrize("name", REFERENCES)
def test_random_numbers_depend_on_the_seed_alone_and_global_ones_do_not_move(name):
    state = torch.get_rng_state()
    torch.manual_seed(3)
    first = combined(build_gradient_method(name, TASKS, {}), gradients_of(0), seed=7)
    torch.manual_seed(4)
    before = torch.get_rng_state()
    assert torch.equal(combined(build_gradient_method(name, TASKS, {}), gradients_of(0), seed=7), first)
    assert torch.equal(torch.get_rng_state(), before)
    torch.set_rng_state(state)


@pytest.mark.parametrize("name", ["gradvac", "nash-mtl"])
def test_loaded_state_continues_to_the_last_bit(name):
    whole, resumed = (build_gradient_method(name, TASKS, {}) for _ in range(2))
    for step in range(2):
        combined(whole, gradients_of(step), seed=step)
    resumed.load_state_dict({key: value.clone() for key, value in whole.state_dict().items()})
    for step in range(2, 5):
        found = [combined(each, gradients_of(step), seed=step) for each in (whole, resumed)]
        assert torch.equal(*found)


@pytest.mark.parametrize("name", ["pcgrad", "cagrad", "upgrad", "graddrop"])
def test_other_methods_have_no_state(name):
    assert not build_gradient_method(name, TASKS, {}).state_dict()


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("pcgrad", {"x": 1}, "loss.gradients_kwargs.x: pcgrad has no such parameter. pcgrad has no parameters."),
        ("cagrad", {"d": 1}, "loss.gradients_kwargs.d: cagrad has no such parameter. Valid: c."),
        ("cagrad", {"c": -1}, "loss.gradients_kwargs.c: should be a number of at least 0. Found -1."),
        ("cagrad", {"c": float("nan")}, "loss.gradients_kwargs.c: should be a number of at least 0. Found nan."),
        ("gradvac", {"beta": "a"}, "loss.gradients_kwargs.beta: should be a number from 0 to 1. Found 'a'."),
        ("mgda", {"max_iters": 1.5}, "loss.gradients_kwargs.max_iters: should be an integer of at least 1. Found 1.5."),
        (
            "aligned-mtl",
            {"scale_mode": "max"},
            "loss.gradients_kwargs.scale_mode: should be one of min, median, rmse. Found 'max'.",
        ),
    ],
)
def test_parameters_that_are_not_valid_are_refused_in_one_line(name, kwargs, message):
    with pytest.raises(RecipeError) as raised:
        build_gradient_method(name, TASKS, kwargs)
    assert str(raised.value) == message


def test_method_for_one_task_is_refused():
    with pytest.raises(RecipeError, match=r"^loss\.gradients: pcgrad combines the gradients of several tasks"):
        build_gradient_method("pcgrad", ["a"], {})


@pytest.mark.parametrize(("name", "missing"), [("pcgrad", "torchjd.aggregation"), ("cagrad", "clarabel")])
def test_missing_package_is_named(monkeypatch, name, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(RecipeError) as raised:
        build_gradient_method(name, TASKS, {})
    assert str(raised.value).startswith(f"loss.gradients: {name} needs torchjd and its solvers: pip install ")
    assert 'pip install "mtl_nlp[balancing]"' in str(raised.value)


def test_leak_lets_all_signs_through():
    gradients = gradients_of(0)
    found = combined(build_gradient_method("graddrop", TASKS, {"leak": 1.0}), gradients)
    torch.testing.assert_close(found, gradients.sum(dim=0))
