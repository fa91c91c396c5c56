"""CPU kernels: instruction sets chosen at run time, every branch of the kernels, offsets beyond 32 bits."""

import math
import mmap
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from fastkan.backends import native
from fastkan.basis.bspline import uniform_knots
from fastkan.functional import kan_linear
from fastkan.spec import Spec
from fastkan.testing import Problem, assert_matches_reference, call
from support.backends import skip_if_missing
from support.tiers import long

SETS = {"baseline": set(), "avx2": {"avx2", "fma"}, "avx512": {"avx512f", "avx512bw", "avx512dq", "avx512vl"}}

# Every contraction, degree, family and type, with windows, chunks of outputs and blocks of inputs that are not full.
CHECK = """
import sys
from dataclasses import replace
from itertools import product
import torch
from fastkan.backends import native
from fastkan.stack import Layer, _out, parts, layered
from fastkan.testing import CONTRACTIONS, KNOTS, Problem, assert_matches_reference
torch.set_num_threads(1)
assert native.cpu_isa() == sys.argv[1], native.cpu_isa()
shapes = ((1, 1, 1), (33, 17, 65), (130, 5, 12), (20, 3, 300))
dtypes = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
for seed, (degree, dtype) in enumerate(product(range(6), dtypes)):
    shape, knots = shapes[seed % 4], KNOTS[seed % len(KNOTS)]
    p = Problem.random(*shape, (2, 7, 40)[seed % 3], degree, knots=knots, order=seed % 3, dtype=dtype, seed=seed)
    for contraction in CONTRACTIONS:
        assert_matches_reference(native, contraction, p)
for seed, (family, dtype) in enumerate(product((1, 2), dtypes)):
    p = Problem.random(*shapes[seed % 4], (7, 21)[seed % 2], 0, knots="promised", order=seed % 3, dtype=dtype)
    for contraction in CONTRACTIONS:
        spec = p.spec._replace(family=family, outside=(0, 2)[family - 1])
        assert_matches_reference(native, contraction, replace(p, spec=spec))
for functions, outputs, dtype in product((2, 3, 5, 7), (1, 2, 4, 7, 8), dtypes[:2]):  # few, which may fill a vector
    p = Problem.random(20, 18, outputs, functions - 1, 1, dtype=dtype)
    for contraction in CONTRACTIONS:
        assert_matches_reference(native, contraction, p)
for degree, dtype in product(range(6), dtypes[:2]):
    layers = []
    for seed, (i, o) in enumerate(((3, 5), (5, 17), (17, 1))):
        p = Problem.random(1, i, o, 5, degree, dtype=dtype, seed=seed)
        layers.append(Layer(p.coef / 4, p.terms[0], p.base_weight / 4, p.bias, p.grid, p.spec))
    x, v = (torch.rand(300, 3, dtype=torch.float64).mul(2).sub(1).to(dtype).requires_grad_() for _ in range(2))
    found = torch.autograd.grad(_out(x, [v], *parts(layers), "native").sum(), (x, v))
    double = [Layer(*(t.double() for t in m[:5]), m.spec) for m in layers]
    x, v = (t.detach().double().requires_grad_() for t in (x, v))
    expected = torch.autograd.grad(layered(x, [v], double, "reference").sum(), (x, v))
    for got, want in zip(found, expected):  # at most a row in a hundred is seen on the other side of a knot
        off = (got.double() - want).abs() > 2000 * torch.finfo(dtype).eps * want.abs().max()
        assert off.double().mean() < 0.01, (degree, dtype)
print("matched")
"""


def flags() -> set[str]:
    try:
        with open("/proc/cpuinfo") as text:
            return set(next(line for line in text if line.startswith("flags")).split())
    except (OSError, StopIteration):
        return set()


def run(isa: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "FASTKAN_CPU_ISA": isa}
    return subprocess.run([sys.executable, "-c", CHECK, isa], capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("isa", SETS)
def test_every_instruction_set_matches_the_reference(isa):
    skip_if_missing("native")
    if not SETS[isa] <= flags():
        pytest.skip(f"this processor has no {isa}")
    done = run(isa)
    assert done.stdout.strip() == "matched", done.stderr[-2000:]


def test_an_unknown_instruction_set_is_an_error_that_names_it():
    skip_if_missing("native")
    done = run("mmx")
    assert done.returncode != 0
    assert "FASTKAN_CPU_ISA=mmx: expected baseline, avx2 or avx512" in done.stderr


def test_the_best_instruction_set_is_chosen():
    skip_if_missing("native")
    if os.environ.get("FASTKAN_CPU_ISA"):
        pytest.skip("FASTKAN_CPU_ISA chooses")
    best = [isa for isa, needed in SETS.items() if needed <= flags()][-1]
    assert native.cpu_isa() == best


# The ways through the kernels. Rows in sorted order: windows with many rows and several tiles of them; with few rows,
# summed in groups of inputs; with none, between rows far apart. Few outputs, whose coefficients are looked up.
CASES = [(5000, 3, 33, 60), (512, 65, 136, 92), (40, 2, 64, 1000), (3000, 5, 1, 10), (33, 40, 3, 4)]


@pytest.mark.parametrize("dtype", [torch.float32, *long(torch.bfloat16)], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_branch_matches_the_reference_at_any_number_of_threads(case, dtype, threads):
    skip_if_missing("native")
    p = Problem.random(*case, base="identity", weighted=True, dtype=dtype)
    for contraction in ("kan_out", "kan_in", "kan_coef", "kan_backward"):
        threads(1)
        assert_matches_reference(native, contraction, p)
        found = call(native, contraction, p)
        threads(3)
        assert all(torch.equal(a, b) for a, b in zip(found, call(native, contraction, p), strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("outside", ["zero", "linear", "clamp"])
@pytest.mark.parametrize("intervals", [1, 5, 31, 33, 64, 300, 1100])
def test_uneven_knots_separate_neighbouring_floats(intervals, outside, dtype):
    """Neighbouring floats of every knot, infinities and NaN are on the knot spans of the reference."""
    skip_if_missing("native")
    torch.manual_seed(intervals)
    knots = torch.rand(intervals + 1, dtype=torch.float64).cumsum(0)
    near = knots.to(dtype)
    ends = torch.tensor([math.inf, -math.inf, math.nan], dtype=dtype)
    x = torch.cat([near, near.nextafter(ends[0]), near.nextafter(ends[1]), ends])[:, None]
    coef = torch.arange(1.0, intervals + 1, dtype=dtype)[None, :, None]
    found, expected = (
        kan_linear(x, coef, knots, degree=0, base="zero", outside=outside, backend=backend)
        for backend in ("native", "reference")
    )
    assert torch.equal(found.nan_to_num(nan=-1.0), expected.nan_to_num(nan=-1.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("outside", ["zero", "linear", "clamp"])
@pytest.mark.parametrize("intervals", [16, 17, 32, 33])  # as many knot spans as two vectors hold, and one more
def test_few_uneven_knots_are_looked_up(intervals, outside, dtype):
    skip_if_missing("native")
    for degree in range(1, 6):
        options = {"knots": "uneven", "per_input": True, "outside": outside, "dtype": dtype, "order": degree % 2}
        p = Problem.random(300, 3, 7, intervals - 2 * degree, degree, **options)
        for contraction in ("kan_out", "kan_backward"):
            assert_matches_reference(native, contraction, p)


def sparse(*shape: int, strides: tuple[int, ...]) -> torch.Tensor:
    """A float32 tensor of zeros that spans gigabytes of addresses, of which only the pages it touches exist."""
    size = 4 * (sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True)) + 1)
    try:
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0))
    except (OSError, ValueError) as error:
        pytest.skip(f"no {size >> 30} GiB of addresses: {error}")
    return torch.from_numpy(np.frombuffer(memory, dtype=np.float32)).as_strided(shape, strides)


def test_offsets_beyond_32_bits():
    """x, u and coef with strides beyond 2^31 elements give the results of contiguous copies."""
    skip_if_missing("native")
    far, inputs, outputs, functions = 2**30 + 3, 3, 32, 9
    x, u = sparse(3, inputs, strides=(far, 1)), sparse(3, outputs, strides=(far, 1))
    coef = sparse(inputs, functions, outputs, strides=(far, 2**28, 1))
    for t in (x, u, coef):
        assert (t.shape[0] - 1) * t.stride(0) > 2**31
        t.copy_(torch.randn(t.shape).clamp(-1, 1))
    grid = uniform_knots(-1, 1, functions - 3, 3).expand(inputs, -1)
    spec = Spec.of(3, "zero", "zero", True)
    near = [t.contiguous() for t in (x, u, coef)]
    found = native.kan_out(x, None, coef, None, None, grid, spec, 0)
    assert torch.equal(found, native.kan_out(near[0], None, near[2], None, None, grid, spec, 0))
    found = native.kan_backward(x, None, u, coef, None, grid, spec, 0)
    expected = native.kan_backward(near[0], None, near[1], near[2], None, grid, spec, 0)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
    assert found[0].abs().sum() > 0 and found[1].abs().sum() > 0
