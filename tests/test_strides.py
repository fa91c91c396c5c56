"""Tensors of any shape and any strides, offsets and expansions, drawn by hypothesis."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastkan import reference, select
from fastkan.basis.base import BASES
from fastkan.basis.bspline import OUTSIDE
from fastkan.functional import edge_mean, kan_linear
from fastkan.testing import CONTRACTIONS, Problem, call
from support.contraction_tests import test_native_takes_any_layout  # noqa: F401
from support.strides import LAYOUTS, QUICK, problems


@pytest.mark.parametrize("contraction", CONTRACTIONS)
def test_the_reference_takes_any_layout(contraction):
    @QUICK
    @given(problems())
    def check(p):
        tensors = {name: t.contiguous() for name, t in vars(p).items() if isinstance(t, torch.Tensor)}
        found, expected = call(reference, contraction, p), call(reference, contraction, replace(p, **tensors))
        torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2, equal_nan=True)

    check()


@st.composite
def calls_of_the_layer(draw) -> tuple[Problem, torch.Tensor]:
    p = replace(draw(problems(smallest=1)).to(torch.float64), order=0)
    lead = draw(st.sampled_from(((-1,), (1, -1), (-1, 1), (1, 1, -1))))
    x = draw(st.sampled_from(LAYOUTS[:4]))(p.x.view(*lead, p.x.shape[1]) if p.x.is_contiguous() else p.x)
    return replace(p, grid=draw(st.sampled_from(LAYOUTS[:4]))(p.grid)), x


def options(p: Problem) -> dict:
    spec = p.spec
    return {
        "degree": spec.degree, "base": BASES[spec.base], "outside": OUTSIDE[spec.outside], "uniform": spec.uniform,
    }  # fmt: skip


def test_the_layer_and_its_gradients_do_not_depend_on_layout(backend):
    @QUICK
    @given(calls_of_the_layer(), st.sampled_from(LAYOUTS))
    def check(drawn, layout):
        p, x = drawn
        results = []
        for plain in (False, True):
            given_tensors = {"x": x, "coef": p.coef, "base_weight": p.base_weight, "bias": p.bias}
            leaves = {
                name: (t.contiguous() if plain else t).detach().requires_grad_()
                for name, t in given_tensors.items()
                if t is not None
            }
            y = kan_linear(**leaves, grid=p.grid.contiguous() if plain else p.grid, backend=backend, **options(p))
            cotangent = layout(torch.cos(torch.arange(y.numel()).double()).view_as(y))
            y.backward(cotangent.contiguous() if plain else cotangent)
            results.append([y.detach(), *(t.grad for t in leaves.values())])
        for got, want in zip(*results, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9 * float(want.abs().amax() + 1))

    check()


def test_the_gradient_of_a_sum(backend):
    """Its cotangent is one number, expanded."""
    p = Problem.random(40, 5, 6, 5, dtype=torch.float64)
    gradients = []
    for number in (torch.Tensor.sum, lambda y: (y * torch.ones_like(y)).sum()):
        leaves = [t.clone().requires_grad_() for t in (p.x, p.coef, p.base_weight, p.bias)]
        number(kan_linear(leaves[0], leaves[1], p.grid, *leaves[2:], degree=3, backend=backend)).backward()
        gradients.append([t.grad for t in leaves])
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


def test_edge_mean_takes_any_layout(backend):
    @QUICK
    @given(calls_of_the_layer())
    def check(drawn):
        p, x = drawn
        found = edge_mean(x, p.coef, p.grid, p.base_weight, backend=backend, **options(p))
        base = None if p.base_weight is None else p.base_weight.contiguous()
        plain = edge_mean(x.contiguous(), p.coef.contiguous(), p.grid.contiguous(), base, backend=backend, **options(p))
        torch.testing.assert_close(found, plain, rtol=1e-9, atol=1e-9 * float(plain.abs().amax() + 1))

    check()


def test_results_are_contiguous_and_share_no_memory(backend_name):
    backend = select.BACKENDS[backend_name]
    p = Problem.random(5, 3, 4, 5, weighted=True)
    given_storages = {t.untyped_storage().data_ptr() for t in vars(p).values() if isinstance(t, torch.Tensor)}
    for contraction in CONTRACTIONS:
        for result in call(backend, contraction, p):
            assert result.is_contiguous()
            assert result.untyped_storage().data_ptr() not in given_storages
