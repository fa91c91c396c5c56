"""float32 rounded to tf32 on tensor cores, on the emulated GPU: forward, sparse by one number in every two columns, and
backward.
"""

import itertools
import random
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from emulated import BACKEND, FEW, MANY, NAMESPACE, PROCESSORS, algorithm
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from products import ALGORITHM, each_contraction
from test_ops import BRAIN, DOUBLE, SINGLE, label, on_knots, problem
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from fastkan import ops, reference
from fastkan.backends import native
from fastkan.basis.base import BASES
from fastkan.basis.bspline import OUTSIDE
from fastkan.testing import TF32, Problem, assert_matches_reference, call

ROUNDING = SimpleNamespace(**dict(zip(ops.CONTRACTIONS, ops.functions(NAMESPACE, ops.TF32), strict=True)))


def check(contraction: str, p: Problem) -> None:
    assert_matches_reference(ROUNDING, contraction, replace(p, operand_epsilon=TF32))
    assert algorithm() == "matrix"


@pytest.fixture(autouse=True)
def processors(monkeypatch):
    monkeypatch.setenv(ALGORITHM, "matrix")
    return lambda count: monkeypatch.setenv(PROCESSORS, str(count))


FACTORS = {
    "outside": OUTSIDE, "dtypes": ((SINGLE, SINGLE), (BRAIN, SINGLE)), "base": (None, *BASES),
    "per_input": (False, True), "weighted": (False, True), "with_bias": (False, True),
}  # fmt: skip
# less than a tile; no multiple of one; several tiles of both sizes
CROSSED = {"degree": (2, 3), "grid_size": (1, 4, 5, 9, 14, 29), "shape": ((1, 1, 4), (70, 9, 68), (130, 21, 132))}


def cases() -> list[dict]:
    draw = random.Random(2)
    return [
        {"order": 0, "knots": "promised", **dict(zip(CROSSED, values, strict=True)),
         **{name: draw.choice(values) for name, values in FACTORS.items()}}
        for values in itertools.product(*CROSSED.values())
    ]  # fmt: skip


@pytest.mark.parametrize("contraction", ["kan_out", "kan_backward"])
@pytest.mark.parametrize("count", [FEW, MANY])
@pytest.mark.parametrize("case", cases(), ids=label)
def test_is_the_reference(contraction, case, count, processors):
    processors(count)
    check(contraction, problem(case))


@pytest.mark.parametrize("degree", [2, 3])
def test_the_slope_is_the_reference(degree, processors):
    for count, outside in itertools.product((FEW, MANY), OUTSIDE):
        processors(count)
        check("kan_in", Problem.random(70, 9, 68, 6, degree, order=1, knots="promised", outside=outside))


@each_contraction
def test_any_cut(contraction, processors):
    """Drawn shapes on a GPU of any size: every output is written once, by whatever tiles."""

    @settings(
        max_examples=20, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(
        rows=st.integers(1, 280), inputs=st.integers(1, 20), fours=st.integers(1, 36), functions=st.integers(4, 32),
        degree=st.integers(2, 3), per_input=st.booleans(), count=st.sampled_from([1, 2, 7, 40, 300]),
    )  # fmt: skip
    def drawn(rows, inputs, fours, functions, degree, per_input, count):
        processors(count)
        shape = rows, inputs, 4 * fours, functions - degree, degree
        check(contraction, Problem.random(*shape, knots="promised", per_input=per_input, weighted=True))

    drawn()


@each_contraction
@pytest.mark.parametrize("shape", [(400, 3, 16), (20, 300, 16)], ids=str)
def test_repeats_bit_for_bit(contraction, shape, processors):
    """Where sums are split, too."""
    for count in (FEW, MANY):
        processors(count)
        p = Problem.random(*shape, 5, knots="promised", weighted=True)
        check(contraction, p)
        first, again = (call(ROUNDING, contraction, p) for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@each_contraction
@pytest.mark.parametrize("outside", OUTSIDE)
@pytest.mark.parametrize("degree", [2, 3])
def test_on_the_knots(contraction, degree, outside):
    p = on_knots(degree, 0, outside, "promised", SINGLE)
    wide = {name: t.repeat(*[1] * (t.dim() - 1), 4)[..., :4].contiguous() for name, t in vars(p).items()
            if name in ("u", "coef", "base_weight", "bias", "terms")}  # fmt: skip
    check(contraction, replace(p, **wide))


@each_contraction
@pytest.mark.parametrize("outside", OUTSIDE)
@pytest.mark.parametrize("degree", [2, 3])
def test_a_nan_is_where_the_reference_has_it(contraction, degree, outside):
    for base in (None, "silu"):
        p = Problem.random(70, 4, 8, 6, degree, knots="promised", outside=outside, base=base)
        p.x[33, 2] = torch.nan
        for got, expected in zip(call(ROUNDING, contraction, p), call(reference, contraction, p), strict=True):
            assert got.isnan().any()
            assert torch.equal(got.isnan(), expected.isnan())


def test_a_nan_among_the_coefficients_shows():
    p = Problem.random(70, 4, 8, 6, knots="promised")
    p.coef[1, 2, 3] = torch.nan
    (got,), (expected,) = call(ROUNDING, "kan_out", p), call(reference, "kan_out", p)
    # A coefficient times 0 is there for every row, though a window may not reach it.
    assert torch.equal(got.isnan()[:, :3], expected.isnan()[:, :3]) and got[:, 3].isnan().any()


@each_contraction
@pytest.mark.parametrize("outside", ["zero", "clamp"])
def test_at_infinity_is_the_reference(contraction, outside):
    p = Problem.random(9, 4, 8, 6, knots="promised", outside=outside, base=None)
    p.x[3, 2], p.x[5, 1] = torch.inf, -torch.inf
    for got, expected in zip(call(ROUNDING, contraction, p), call(reference, contraction, p), strict=True):
        assert expected.isfinite().all()
        torch.testing.assert_close(got, expected, rtol=0, atol=50 * TF32)  # of 16 products of numbers about 1


def test_coefficients_are_rounded_to_the_nearest():
    """By three quarters of a step of tf32 above 1: up, by a quarter; to truncate it would be down by three."""
    p = Problem.random(500, 1, 4, 20, knots="promised", base=None, with_bias=False)
    p = replace(p, coef=torch.full_like(p.coef, 1 + 0.75 * TF32), x=p.x * 0 + torch.linspace(-0.9, 0.8, 500)[:, None])
    (y,) = call(ROUNDING, "kan_out", p)
    assert float(y.double().mean() - 1) == pytest.approx(TF32, rel=0.1)


# What takes it


LARGE = {"rows": 64, "inputs": 2, "outputs": 64, "grid_size": 5, "knots": "promised"}
CHANGES = [
    ({}, "matrix"), ({"degree": 2, "grid_size": 30}, "matrix"), ({"grid_size": 1}, "matrix"), ({"rows": 63}, "gather"),
    ({"outputs": 66}, "gather"), ({"order": 2}, "gather"), ({"knots": "even"}, "gather"), ({"degree": 4}, "gather"),
    ({"grid_size": 30}, "gather"), ({"x_dtype": DOUBLE}, "gather"), ({"dtype": DOUBLE}, "gather"),
]  # fmt: skip


@each_contraction
@pytest.mark.parametrize(("change", "expected"), CHANGES, ids=str)
def test_what_takes_it(contraction, change, expected, monkeypatch):
    monkeypatch.delenv(ALGORITHM)
    p = Problem.random(**{**LARGE, **change})
    call(ROUNDING, contraction, p)
    assert algorithm() == expected
    call(BACKEND, contraction, p)
    assert algorithm() == "gather"


def test_asking_never_falls_back():
    p = Problem.random(**LARGE)
    with pytest.raises(RuntimeError, match="or float32 that may be rounded to tf32"):
        call(BACKEND, "kan_out", p)
    with pytest.raises(RuntimeError, match="they take up to 32 functions of float32"):
        call(ROUNDING, "kan_out", Problem.random(**{**LARGE, "grid_size": 30}))


class Operators(TorchDispatchMode):
    """The names of those that run."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))


@each_contraction
@pytest.mark.parametrize(("precision", "dtype", "device", "rounds"), [
    ("highest", SINGLE, "cuda", False), ("high", SINGLE, "cuda", True), ("medium", SINGLE, "cuda", True),
    ("medium", DOUBLE, "cuda", False), ("medium", BRAIN, "cuda", False), ("medium", SINGLE, "cpu", False),
])  # fmt: skip
def test_follows_torchs_switch(contraction, precision, dtype, device, rounds):
    p = Problem.random(2, 2, 4, 5).to(dtype)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        with FakeTensorMode(), Operators() as ran:  # a GPU without memory and values
            tensors = {name: torch.empty(t.shape, dtype=t.dtype, device=device)
                       for name, t in vars(p).items() if isinstance(t, torch.Tensor)}  # fmt: skip
            call(native, contraction, replace(p, **tensors))
    finally:
        torch.set_float32_matmul_precision(before)
    assert ran.names[-1] == f"fastkan::{contraction}{ops.TF32 if rounds else ''}"
