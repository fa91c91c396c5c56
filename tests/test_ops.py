"""Every contraction of every backend against the reference, the reference against scipy; tolerances are derived."""

import ctypes
import itertools
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from fastkan import ops, reference, select
from fastkan.basis.base import BASES, base_feature
from fastkan.basis.bspline import OUTSIDE, bspline_features
from fastkan.testing import CONTRACTIONS, TF32, Problem, assert_matches_reference, assert_within, call
from support.contraction_tests import (  # noqa: F401
    test_native_at_infinity_matches_the_reference,
    test_native_edge_backward_with_absent_arguments,
    test_native_matches_the_reference,
    test_native_moments_of_nearly_constant_edges,
    test_native_nans_match_the_reference,
    test_native_on_empty_tensors,
    test_native_on_repeated_knots,
    test_native_on_the_knots,
    test_native_silu_far_below_zero,
)
from support.problems import BF16, CASES, DOUBLE, EMPTY, FACTORS, HALF, SINGLE, operator_arguments, scipy_features


def test_the_cases_hold_every_pair_of_values():
    for a, b in itertools.combinations(FACTORS, 2):
        seen = {(case[a], case[b]) for case in CASES}
        assert len(seen) == len(FACTORS[a]) * len(FACTORS[b]), (a, b)


@pytest.mark.parametrize("contraction", CONTRACTIONS)
@pytest.mark.parametrize("shape", EMPTY[:4], ids=str)
def test_reference_on_empty_tensors(contraction, shape):
    for base in (None, "silu"):
        p = Problem.random(*shape, 5, base=base, weighted=True)
        results = call(reference, contraction, p)
        of_nothing = torch.nan if contraction == "edge_moments" else 0.0  # the mean of no rows
        for got in results:
            whole = p.bias.expand(got.shape) if contraction == "kan_out" else torch.full_like(got, of_nothing)
            torch.testing.assert_close(got, whole, equal_nan=True)


# Moments and terms of edges.


@pytest.mark.parametrize("dtype", [DOUBLE, SINGLE], ids=str)
@pytest.mark.parametrize("outputs", [2, 20])
def test_native_moments_with_an_outlier_in_the_first_row(native, outputs, dtype):
    p = Problem.random(600, 3, outputs, 5, base="identity", outside="clamp", dtype=dtype)
    p.x[0] = 1e4
    assert_matches_reference(native, "edge_moments", p)


# The reference itself, against the formula on scipy's features.


def formula(contraction: str, p: Problem) -> tuple[torch.Tensor, ...]:
    inputs = range(p.x.shape[1])

    def phi(order: int) -> torch.Tensor:  # N I F+1
        columns = [scipy_features(p.x[:, i].numpy(), p.grid[i].numpy(), p.spec.degree, order) for i in inputs]
        splines = torch.as_tensor(np.stack(columns, 1))
        return torch.cat([splines, base_feature(p.x, BASES[p.spec.base], order)[..., None]], -1)

    s = torch.ones_like(p.x) if p.s is None else p.s
    weight = torch.cat([p.coef, p.base_weight[:, None]], 1)
    if contraction == "kan_out":
        return (torch.einsum("ni,nif,ifo->no", s, phi(p.order), weight) + p.bias,)
    if contraction == "kan_in":
        return (torch.einsum("nif,ifo,no->ni", phi(p.order), weight, p.u),)
    if contraction in ("kan_coef", "kan_backward"):
        grads = torch.einsum("ni,nif,no->ifo", s, phi(p.order), p.u)
        grad_x = (s * torch.einsum("nif,ifo,no->ni", phi(p.order + 1), weight, p.u),)
        return (grad_x if contraction == "kan_backward" else ()) + (grads[:, :-1], grads[:, -1])
    edges = torch.einsum("nif,ifo->nio", phi(0), weight)
    if contraction == "edge_moments":
        return (torch.stack([edges.abs().mean(0), edges.mean(0), edges.var(0, correction=0)]),)
    u = p.u[:, None] + p.terms[0] * edges.sign() + p.terms[1] + p.terms[2] * edges
    grads = torch.einsum("nif,nio->ifo", phi(0), u)
    return torch.einsum("nif,ifo,nio->ni", phi(1), weight, u), grads[:, :-1], grads[:, -1]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("degree", FACTORS["degree"])
@pytest.mark.parametrize("contraction", CONTRACTIONS)
def test_reference_matches_the_formula(contraction, degree, weighted, monkeypatch):
    monkeypatch.setattr(reference, "BLOCK", 1000)  # several blocks of rows
    for order in range(degree + 1):
        p = Problem.random(
            70, 4, 5, 6, degree, order=order, knots="uneven", per_input=True, weighted=weighted, dtype=DOUBLE
        )
        for got, expected in zip(call(reference, contraction, p), formula(contraction, p), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))


# The tolerances themselves: they let float32 arithmetic pass and nothing coarser.


def imitation(dtype: torch.dtype, monkeypatch) -> ModuleType:
    """The reference with its features evaluated in another dtype, as a kernel would."""

    def features(x, grid, spec, order, with_base):
        phi = bspline_features(x.to(dtype), grid.to(dtype), spec.degree, OUTSIDE[spec.outside], order)
        return torch.cat([phi, base_feature(x.to(dtype), BASES[spec.base], order)[..., None]], -1) if with_base else phi

    def function(contraction):
        def run(*args):
            with monkeypatch.context() as patch:
                patch.setattr(reference, "features", features)
                return getattr(reference, contraction)(*args)

        return run

    return SimpleNamespace(**{contraction: function(contraction) for contraction in CONTRACTIONS})


@pytest.mark.parametrize("contraction", CONTRACTIONS)
@pytest.mark.parametrize("grid_size", [5, 200])
def test_tolerance_passes_float32_features_but_no_coarser(contraction, grid_size, monkeypatch):
    for order in range(3):
        p = Problem.random(33, 7, 9, grid_size, order=order, weighted=True)
        assert_matches_reference(imitation(SINGLE, monkeypatch), contraction, p)
        for coarse in (BF16, HALF):
            with pytest.raises(AssertionError, match="elements off"):
                assert_matches_reference(imitation(coarse, monkeypatch), contraction, p)
    p = Problem.random(33, 7, 9, grid_size, weighted=True, dtype=DOUBLE)
    with pytest.raises(AssertionError, match="elements off"):
        assert_matches_reference(imitation(SINGLE, monkeypatch), contraction, p)
    if contraction != "edge_moments":  # where the errors of a coarse coordinate average out
        p = Problem.random(33, 7, 9, 50, weighted=True, dtype=BF16)
        with pytest.raises(AssertionError, match="elements off"):
            assert_matches_reference(imitation(BF16, monkeypatch), contraction, p)


@pytest.mark.parametrize("contraction", ["kan_out", "kan_coef"])
def test_the_tolerance_of_tf32_passes_truncated_operands_and_that_of_float32_does_not(contraction, monkeypatch):
    def truncated(t):
        return (t.float().view(torch.int32) & ~0x1FFF).view(SINGLE)

    monkeypatch.setattr(reference, "_scaled", lambda phi, s, rows: truncated(phi * s[rows, :, None].to(phi.dtype)))
    p = Problem.random(33, 7, 9, 5, weighted=True)
    coarse = {"coef": truncated(p.coef), "base_weight": truncated(p.base_weight), "u": truncated(p.u)}
    (found, *_) = call(reference, contraction, Problem(**{**vars(p), **coarse}))
    monkeypatch.undo()
    backend = SimpleNamespace(**{contraction: lambda *args: found})
    kept = p if contraction == "kan_out" else Problem(**{**vars(p), "base_weight": None})
    assert_matches_reference(backend, contraction, Problem(**{**vars(kept), "operand_epsilon": TF32}))
    with pytest.raises(AssertionError, match="elements off"):
        assert_matches_reference(backend, contraction, kept)


def test_assert_within_rejects_nan():
    with pytest.raises(AssertionError, match="1 of 2 elements off"):
        assert_within(torch.tensor([0.0, torch.nan]), torch.zeros(2), torch.ones(2))


# The operators as PyTorch sees them.


@pytest.mark.parametrize("dtype", [DOUBLE, BF16], ids=str)
@pytest.mark.parametrize("base", [None, "silu"])
@pytest.mark.parametrize("contraction", CONTRACTIONS)
def test_opcheck(native, contraction, base, dtype):
    op = getattr(torch.ops.fastkan, contraction).default
    for weighted in (False, True):
        p = Problem.random(5, 3, 4, 6, base=base, weighted=weighted, dtype=dtype)
        torch.library.opcheck(op, operator_arguments(contraction, p))


@pytest.mark.parametrize("contraction", CONTRACTIONS)
def test_fakes_have_the_shapes_and_dtypes_of_the_reference(contraction):
    for base, dtypes in itertools.product((None, "silu"), FACTORS["dtypes"]):
        p = Problem.random(5, 3, 4, 6, base=base, x_dtype=dtypes[0], dtype=dtypes[1])
        meta = Problem(**{k: v.to("meta") if isinstance(v, torch.Tensor) else v for k, v in vars(p).items()})
        found = getattr(torch.ops.fastkan, contraction)(*operator_arguments(contraction, meta))
        found = found if isinstance(found, tuple) else (found,)
        expected = call(reference, contraction, p)
        for got, want in zip(found, expected, strict=False):
            assert (got.shape, got.dtype) == (want.shape, want.dtype)
        assert all(extra.numel() == 0 for extra in found[len(expected) :])


def test_schemas_name_every_contraction():
    assert ops.CONTRACTIONS == CONTRACTIONS
    for backend in select.BACKENDS.values():
        assert all(callable(getattr(backend, contraction)) for contraction in CONTRACTIONS)


# Bitwise repeatable at any number of threads.


@pytest.mark.parametrize("dtype", [DOUBLE, SINGLE, BF16], ids=str)
@pytest.mark.parametrize("shape", [(257, 3, 300), (1000, 40, 33), (3, 300, 7), (8192, 2, 1)], ids=str)
@pytest.mark.parametrize("contraction", CONTRACTIONS)
def test_native_repeats_bit_for_bit_at_any_number_of_threads(native, contraction, shape, dtype, threads):
    for grid_size in (5, 50):
        p = Problem.random(*shape, grid_size, weighted=True, dtype=dtype)
        results = []
        for count in (1, 1, 2, 2, 3):
            threads(count)
            results.append(call(native, contraction, p))
        for other in results[1:]:
            assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


# The poison that the fixture of that name spreads.


def test_uninitialised_memory_is_poisoned(monkeypatch):
    assert torch.empty(1000).isnan().all()
    assert torch.empty_strided((10, 10), (1, 10), dtype=torch.float64).isnan().all()
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)
    if not hasattr(ctypes.CDLL(None), "mallopt"):
        pytest.skip("not glibc: memory allocated past torch.empty is not poisoned")
    for count in (10, 1000, 1_000_000):
        raw = torch.empty(count)
        assert (raw > 3e38).all(), count


def test_unwritten_result_fails(monkeypatch):
    lazy = SimpleNamespace(kan_out=lambda x, s, coef, *rest: torch.empty(x.shape[0], coef.shape[2]))
    with pytest.raises(AssertionError, match="elements off"):
        assert_matches_reference(lazy, "kan_out", Problem.random(3, 4, 5, 6))
