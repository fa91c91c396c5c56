"""The headers shared by host and device, csrc/basis, against the reference; bound by csrc/testing/bind.cpp."""

import math
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastkan.basis.base import sigmoid_derivative
from fastkan.basis.bspline import bspline_features

shared = pytest.importorskip("fastkan_testing", reason="not built: `make test` builds it")

EPS = {"f32": torch.finfo(torch.float32).eps, "f64": sys.float_info.epsilon}
ORDERS = [(degree, order) for degree in range(6) for order in range(degree + 1)]


def window(x: float, knots: list[float], degree: int, order: int) -> tuple[torch.Tensor, float]:
    """The K + 1 functions of the middle knot span of 2K + 2 knots, and a bound of the summands."""
    grid = torch.tensor([knots], dtype=torch.float64)
    value = bspline_features(torch.tensor([[x]], dtype=torch.float64), grid, degree, "zero", order)[0, 0]
    narrowest = min(b - a for a, b in zip(knots, knots[1:], strict=False))
    return value, math.factorial(degree) * (2 / narrowest) ** order


@pytest.mark.sweep
@pytest.mark.parametrize("kind", EPS)
@pytest.mark.parametrize("degree,order", ORDERS)
@given(u=st.floats(0, 1, exclude_max=True))
def test_uniform_functions(kind, degree, order, u):
    if kind == "f32":
        u = min(float(torch.tensor(u, dtype=torch.float32)), 1 - EPS["f32"])
    knots = [float(k - degree) for k in range(2 * degree + 2)]
    expected, size = window(u, knots, degree, order)
    found = getattr(shared, f"uniform_functions_{kind}")(degree, order, u)
    assert found == pytest.approx(expected.tolist(), rel=0, abs=16 * EPS[kind] * size)


@pytest.mark.sweep
@pytest.mark.parametrize("kind", EPS)
@pytest.mark.parametrize("degree,order", ORDERS)
@given(steps=st.lists(st.floats(0.1, 2), min_size=11, max_size=11), u=st.floats(0, 0.99))
def test_functions_on_any_knots(kind, degree, order, steps, u):
    knots = [sum(steps[:k]) for k in range(2 * degree + 2)]
    x = knots[degree] + u * (knots[degree + 1] - knots[degree])
    expected, size = window(x, knots, degree, order)
    found = getattr(shared, f"local_functions_{kind}")(degree, order, x, knots[1 : 2 * degree + 1])
    assert found == pytest.approx(expected.tolist(), rel=0, abs=64 * EPS[kind] * size)


@pytest.mark.parametrize("order", range(12))
def test_sigmoid_polynomials(order):
    assert shared.sigmoid_polynomial(order) == sigmoid_derivative(order)


@given(st.floats(-80, 80))
def test_exponential(x):
    assert shared.exponential_f64(x) == pytest.approx(math.exp(x), rel=4 * EPS["f64"])
    single = float(torch.tensor(x, dtype=torch.float32))
    assert shared.exponential_f32(single) == pytest.approx(math.exp(single), rel=4 * EPS["f32"])
