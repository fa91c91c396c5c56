"""csrc/basis/knots.h and window.h, the GPU's evaluation, against the reference; bound by csrc/testing/window.h."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastkan.basis.bspline import OUTSIDE, bspline_features, uniform_knots

shared = pytest.importorskip("fastkan_testing", reason="not built: `make test` builds it")

EPS = {"f32": torch.finfo(torch.float32).eps, "f64": torch.finfo(torch.float64).eps}
ends = st.tuples(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3)).map(lambda e: (e[0], e[0] + e[1]))


@given(ends=ends, intervals=st.integers(1, 2000))
def test_uniform_knots_match_the_reference_bit_for_bit(ends, intervals):
    expected = uniform_knots(*ends, intervals, 0).tolist()
    assert shared.uniform_knots([ends[0], *[math.nan] * (intervals - 1), ends[1]]) == expected


def dense(x: float, row: list[float], degree: int, outside: int, uniform: bool, order: int, kind: str, fixed: bool):
    """All F functions at x, expanded from the window."""
    start, weights = getattr(shared, f"window_{kind}")(x, row, degree, outside, uniform, order, fixed)
    functions = len(row) - degree - 1
    assert 0 <= start <= functions - degree - 1
    return [0.0] * start + weights + [0.0] * (functions - degree - 1 - start)


def reference(x: float, row: list[float], degree: int, outside: int, order: int) -> torch.Tensor:
    grid = torch.tensor([row], dtype=torch.float64)
    return bspline_features(torch.tensor([[x]], dtype=torch.float64), grid, degree, OUTSIDE[outside], order)[0, 0]


@pytest.mark.sweep
@pytest.mark.parametrize("kind", EPS)
@pytest.mark.parametrize("outside", range(3), ids=OUTSIDE)
@pytest.mark.parametrize("degree", range(6))
@given(
    order=st.integers(0, 6), grid_size=st.integers(1, 40), place=st.floats(-0.7, 1.7), uniform=st.booleans(),
    fixed=st.booleans(), steps=st.lists(st.floats(0.3, 1.7), min_size=50, max_size=50),
)  # fmt: skip
def test_windows(kind, outside, degree, order, grid_size, place, uniform, fixed, steps):
    knots = grid_size + 2 * degree + 1
    row = [float(j) for j in range(knots)] if uniform else [sum(steps[:j]) for j in range(knots)]
    x = row[degree] + place * (row[-degree - 1] - row[degree])
    if kind == "f32":
        x = float(torch.tensor(x, dtype=torch.float32))
    near = min(abs(x - t) for t in row)
    if near < 1e-4 and near > 0:  # rounding decides on which side of a knot it is
        return
    if uniform:
        row = uniform_knots(row[0], row[-1], knots - 1, 0).tolist()
    found = dense(x, row, degree, outside, uniform, order, kind, fixed)
    size = math.factorial(degree) * (2 / 0.3) ** min(order, degree) * max(1.0, abs(x))
    expected = reference(x, row, degree, outside, order).tolist()
    assert found == pytest.approx(expected, rel=0, abs=100 * EPS[kind] * size)


def without_a_branch(x: float, row: list[float], degree: int, outside: int, order: int, usual: bool) -> list[float]:
    """All F functions at x, by csrc/basis/uniform.h."""
    begin, weights = shared.uniform_window_f32(x, row, degree, outside, order, usual)
    found = [0.0] * (len(row) - degree - 1)
    for f, weight in enumerate(weights, begin):
        if 0 <= f < len(found):
            found[f] = weight
    return found


places = st.one_of(st.floats(-0.7, 1.7), st.sampled_from([math.nan, math.inf, -math.inf]))


@pytest.mark.parametrize("outside", range(3), ids=OUTSIDE)
@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("degree", [2, 3])
@given(grid_size=st.integers(1, 60), place=places)
def test_windows_without_a_branch(outside, order, degree, grid_size, place):
    """All but clamp's slope are continuous, so it matters little on which side of a knot x is."""
    if math.isinf(place) and OUTSIDE[outside] == "linear":
        return  # infinite where there is a slope
    row = uniform_knots(-degree, grid_size + degree, grid_size + 2 * degree, 0).tolist()
    x = float(torch.tensor(place * grid_size, dtype=torch.float32))
    expected = reference(x, row, degree, outside, order).tolist()
    size = 6 * max(1.0, abs(x) if math.isfinite(x) else 0.0)  # of what is rounded: the coordinate, times slopes of
    # at most 1, and what goes on outside
    found = without_a_branch(x, row, degree, outside, order, False)
    assert found == pytest.approx(expected, rel=0, abs=10 * EPS["f32"] * size, nan_ok=True)


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("degree", [2, 3])
@given(grid_size=st.integers(1, 53), place=places, low=st.floats(-4, 4), width=st.floats(0.1, 10))
def test_usual_windows(order, degree, grid_size, place, low, width):
    """An error of the coordinate of some units of rounding per interval, times slopes of at most 1, 2 of a slope."""
    low, high = (float(torch.tensor(end, dtype=torch.float32)) for end in (low, low + width))
    row = uniform_knots(low, high, grid_size, degree).tolist()
    x = float(torch.tensor(low + place * (high - low), dtype=torch.float32))
    expected = reference(x, row, degree, 0, order).tolist()
    per_step = len(row) / (row[-1] - row[0])
    rounded = len(row) + per_step * max(map(abs, (row[0], row[-1])))
    found = without_a_branch(x, row, degree, 0, order, True)
    assert found == pytest.approx(expected, rel=0, abs=4 * EPS["f32"] * rounded * per_step**order, nan_ok=True)
    if math.isinf(x):
        assert found == [0.0] * len(found)


@pytest.mark.parametrize("kind", EPS)
@pytest.mark.parametrize("outside", range(3), ids=OUTSIDE)
@pytest.mark.parametrize("uniform", [False, True])
def test_knots_nan_and_infinity(kind, outside, uniform):
    for degree in range(6):
        row = [j / 4 for j in range(6 + 2 * degree + 1)]
        for order in range(degree + 2):
            for x in (*row, -math.inf, math.inf):
                if math.isinf(x) and OUTSIDE[outside] == "linear" and order == 0:
                    continue  # infinite where there is a slope
                found = dense(x, row, degree, outside, uniform, order, kind, True)
                expected = reference(x, row, degree, outside, order).tolist()
                assert found == pytest.approx(expected, rel=0, abs=1e-3 if kind == "f32" else 1e-10), (degree, order, x)
            start, weights = getattr(shared, f"window_{kind}")(math.nan, row, degree, outside, uniform, order, True)
            assert start == 0 and all(math.isnan(w) for w in weights)


@pytest.mark.parametrize("grid_size", [10, 1000, 100_000])
def test_the_coordinate_is_exact_at_any_grid_size(grid_size):
    """float32 to the rounding of its own values, where a plain coordinate loses as many digits as G has."""
    row = uniform_knots(-1.0, 1.0, grid_size, 3).tolist()
    ends_of_row = [row[0], *[math.nan] * (len(row) - 2), row[-1]]
    compared = 0
    for k in range(200):
        x = float(torch.tensor(-1 + 2 * (k + 0.3713) / 200, dtype=torch.float32))
        start, found = shared.window_f32(x, ends_of_row, 3, 0, True, 0, True)
        again, expected = shared.window_f64(x, ends_of_row, 3, 0, True, 0, True)
        if start == again:
            compared += 1
            assert found == pytest.approx(expected, rel=0, abs=4 * EPS["f32"])
    assert compared == 200
