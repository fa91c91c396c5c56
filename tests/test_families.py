"""Basis families beside B-splines: their formulas, their derivatives, and the kernels that serve them."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.polynomial import chebyshev
from test_autograd import derivatives

from fastkan import BackendError, reference, select
from fastkan.basis.chebyshev import chebyshev_features
from fastkan.basis.rbf import rbf_features
from fastkan.functional import edge_mean, kan_linear
from fastkan.spec import FAMILIES
from fastkan.testing import CONTRACTIONS, Problem, call

DOUBLE, SINGLE, BRAIN = torch.float64, torch.float32, torch.bfloat16
OUTSIDE_OF = {"rbf": "zero", "chebyshev": "clamp"}
FEATURES = {"rbf": rbf_features, "chebyshev": chebyshev_features}


def problem(family: str, *, functions: int = 6, dtype: torch.dtype = DOUBLE, order: int = 0, **kwargs) -> Problem:
    """As Problem.random, its grid's F + 1 knots from about -1 to 1 and x reaching beyond them."""
    p = Problem.random(
        9, 3, 4, functions, 0, knots="promised", outside=OUTSIDE_OF[family], dtype=dtype, order=order, **kwargs
    )
    return replace(p, spec=p.spec._replace(family=FAMILIES.index(family)))


def test_gaussians_are_fastkans():
    """Centres linspace(a, b, F), width their distance: ZiyaoLi/fast-kan's RadialBasisFunction."""
    x = torch.linspace(-3, 3, 50, dtype=DOUBLE)
    centres = torch.linspace(-2, 2, 8, dtype=DOUBLE)
    h = 4 / 7
    grid = torch.linspace(-2 - h / 2, 2 + h / 2, 9, dtype=DOUBLE)
    expected = torch.exp(-(((x[:, None] - centres) / h) ** 2))
    torch.testing.assert_close(rbf_features(x[:, None], grid[None])[:, 0], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("order", range(4))
@pytest.mark.parametrize("functions", [1, 2, 3, 7])
def test_chebyshev_is_numpys(functions, order):
    x = torch.linspace(0.5, 2.5, 41, dtype=DOUBLE)
    grid = torch.linspace(0.5, 2.5, functions + 1, dtype=DOUBLE)
    found = chebyshev_features(x[:, None], grid[None], order)[:, 0]
    for f in range(functions):
        series = chebyshev.Chebyshev(np.eye(functions)[f], domain=[0.5, 2.5])
        expected = torch.as_tensor((series.deriv(order) if order else series)(x.numpy()))
        torch.testing.assert_close(found[:, f], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", FEATURES)
def test_derivatives_are_autograds(family):
    grid = torch.linspace(-1, 1, 7, dtype=DOUBLE)[None]
    x = torch.linspace(-1.5, 1.5, 23, dtype=DOUBLE)[:, None].requires_grad_()
    values = FEATURES[family](x, grid)
    for f in range(6):
        slope = values[:, 0, f]
        for order in range(1, 5):
            (grad,) = torch.autograd.grad(slope.sum(), x, create_graph=True)
            slope = grad[:, 0]
            expected = FEATURES[family](x, grid, order)[:, 0, f]
            torch.testing.assert_close(slope, expected, rtol=1e-8, atol=1e-6)


@pytest.mark.parametrize("family", FEATURES)
def test_nan_and_infinity(family):
    x = torch.tensor([[torch.nan], [torch.inf], [-torch.inf], [0.1]], dtype=DOUBLE)
    for order in range(4):
        phi = FEATURES[family](x, torch.linspace(-1, 1, 6, dtype=DOUBLE)[None], order)
        assert phi[0].isnan().all() and phi[1:].isfinite().all()


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("family", FEATURES)
def test_triton_is_the_reference(interpreted, family, order):
    for base, weighted, dtype in itertools.product(("silu", None), (False, True), (DOUBLE, SINGLE)):
        p = problem(family, base=base, weighted=weighted, dtype=dtype, order=order, per_input=weighted)
        scale = 1e-11 if dtype == DOUBLE else 1e-4
        for contraction in CONTRACTIONS:
            found, expected = call(select.BACKENDS["triton"], contraction, p), call(reference, contraction, p)
            for got, want in zip(found, expected, strict=True):
                torch.testing.assert_close(got, want, rtol=scale, atol=scale * float(want.abs().max() + 1))


@pytest.mark.parametrize("family", FEATURES)
def test_triton_puts_a_nan_where_the_reference_does(interpreted, family):
    for contraction in CONTRACTIONS:
        p = problem(family, dtype=SINGLE, weighted=True)
        p.x[3, 2] = torch.nan
        for got, want in zip(
            call(select.BACKENDS["triton"], contraction, p), call(reference, contraction, p), strict=True
        ):
            assert got.isnan().any() and torch.equal(got.isnan(), want.isnan())


@pytest.mark.parametrize("backend", ["reference", "triton"])
@pytest.mark.parametrize("family", FEATURES)
def test_a_layer_and_its_gradients(interpreted, family, backend):
    p = problem(family, functions=3)
    tensors = {name: getattr(p, name).clone().requires_grad_() for name in ("x", "coef", "base_weight", "bias")}

    def layer(x, coef, base_weight, bias):
        return kan_linear(
            x, coef, p.grid, base_weight, bias, degree=0, outside=OUTSIDE_OF[family], uniform=True, family=family,
            backend=backend,
        )  # fmt: skip

    def plain(x, coef, base_weight, bias):
        return reference.kan_out(x, None, coef, base_weight, bias, p.grid, p.spec, 0)

    for got, want in zip(derivatives(layer, tensors, 2), derivatives(plain, tensors, 2), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-8 * float(want.abs().max() + 1))
    options = {"degree": 0, "outside": OUTSIDE_OF[family], "uniform": True, "family": family}
    mean = edge_mean(p.x, p.coef, p.grid, p.base_weight, backend=backend, **options)
    torch.testing.assert_close(mean, call(reference, "edge_moments", p)[0][0], rtol=1e-10, atol=1e-10)


def test_the_automatic_choice_passes_over_backends_without_the_family(calls):
    p = problem("rbf")
    kan_linear(p.x, p.coef, p.grid, degree=0, uniform=True, family="rbf")
    assert calls["reference"] and not calls["native"]
    with pytest.raises(BackendError, match="backend='native' cannot run here"):
        kan_linear(p.x, p.coef, p.grid, degree=0, uniform=True, family="rbf", backend="native")
