"""The matrix kernels in 32 and 64 bits on the emulated GPU: float32 rounded to tf32, with 1:2 sparsity in the forward,
and float64.
"""

import itertools
import random
from dataclasses import dataclass, replace
from types import ModuleType, SimpleNamespace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from fastkan import ops, reference
from fastkan.backends import native
from fastkan.basis.base import BASES
from fastkan.basis.bspline import OUTSIDE
from fastkan.testing import TF32, Problem, assert_matches_reference, call
from support.emulated import BACKEND, FEW, MAJOR, MANY, NAMESPACE, PROCESSORS, algorithm
from support.matrix_product_tests import ALGORITHM, each_contraction
from support.problems import BF16, DOUBLE, SINGLE, label, on_knots, problem_of

ROUNDING = SimpleNamespace(**dict(zip(ops.CONTRACTIONS, ops.functions(NAMESPACE, ops.TF32), strict=True)))


@dataclass(frozen=True)
class Kind:
    """A product type: its backend, the rounding epsilon of operands, and its limits."""

    backend: ModuleType | SimpleNamespace
    dtype: torch.dtype
    others: torch.dtype  # of x, beside dtype
    epsilon: float
    width: int  # numbers in 16 bytes
    functions: int  # at most

    def random(self, *shape: int, **how) -> Problem:
        return Problem.random(*shape, **{"knots": "promised", "dtype": self.dtype, **how})

    def check(self, contraction: str, p: Problem) -> None:
        assert_matches_reference(self.backend, contraction, replace(p, operand_epsilon=self.epsilon))
        assert algorithm() == "matrix"


KINDS = {
    "tf32": Kind(ROUNDING, SINGLE, BF16, TF32, 4, 32),
    "float64": Kind(BACKEND, DOUBLE, SINGLE, 0.0, 2, 16),
}
each_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


@pytest.fixture(autouse=True)
def processors(monkeypatch):
    monkeypatch.setenv(ALGORITHM, "matrix")
    return lambda count: monkeypatch.setenv(PROCESSORS, str(count))


def cases() -> list:
    """Every degree, grid size and shape of each kind once, the other factors drawn with a fixed seed."""
    draw = random.Random(2)
    # less than a tile; no multiple of one; several tiles of all sizes
    shapes = (1, 1, 1), (70, 9, 17), (130, 21, 33)
    found = []
    for name, kind in KINDS.items():
        sizes = [1, 4, 5, kind.functions // 2 + 1, kind.functions - 3]
        for degree, grid_size, (rows, inputs, pieces) in itertools.product((2, 3), sizes, shapes):
            case = {
                "order": 0, "knots": "promised", "degree": degree, "grid_size": grid_size,
                "shape": (rows, inputs, pieces * kind.width), "outside": draw.choice(OUTSIDE),
                "dtypes": (draw.choice((kind.dtype, kind.others)), kind.dtype), "base": draw.choice((None, *BASES)),
                **{flag: draw.choice((False, True)) for flag in ("per_input", "weighted", "with_bias")},
            }  # fmt: skip
            found.append(pytest.param(kind, case, draw.choice((FEW, MANY)), id=f"{name}-{label(case)}"))
    return found


@pytest.mark.sweep
@pytest.mark.parametrize("contraction", ["kan_out", "kan_backward"])
@pytest.mark.parametrize(("kind", "case", "count"), cases())
def test_matches_the_reference(contraction, kind, case, count, processors):
    processors(count)
    kind.check(contraction, problem_of(case))


@each_kind
@pytest.mark.parametrize("degree", [2, 3])
def test_slopes_match_the_reference(kind, degree, processors):
    for count, outside in itertools.product((FEW, MANY), OUTSIDE):
        processors(count)
        kind.check("kan_in", kind.random(70, 9, 68, 6, degree, order=1, outside=outside))


@each_kind
@each_contraction
def test_any_tiling(kind, contraction, processors):
    """Random shapes and GPU sizes: every output is written exactly once."""

    @settings(
        max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(
        rows=st.integers(1, 280), inputs=st.integers(1, 20), pieces=st.integers(1, 144 // kind.width),
        functions=st.integers(4, kind.functions), degree=st.integers(2, 3), per_input=st.booleans(),
        count=st.sampled_from([1, 2, 7, 40, 300]),
    )  # fmt: skip
    def drawn(rows, inputs, pieces, functions, degree, per_input, count):
        processors(count)
        shape = rows, inputs, pieces * kind.width, functions - degree, degree
        kind.check(contraction, kind.random(*shape, per_input=per_input, weighted=True))

    drawn()


@each_kind
@pytest.mark.parametrize("contraction", ["kan_out", "kan_backward"])
@pytest.mark.parametrize("shape", [(400, 3, 16), (20, 300, 16)], ids=str)
def test_repeats_bit_for_bit(kind, contraction, shape, processors):
    """Also if sums are split."""
    for count in (FEW, MANY):
        processors(count)
        p = kind.random(*shape, 5, weighted=True)
        kind.check(contraction, p)
        first, again = (call(kind.backend, contraction, p) for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@each_kind
@each_contraction
@pytest.mark.parametrize("outside", OUTSIDE)
@pytest.mark.parametrize("degree", [2, 3])
def test_on_the_knots(kind, contraction, degree, outside):
    p = on_knots(degree, 0, outside, "promised", kind.dtype)
    wide = {name: t.repeat(*[1] * (t.dim() - 1), 4)[..., :4].contiguous() for name, t in vars(p).items()
            if name in ("u", "coef", "base_weight", "bias", "terms")}  # fmt: skip
    kind.check(contraction, replace(p, **wide))


@each_kind
@each_contraction
@pytest.mark.parametrize("outside", OUTSIDE)
@pytest.mark.parametrize("degree", [2, 3])
def test_nans_match_the_reference(kind, contraction, degree, outside):
    for base in (None, "silu"):
        p = kind.random(70, 4, 8, 6, degree, outside=outside, base=base)
        p.x[33, 2] = torch.nan
        for got, expected in zip(call(kind.backend, contraction, p), call(reference, contraction, p), strict=True):
            assert got.isnan().any()
            assert torch.equal(got.isnan(), expected.isnan())


@each_kind
def test_a_nan_coefficient_shows(kind):
    p = kind.random(70, 4, 8, 6)
    p.coef[1, 2, 3] = torch.nan
    (got,), (expected,) = call(kind.backend, "kan_out", p), call(reference, "kan_out", p)
    # A coefficient times 0 is there for every row, though a window may not reach it.
    assert torch.equal(got.isnan()[:, :3], expected.isnan()[:, :3]) and got[:, 3].isnan().any()


@each_kind
@each_contraction
@pytest.mark.parametrize("outside", ["zero", "clamp"])
def test_infinities_match_the_reference(kind, contraction, outside):
    p = kind.random(9, 4, 8, 6, outside=outside, base=None)
    p.x[3, 2], p.x[5, 1] = torch.inf, -torch.inf
    for got, expected in zip(call(kind.backend, contraction, p), call(reference, contraction, p), strict=True):
        assert expected.isfinite().all()
        # 16 products of numbers about 1 and features or slopes of about 3, which take 40 roundings
        allowed = 50 * kind.epsilon + 16 * 3 * 40 * torch.finfo(kind.dtype).eps
        torch.testing.assert_close(got, expected, rtol=0, atol=allowed)


def test_coefficients_are_rounded_to_the_nearest():
    """1 + 3/4 ulp of tf32 is rounded up, by 1/4 ulp; truncation would be down by 3/4."""
    p = Problem.random(500, 1, 4, 20, knots="promised", base=None, with_bias=False)
    p = replace(p, coef=torch.full_like(p.coef, 1 + 0.75 * TF32), x=p.x * 0 + torch.linspace(-0.9, 0.8, 500)[:, None])
    (y,) = call(ROUNDING, "kan_out", p)
    assert float(y.double().mean() - 1) == pytest.approx(TF32, rel=0.1)


# What takes it


LARGE = {"rows": 64, "inputs": 2, "outputs": 64, "grid_size": 5}
CHANGES = {
    "matrix": [{}, {"degree": 2}, {"grid_size": 1}, {"per_input": True}],
    "gather": [{"rows": 63}, {"outputs": 65}, {"order": 2}, {"knots": "even"}, {"degree": 4}, {"grid_size": 30}],
}


@each_kind
@each_contraction
@pytest.mark.parametrize(("change", "expected"), [(c, name) for name in CHANGES for c in CHANGES[name]], ids=str)
def test_when_it_is_chosen(kind, contraction, change, expected, monkeypatch):
    monkeypatch.delenv(ALGORITHM)
    call(kind.backend, contraction, kind.random(**{**LARGE, **change}))
    assert algorithm() == expected


@each_contraction
@pytest.mark.parametrize("how", [{"dtype": SINGLE}, {"dtype": SINGLE, "x_dtype": DOUBLE}], ids=str)
def test_float32_is_not_rounded_to_tf32(contraction, how, monkeypatch):
    monkeypatch.delenv(ALGORITHM)
    p = Problem.random(**LARGE, knots="promised", **how)
    call(BACKEND, contraction, p)
    assert algorithm() == "gather"
    if "x_dtype" in how:
        call(ROUNDING, contraction, p)
        assert algorithm() == "gather"


@pytest.mark.parametrize(
    ("gpu", "major", "ratio", "automatic"),
    [("sm_80", 8, 2, "matrix"), ("sm_90", 9, 2, "matrix"), ("sm_86", 8, 64, "gather"), ("sm_100", 10, 2, "gather")],
)
def test_float64_on_gpus_whose_tensor_cores_double_its_rate(monkeypatch, gpu, major, ratio, automatic):
    """Chosen automatically there; everywhere by request."""
    monkeypatch.setenv(MAJOR, str(major))
    monkeypatch.setenv("FASTKAN_EMULATED_RATIO", str(ratio))
    for asked, expected in ("matrix", "matrix"), ("", automatic):
        monkeypatch.setenv(ALGORITHM, asked)
        call(BACKEND, "kan_out", KINDS["float64"].random(**LARGE))
        assert algorithm() == expected


@pytest.mark.parametrize(("backend", "how", "reason"), [
    (BACKEND, {"dtype": SINGLE}, "float32 that may be rounded to tf32"),
    (BACKEND, {"dtype": SINGLE, "x_dtype": DOUBLE}, "float64 for coefficients of float64"),
    (ROUNDING, {"dtype": SINGLE, "grid_size": 30}, "up to 32 functions of float32"),
    (BACKEND, {"dtype": DOUBLE, "grid_size": 14}, "up to 16 functions of float64"),
])  # fmt: skip
def test_requests_never_fall_back(backend, how, reason):
    with pytest.raises(RuntimeError, match=f"FASTKAN_CUDA_ALGORITHM: no such kernels for this: they take {reason}"):
        call(backend, "kan_out", Problem.random(**{**LARGE, "knots": "promised", **how}))


class Operators(TorchDispatchMode):
    """Records the names of the operators that run."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))


@each_contraction
@pytest.mark.parametrize(("precision", "dtype", "device", "rounds"), [
    ("highest", SINGLE, "cuda", False), ("high", SINGLE, "cuda", True), ("medium", SINGLE, "cuda", True),
    ("medium", DOUBLE, "cuda", False), ("medium", BF16, "cuda", False), ("medium", SINGLE, "cpu", False),
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
