"""Basis families other than B-splines: formulas, derivatives, kernels."""

import itertools

import numpy as np
import pytest
import torch
from numpy.polynomial import chebyshev

from fastkan import BackendError, reference, select
from fastkan.basis.chebyshev import chebyshev_features
from fastkan.basis.rbf import rbf_features
from fastkan.functional import edge_mean, kan_linear
from fastkan.testing import CONTRACTIONS, assert_matches_reference, call
from support.backends import skip_if_missing
from support.calculus import derivatives
from support.families import ALL, FEATURES, OUTSIDE_OF, drawn, family_problem
from support.family_tests import (  # noqa: F401
    test_gaussians_have_the_error_of_their_argument,
    test_native_far_from_the_grid,
    test_native_reads_any_strides_and_empty_batches,
)
from support.problems import DOUBLE, SINGLE, operator_arguments
from support.tiers import long


def test_gaussians_match_fast_kan():
    """Centres linspace(a, b, F), width their distance: ZiyaoLi/fast-kan's RadialBasisFunction."""
    x = torch.linspace(-3, 3, 50, dtype=DOUBLE)
    centres = torch.linspace(-2, 2, 8, dtype=DOUBLE)
    h = 4 / 7
    grid = torch.linspace(-2 - h / 2, 2 + h / 2, 9, dtype=DOUBLE)
    expected = torch.exp(-(((x[:, None] - centres) / h) ** 2))
    torch.testing.assert_close(rbf_features(x[:, None], grid[None])[:, 0], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("order", range(4))
@pytest.mark.parametrize("functions", [1, 2, 3, 7])
def test_chebyshev_matches_numpy(functions, order):
    x = torch.linspace(0.5, 2.5, 41, dtype=DOUBLE)
    grid = torch.linspace(0.5, 2.5, functions + 1, dtype=DOUBLE)
    found = chebyshev_features(x[:, None], grid[None], order)[:, 0]
    for f in range(functions):
        series = chebyshev.Chebyshev(np.eye(functions)[f], domain=[0.5, 2.5])
        expected = torch.as_tensor((series.deriv(order) if order else series)(x.numpy()))
        torch.testing.assert_close(found[:, f], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", ALL)
def test_derivatives_match_autograd(family):
    grid = torch.linspace(-1, 1, 7, dtype=DOUBLE)[None]
    x = torch.linspace(-1.5, 1.5, 23, dtype=DOUBLE)[:, None].requires_grad_()
    values = ALL[family](x, grid)
    for f in range(6):
        slope = values[:, 0, f]
        for order in range(1, 5):
            (grad,) = torch.autograd.grad(slope.sum(), x, create_graph=True)
            slope = grad[:, 0]
            expected = ALL[family](x, grid, order)[:, 0, f]
            torch.testing.assert_close(slope, expected, rtol=1e-8, atol=1e-6)


@pytest.mark.parametrize("family", ALL)
def test_nan_and_infinity(family):
    x = torch.tensor([[torch.nan], [torch.inf], [-torch.inf], [0.1]], dtype=DOUBLE)
    for order in range(4):
        phi = ALL[family](x, torch.linspace(-1, 1, 6, dtype=DOUBLE)[None], order)
        assert phi[0].isnan().all() and phi[1:].isfinite().all()


@pytest.mark.parametrize("order", [0, 1, *long(2)])
@pytest.mark.parametrize("family", FEATURES)
def test_triton_matches_the_reference(interpreted, family, order):
    skip_if_missing("triton", family)
    for base, weighted, dtype in ("silu", False, DOUBLE), (None, True, DOUBLE), ("silu", True, SINGLE):
        p = family_problem(family, base=base, weighted=weighted, dtype=dtype, order=order, per_input=weighted)
        scale = 1e-11 if dtype == DOUBLE else 1e-4
        for contraction in CONTRACTIONS:
            found, expected = call(select.BACKENDS["triton"], contraction, p), call(reference, contraction, p)
            for got, want in zip(found, expected, strict=True):
                torch.testing.assert_close(got, want, rtol=scale, atol=scale * float(want.abs().max() + 1))


# Numbers of functions of one window, of several, of more than are not zero at an x in float32, and in float64.
FUNCTIONS = {"rbf": (1, 2, 6, 7, 8, 13, 20, 21, 54, 90), "chebyshev": (1, 2, 6, 7, 13)}
SHAPES = ((1, 1, 1), (33, 17, 65), (257, 5, 130), (600, 3, 6), (20, 3, 300))


@pytest.mark.parametrize("order", [0, 1, 2, 5])
@pytest.mark.parametrize("family", FEATURES)
def test_native_matches_the_reference(native, family, order):
    skip_if_missing("native", family)
    for p in drawn(family, order, FUNCTIONS[family], SHAPES):
        for contraction in CONTRACTIONS:
            assert_matches_reference(native, contraction, p)


def test_opcheck(native):
    p = family_problem("rbf", functions=8, weighted=True)
    for contraction in CONTRACTIONS:
        torch.library.opcheck(getattr(torch.ops.fastkan, contraction).default, operator_arguments(contraction, p))


@pytest.mark.parametrize("shape", [(257, 3, 300), (1000, 40, 33), (3, 300, 7), (8192, 2, 1)], ids=str)
def test_native_repeats_bit_for_bit_at_any_number_of_threads(native, shape, threads):
    for contraction, functions in itertools.product(CONTRACTIONS, (8, 50)):
        p = family_problem("rbf", *shape, functions=functions, weighted=True, dtype=SINGLE)
        results = []
        for count in (1, 2, 3):
            threads(count)
            results.append(call(native, contraction, p))
        for other in results[1:]:
            assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("backend", ["native", "triton"])
@pytest.mark.parametrize("family,functions", [("rbf", 6), ("rbf", 40), ("chebyshev", 8)])
def test_nans_match_the_reference(backend, family, functions):
    skip_if_missing(backend)
    for contraction in CONTRACTIONS:
        p = family_problem(family, functions=functions, dtype=SINGLE, weighted=True)
        p.x[3, 2] = torch.nan
        for got, want in zip(
            call(select.BACKENDS[backend], contraction, p), call(reference, contraction, p), strict=True
        ):
            assert got.isnan().any() and torch.equal(got.isnan(), want.isnan())


KERNELS, PLAIN = ("native", "triton"), ("reference", "dense")


@pytest.mark.parametrize("family,backend", [(f, b) for f in ALL for b in (*PLAIN, *(KERNELS if f in FEATURES else ()))])
def test_a_layer_and_its_gradients(family, backend):
    skip_if_missing(backend, family)
    p = family_problem(family, functions=3 if backend == "triton" else 8)
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


def test_the_automatic_choice_on_a_cpu_is_native(native, calls):
    p = family_problem("rbf")
    kan_linear(p.x, p.coef, p.grid, degree=0, uniform=True, family="rbf")
    assert calls["native"] and not calls["reference"]


def test_the_automatic_choice_passes_over_backends_without_the_family(by_python, calls, monkeypatch):
    p = family_problem("rbf")
    monkeypatch.setattr(select.BACKENDS["native"], "missing", lambda *args: "no Gaussians")
    kan_linear(p.x, p.coef, p.grid, degree=0, uniform=True, family="rbf")
    assert calls["dense"] and not calls["native"]
    with pytest.raises(BackendError, match="backend='native' cannot run here: no Gaussians"):
        kan_linear(p.x, p.coef, p.grid, degree=0, uniform=True, family="rbf", backend="native")
