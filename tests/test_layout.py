"""Any shape in any layout: strides, offsets, expansions and nothing at all, drawn by hypothesis."""

from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastkan import reference, select
from fastkan.basis.base import BASES
from fastkan.basis.bspline import OUTSIDE
from fastkan.functional import edge_mean, kan_linear
from fastkan.testing import CONTRACTIONS, KNOTS, Problem, assert_matches_reference, call

QUICK = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def transposed(t: torch.Tensor) -> torch.Tensor:
    return t.mT.contiguous().mT if t.dim() > 1 else t


def strided(t: torch.Tensor) -> torch.Tensor:
    """Every other element of a larger tensor, from an odd offset."""
    larger = t.new_full([2 * n + 3 for n in t.shape], torch.nan)
    view = larger[tuple(slice(1, 2 * n + 1, 2) for n in t.shape)]
    return view.copy_(t)


def permuted(t: torch.Tensor) -> torch.Tensor:
    dims = list(range(1, t.dim())) + [0]
    back = [dims.index(d) for d in range(t.dim())]
    return t.permute(dims).contiguous().permute(back)


def expanded(t: torch.Tensor) -> torch.Tensor:
    """Its first row for every row; another tensor, but a legal one."""
    return t[:1].expand(t.shape) if t.dim() and t.shape[0] else t


def scalar(t: torch.Tensor) -> torch.Tensor:
    """One element for all of them, as .sum().backward() makes it."""
    return t.reshape(-1)[:1].view([1] * t.dim()).expand(t.shape) if t.numel() else t


def with_space_between_rows(t: torch.Tensor) -> torch.Tensor:
    return t.new_full([t.shape[0], t.shape[1] + 3], torch.nan)[:, 2:-1].copy_(t)


LAYOUTS = (torch.Tensor.contiguous, transposed, strided, permuted, expanded, scalar)


@st.composite
def problems(draw, smallest: int = 0) -> Problem:
    sizes = st.integers(smallest, 9)
    rows = draw(st.one_of(sizes, st.sampled_from([33, 70])))
    p = Problem.random(
        rows, draw(sizes), draw(st.one_of(sizes, st.sampled_from([17, 65]))), draw(st.integers(1, 12)),
        draw(st.integers(0, 5)), order=draw(st.integers(0, 3)), base=draw(st.sampled_from((None, *BASES))),
        outside=draw(st.sampled_from(OUTSIDE)), knots=draw(st.sampled_from(KNOTS)), per_input=draw(st.booleans()),
        weighted=draw(st.booleans()), with_bias=draw(st.booleans()),
        dtype=draw(st.sampled_from((torch.float64, torch.float32, torch.bfloat16))), seed=draw(st.integers(0, 99)),
    )  # fmt: skip
    layouts = {}
    for name in ("x", "s", "u", "coef", "base_weight", "bias", "grid", "terms"):
        tensor = getattr(p, name)
        if tensor is not None:
            # x keeps its values, which are away from the knots of its own column; a grid row's knots lie side by side
            kinds = {"x": LAYOUTS[:4], "grid": (torch.Tensor.contiguous, with_space_between_rows)}.get(name, LAYOUTS)
            layouts[name] = draw(st.sampled_from(kinds))(tensor)
    return replace(p, **layouts)


@pytest.mark.parametrize("contraction", CONTRACTIONS)
def test_native_takes_any_layout(native, contraction):
    @QUICK
    @given(problems())
    def check(p):
        if contraction == "edge_moments" and p.x.shape[0] == 0:
            assert all(t.isnan().all() for t in call(native, contraction, p))
        else:
            assert_matches_reference(native, contraction, p)

    check()


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


def test_results_are_contiguous_and_own_their_memory(backend_name):
    backend = select.BACKENDS[backend_name]
    p = Problem.random(5, 3, 4, 5, weighted=True)
    given_storages = {t.untyped_storage().data_ptr() for t in vars(p).values() if isinstance(t, torch.Tensor)}
    for contraction in CONTRACTIONS:
        for result in call(backend, contraction, p):
            assert result.is_contiguous()
            assert result.untyped_storage().data_ptr() not in given_storages
