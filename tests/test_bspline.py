"""B-spline basis functions against scipy.interpolate.BSpline: values and derivatives, every degree, any knots and x."""

import numpy as np
import pytest
import torch

from fastkan import reference
from fastkan.basis.base import BASES, base_feature
from fastkan.basis.bspline import num_functions, uniform_knots
from fastkan.spec import Spec
from fastkan.testing import absolute_features, assert_within
from support.problems import scipy_features

DEGREES = range(6)
EPS = torch.finfo(torch.float64).eps


def knots(kind: str, degree: int) -> np.ndarray:
    if kind == "uniform":
        return uniform_knots(-1.0, 2.0, 7, degree).numpy()
    if kind == "one interval":
        return uniform_knots(0.0, 0.5, 1, degree).numpy()
    random = np.random.default_rng(degree)
    uneven = np.cumsum(random.uniform(0.05, 1.0, 6 + 2 * degree + 1)) - 3.0
    if kind == "repeated":  # a double knot inside, full multiplicity at both ends
        uneven[degree + 2] = uneven[degree + 3]
        uneven[:degree], uneven[len(uneven) - degree :] = uneven[degree], uneven[-degree - 1]
    return uneven


def places(t: np.ndarray, degree: int) -> np.ndarray:
    """Points inside, on every knot and a rounding beside it, in the tail and beyond the last knot."""
    dense = np.linspace(t[0] - 1.0, t[-1] + 1.0, 211)
    return np.concatenate([dense, t, np.nextafter(t, np.inf), np.nextafter(t, -np.inf), (t[1:] + t[:-1]) / 2])


def features(x: np.ndarray, t: np.ndarray, degree: int, order: int = 0, outside: str = "zero", uniform: bool = False):
    """[N, F] by the package, and how far off it may be: 64 roundings of the absolute terms, 4 of the coordinate."""
    spec = Spec.of(degree, "zero", outside, uniform)
    column, grid = torch.as_tensor(x)[:, None], torch.as_tensor(t)[None]
    reach = float(np.abs(t).max() + np.abs(x[np.isfinite(x)]).max(initial=0.0))
    allowed = 64 * EPS * absolute_features(column, grid, spec, order, False)
    allowed = allowed + 4 * EPS * reach * absolute_features(column, grid, spec, order + 1, False, flat_from=order)
    return reference.features(column, grid, spec, order, False)[:, 0], allowed[:, 0]


def assert_features(x, t, degree, expected, order=0, outside="zero", uniform=False) -> None:
    found, allowed = features(x, t, degree, order, outside, uniform)
    assert_within(found, torch.as_tensor(expected), allowed, f"degree {degree}, order {order}, {outside}")


@pytest.mark.parametrize("kind", ["uniform", "one interval", "uneven", "repeated"])
@pytest.mark.parametrize("degree", DEGREES)
def test_values_and_derivatives_match_scipy(degree, kind):
    t = knots(kind, degree)
    x = places(t, degree)
    for order in range(degree + 2):
        assert_features(x, t, degree, scipy_features(x, t, degree, order), order)


@pytest.mark.parametrize("degree", DEGREES)
def test_the_promise_of_uniform_knots_changes_nothing(degree):
    t = knots("uniform", degree)
    x = (t[1:] + t[:-1]) / 2
    for order in range(degree + 2):
        assert_features(x, t, degree, scipy_features(x, t, degree, order), order, uniform=True)


def test_a_promise_of_uniform_knots_reads_the_end_knots_only():
    t = knots("uniform", 3)
    x = np.linspace(-1.0, 2.0, 50)
    expected = features(x, t, 3, uniform=True)[0]
    t[1:-1] = np.nan
    spec = Spec.of(3, "zero", "zero", True)
    found = reference.features(torch.as_tensor(x)[:, None], torch.as_tensor(t)[None], spec, 0, False)
    assert torch.equal(found[:, 0], expected)


@pytest.mark.parametrize("outside", ["linear", "clamp"])
@pytest.mark.parametrize("kind", ["uniform", "uneven", "repeated"])
@pytest.mark.parametrize("degree", DEGREES)
def test_outside_modes_follow_their_formulas(degree, kind, outside):
    t = knots(kind, degree)
    x = places(t, degree)
    low, high = t[degree], t[len(t) - degree - 1]
    end = np.clip(x, low, high)
    beyond = (x != end)[:, None]
    value, slope = (scipy_features(end, t, degree, order) for order in (0, 1))
    for order in range(degree + 2):
        inner = scipy_features(end, t, degree, order)
        tail = {
            "linear": [value + (x - end)[:, None] * slope, slope],
            "clamp": [value],
        }[outside]
        expected = np.where(beyond, tail[order] if order < len(tail) else np.zeros_like(inner), inner)
        assert_features(x, t, degree, expected, order, outside)


@pytest.mark.parametrize("kind", ["uniform", "one interval", "uneven", "repeated"])
@pytest.mark.parametrize("degree", DEGREES)
def test_they_are_a_partition_of_unity_on_the_grid_range(degree, kind):
    t = knots(kind, degree)
    low, high = t[degree], t[len(t) - degree - 1]
    x = np.concatenate([np.linspace(low, high, 301)[1:-1], t[(t >= low) & (t <= high)]])
    found, allowed = features(x, t, degree)
    assert_within(found.sum(-1), torch.ones(len(x)).double(), allowed.sum(-1))
    assert (found >= 0).all()
    slope, allowed = features(x, t, degree, 1)
    assert_within(slope.sum(-1), torch.zeros(len(x)).double(), allowed.sum(-1) + EPS)


@pytest.mark.parametrize("degree", DEGREES)
def test_no_more_than_degree_plus_one_are_nonzero_and_they_are_neighbours(degree):
    t = knots("uneven", degree)
    found, _ = features(places(t, degree), t, degree)
    for row in found:
        (where,) = row.nonzero(as_tuple=True)
        assert len(where) == 0 or where[-1] - where[0] <= degree


@pytest.mark.parametrize("outside", ["zero", "linear", "clamp"])
@pytest.mark.parametrize("degree", DEGREES)
def test_nan_gives_nan_in_the_first_functions(degree, outside):
    t = knots("uneven", degree)
    for order in range(degree + 2):
        found, _ = features(np.array([np.nan, 0.0]), t, degree, order, outside)
        assert found[0, : degree + 1].isnan().all()
        assert (found[0, degree + 1 :] == 0).all()
        assert not found[1].isnan().any()


@pytest.mark.parametrize("degree", DEGREES)
def test_at_infinity_the_spline_is_zero_or_its_end(degree):
    t = knots("uneven", degree)
    x = np.array([-np.inf, np.inf])
    ends = np.array([t[degree], t[len(t) - degree - 1]])
    for order in range(degree + 2):
        assert (features(x, t, degree, order, "zero")[0] == 0).all()
        expected = scipy_features(ends, t, degree, 0) if order == 0 else np.zeros((2, len(t) - degree - 1))
        assert_within(features(x, t, degree, order, "clamp")[0], torch.as_tensor(expected), torch.tensor(64 * EPS))
    slope, allowed = features(ends, t, degree, 1, "linear")
    assert_within(features(x, t, degree, 1, "linear")[0], slope, allowed)


def test_grid_rows_are_independent():
    grid = torch.as_tensor(np.stack([knots("uneven", 3), np.linspace(-2, 2, 13)]))
    x = torch.linspace(-3, 3, 40, dtype=torch.float64)[:, None].expand(-1, 2)
    both = reference.features(x, grid, Spec.of(3, "zero", "zero", False), 0, False)
    for i in range(2):
        assert_features(x[:, i].numpy(), grid[i].numpy(), 3, both[:, i])


def test_features_are_float64_whatever_x_is():
    x = torch.rand(5, 2, dtype=torch.bfloat16)
    grid = uniform_knots(torch.zeros(2), 1.0, 4, 2)
    assert reference.features(x, grid, Spec.of(2, "silu", "zero", False), 0, True).dtype == torch.float64


def test_uniform_knots_are_equidistant_and_hit_the_range():
    t = uniform_knots(-1.0, 3.0, 8, 3)
    assert t.shape == (15,)
    assert num_functions(t, 3) == 11
    assert t[3] == -1 and t[-4] == 3
    assert torch.equal(t.diff(), torch.full((14,), 0.5, dtype=torch.float64))
    assert uniform_knots(torch.zeros(4), torch.arange(1, 5), 8, 3).shape == (4, 15)


@pytest.mark.parametrize("base", BASES)
def test_base_derivatives_match_autograd(base):
    function = {"silu": torch.nn.functional.silu, "identity": lambda v: v, "zero": torch.zeros_like}[base]
    x = torch.linspace(-8, 8, 101, dtype=torch.float64)
    for order in range(7):
        torch.testing.assert_close(base_feature(x, base, order), torch.func.vmap(function)(x), rtol=1e-11, atol=1e-11)
        function = torch.func.grad(function)
