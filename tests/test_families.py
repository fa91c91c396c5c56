"""Basis families beside B-splines: their formulas, their derivatives, and the kernels that serve them."""

import itertools
import random
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import skip_if_missing
from numpy.polynomial import chebyshev
from test_autograd import derivatives
from test_ops import operator_arguments

from fastkan import BackendError, reference, select
from fastkan.basis.chebyshev import chebyshev_features
from fastkan.basis.rbf import rbf_features
from fastkan.functional import edge_mean, kan_linear
from fastkan.spec import FAMILIES, Spec
from fastkan.testing import CONTRACTIONS, Problem, assert_matches_reference, assert_within, call

DOUBLE, SINGLE, BRAIN, HALF = torch.float64, torch.float32, torch.bfloat16, torch.float16
OUTSIDE_OF = {"rbf": "zero", "chebyshev": "clamp"}
FEATURES = {"rbf": rbf_features, "chebyshev": chebyshev_features}


def problem(family: str, *shape: int, functions: int = 6, dtype: torch.dtype = DOUBLE, **kwargs) -> Problem:
    """As Problem.random, its grid's F + 1 knots from about -1 to 1 and x reaching beyond them."""
    shape = shape or (9, 3, 4)
    p = Problem.random(*shape, functions, 0, knots="promised", outside=OUTSIDE_OF[family], dtype=dtype, **kwargs)
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


# Numbers of functions of one window, of several, of more than are not zero at an x in float32, and in float64.
FUNCTIONS = {"rbf": (1, 2, 6, 7, 8, 13, 20, 21, 54, 90), "chebyshev": (1, 2, 6, 7, 13)}
SHAPES = ((1, 1, 1), (33, 17, 65), (257, 5, 130), (600, 3, 6), (20, 3, 300))


def drawn(family: str, order: int, counts: tuple[int, ...], shapes: tuple) -> Iterator[Problem]:
    """One of each number of functions and dtype, the other factors drawn."""
    draw = random.Random(order)
    for functions, dtype in itertools.product(counts, (DOUBLE, SINGLE, BRAIN, HALF)):
        options = {name: draw.choice((False, True)) for name in ("weighted", "per_input", "with_bias")}
        options["base"] = draw.choice((None, "silu", "identity"))
        options["order"] = min(order, 1) if dtype.itemsize == 2 else order
        yield problem(family, *draw.choice(shapes), functions=functions, dtype=dtype, seed=functions, **options)


@pytest.mark.parametrize("order", [0, 1, 2, 5])
@pytest.mark.parametrize("family", FEATURES)
def test_native_is_the_reference(native, family, order):
    for p in drawn(family, order, FUNCTIONS[family], SHAPES):
        for contraction in CONTRACTIONS:
            assert_matches_reference(native, contraction, p)


@pytest.mark.parametrize("dtype", [DOUBLE, SINGLE], ids=str)
def test_gaussians_have_the_error_of_their_argument(native, dtype):
    """Relative, over the whole range of the type: exp(-t^2) takes t with two roundings, and its own are eight."""
    grid, eps = torch.linspace(-1.0, 1.0, 9, dtype=DOUBLE)[None], torch.finfo(dtype).eps
    x = torch.linspace(-6, 6, 20001, dtype=dtype)[:, None]
    coef = torch.eye(8, dtype=dtype)[None]  # outputs are functions
    found = native.kan_out(x, None, coef, None, None, grid, Spec.of(0, "zero", "zero", True, "rbf"), 0).double()
    t = (x.double() + 1) * 4 - torch.arange(8) - 0.5
    truth = torch.exp(-t * t)
    assert_within(found, truth, (4 * t * t + 8) * eps * truth + 2 * torch.finfo(dtype).tiny)
    assert (found[t.abs() > 30] == 0).all()


def test_opcheck(native):
    p = problem("rbf", functions=8, weighted=True)
    for contraction in CONTRACTIONS:
        torch.library.opcheck(getattr(torch.ops.fastkan, contraction).default, operator_arguments(contraction, p))


@pytest.mark.parametrize("shape", [(257, 3, 300), (1000, 40, 33), (3, 300, 7), (8192, 2, 1)], ids=str)
def test_native_repeats_bit_for_bit_at_any_number_of_threads(native, shape, threads):
    for contraction, functions in itertools.product(CONTRACTIONS, (8, 50)):
        p = problem("rbf", *shape, functions=functions, weighted=True, dtype=SINGLE)
        results = []
        for count in (1, 2, 3):
            threads(count)
            results.append(call(native, contraction, p))
        for other in results[1:]:
            assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_native_reads_any_strides_and_empty_batches(native):
    p = problem("rbf", 30, 5, 7, functions=9, weighted=True)
    other = replace(
        p, x=p.x.t().contiguous().t(), u=p.u.repeat_interleave(2, 1)[:, ::2], s=p.s[:1].expand(30, -1),
        coef=p.coef.permute(2, 0, 1).contiguous().permute(1, 2, 0), grid=p.grid[:1].expand(5, -1),
    )  # fmt: skip
    for contraction in CONTRACTIONS:
        assert_matches_reference(native, contraction, other)
        empty = replace(p, x=p.x[:0], u=p.u[:0], s=p.s[:0])
        for got, want in zip(call(native, contraction, empty), call(reference, contraction, empty), strict=True):
            assert got.shape == want.shape and torch.equal(got.nan_to_num(7), want.nan_to_num(7))


@pytest.mark.parametrize("dtype", [DOUBLE, SINGLE, BRAIN], ids=str)
def test_native_far_from_the_grid(native, dtype):
    p = problem("rbf", 6, 2, 3, functions=40, base=None, with_bias=False, dtype=dtype)
    p.x[:] = torch.tensor([torch.inf, -torch.inf, 1e30, -1e30, 1e4, -50.0])[:, None]
    for order, contraction in itertools.product((0, 1, 3), CONTRACTIONS):
        for found in call(native, contraction, replace(p, order=order, terms=p.terms * 0)):
            assert torch.equal(found, torch.zeros_like(found))


@pytest.mark.parametrize("backend", ["native", "triton"])
@pytest.mark.parametrize("family,functions", [("rbf", 6), ("rbf", 40), ("chebyshev", 8)])
def test_a_nan_is_where_the_reference_has_it(backend, family, functions):
    skip_if_missing(backend)
    for contraction in CONTRACTIONS:
        p = problem(family, functions=functions, dtype=SINGLE, weighted=True)
        p.x[3, 2] = torch.nan
        for got, want in zip(
            call(select.BACKENDS[backend], contraction, p), call(reference, contraction, p), strict=True
        ):
            assert got.isnan().any() and torch.equal(got.isnan(), want.isnan())


@pytest.mark.parametrize("backend", ["reference", "native", "triton"])
@pytest.mark.parametrize("family", FEATURES)
def test_a_layer_and_its_gradients(family, backend):
    skip_if_missing(backend)
    p = problem(family, functions=3 if backend == "triton" else 8)
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
    p = problem("rbf")
    kan_linear(p.x, p.coef, p.grid, degree=0, uniform=True, family="rbf")
    assert calls["native"] and not calls["reference"]


def test_the_automatic_choice_passes_over_backends_without_the_family(calls, monkeypatch):
    p = problem("rbf")
    monkeypatch.setattr(select.BACKENDS["native"], "missing", lambda *args: "no Gaussians")
    kan_linear(p.x, p.coef, p.grid, degree=0, uniform=True, family="rbf")
    assert calls["reference"] and not calls["native"]
    with pytest.raises(BackendError, match="backend='native' cannot run here: no Gaussians"):
        kan_linear(p.x, p.coef, p.grid, degree=0, uniform=True, family="rbf", backend="native")
